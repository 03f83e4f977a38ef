// Reads a file by WASI, whose module opens "secret" in a folder that it was given.
import { WASI } from "node:wasi";
import { attempt, target } from "./attempt.mjs";

await attempt(async () => {
  const wasi = new WASI({ version: "preview1", preopens: { "/": target.folder } });
  const memory = new WebAssembly.Memory({ initial: 1 });
  wasi.initialize({ exports: { memory } });
  new Uint8Array(memory.buffer).set(Buffer.from("secret"), 64);
  const { path_open: open } = wasi.wasiImport;
  const status = open(3, 0, 64, 6, 0, 2n, 0n, 0, 128);
  if (status !== 0) throw Object.assign(new Error("path_open"), { code: `errno ${status}` });
  return "opened";
});
