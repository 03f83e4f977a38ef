// Reads a file out of another context.
import { readFileSync } from "node:fs";
import { runInNewContext } from "node:vm";
import { attempt, target } from "./attempt.mjs";

await attempt(() =>
  runInNewContext("read(secret)", { read: (path) => readFileSync(path, "utf8"), secret: target.secret }),
);
