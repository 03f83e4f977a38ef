// Reads the environment that it was started with.
import { readFileSync } from "node:fs";
import { attempt } from "./attempt.mjs";

await attempt(() => readFileSync("/proc/self/environ", "utf8"));
