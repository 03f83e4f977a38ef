// Reads a file by way of its own root in /proc.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFileSync(`/proc/self/root${target.secret}`, "utf8"));
