// Reads a file.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFileSync(target.secret, "utf8"));
