// Reads the environment of another process of the user.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFileSync(`/proc/${target.pid}/environ`, "utf8"));
