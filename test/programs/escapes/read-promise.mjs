// Reads a file by a promise, in a thread of libuv's pool.
import { readFile } from "node:fs/promises";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFile(target.secret, "utf8"));
