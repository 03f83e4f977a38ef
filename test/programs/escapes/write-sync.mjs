// Overwrites a file.
import { writeFileSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => writeFileSync(target.secret, "overwritten") ?? "written");
