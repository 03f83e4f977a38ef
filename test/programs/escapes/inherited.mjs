// Reads a descriptor that the caller had open.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFileSync(target.fd, "utf8"));
