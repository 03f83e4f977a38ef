// Removes a file.
import { unlinkSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => unlinkSync(target.spare) ?? "removed");
