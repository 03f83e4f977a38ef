// Reads a file by eval.
import { attempt, target } from "./attempt.mjs";

await attempt(() => {
  // biome-ignore lint/security/noGlobalEval: it is what is tried
  return globalThis.eval("process").getBuiltinModule("node:fs").readFileSync(target.secret, "utf8");
});
