// Sets the times of a file.
import { utimesSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => utimesSync(target.secret, 1, 1) ?? "set");
