// Starts a program by Node's own binding.
import { getSystemErrorName } from "node:util";
import { attempt } from "./attempt.mjs";

await attempt(() => {
  const { spawn } = process.binding("spawn_sync");
  const { error, status } = spawn({ file: "/bin/true", args: ["true"], envPairs: [], stdio: [{ type: "ignore" }] });
  if (error) throw Object.assign(new Error("spawn_sync"), { code: getSystemErrorName(error) });
  return `started, status ${status}`;
});
