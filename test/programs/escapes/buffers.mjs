// Allocates array buffers, which no heap limit counts.
import { attempt } from "./attempt.mjs";

await attempt(() => {
  const kept = [];
  for (let n = 0; n < 40; n++) kept.push(new Uint8Array(16 << 20).fill(1));
  return `${kept.length} buffers of 16 MiB`;
});
