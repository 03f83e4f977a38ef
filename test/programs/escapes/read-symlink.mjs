// Reads a file through a symbolic link that lies where reading is granted.
import { readFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readFileSync(target.link, "utf8"));
