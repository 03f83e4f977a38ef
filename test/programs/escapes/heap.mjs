// Fills the heap.
import { attempt } from "./attempt.mjs";

await attempt(() => {
  const kept = [];
  for (let n = 0; n < 40; n++) kept.push(new Array(1 << 20).fill(n + 0.5));
  return `${kept.length} arrays of 8 MiB`;
});
