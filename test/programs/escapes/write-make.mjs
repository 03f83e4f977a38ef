// Makes a file.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { attempt, target } from "./attempt.mjs";

await attempt(() => writeFileSync(join(target.folder, "made"), "") ?? "made");
