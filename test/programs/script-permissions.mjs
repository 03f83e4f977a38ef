// Stands for the host of a script: its fd 4 is the broker's socket. Runs the code that its stdin holds with the
// permissions in force and says how that ended as JSON. JAIL names, by spaces, files whose opening fails as in the jail.

import { readFileSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";

const fs = createRequire(import.meta.url)("node:fs");
const closed = (process.env.JAIL ?? "").split(" ");
const refuse = (path) => {
  if (closed.includes(String(path))) {
    throw Object.assign(new Error(`EACCES: permission denied, open '${path}'`), { code: "EACCES", path });
  }
};
for (const name of ["openSync", "readFileSync", "writeFileSync", "readdirSync"]) {
  const original = fs[name];
  fs[name] = (path, ...rest) => {
    refuse(path);
    return original(path, ...rest);
  };
}
for (const name of ["open", "readFile"]) {
  const original = fs[name];
  fs[name] = (path, ...rest) => {
    try {
      refuse(path);
    } catch (error) {
      return process.nextTick(rest.at(-1), error);
    }
    return original(path, ...rest);
  };
  const promised = fs.promises[name];
  fs.promises[name] = async (path, ...rest) => {
    refuse(path);
    return promised(path, ...rest);
  };
}
syncBuiltinESMExports();

const code = readFileSync(0, "utf8");
const { permit } = await import("../../dist/script/host/permitted.js");
permit({ brokerFd: 4, variables: { GRANTED: "yes" } });
const body = new (async () => {}).constructor("load", code);
let outcome;
try {
  outcome = { value: await body((name) => import(name)) };
} catch (error) {
  outcome = { error: error.name, code: error.code, message: error.message };
}
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
