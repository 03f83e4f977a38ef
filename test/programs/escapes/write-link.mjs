// Makes a symbolic link.
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { attempt, target } from "./attempt.mjs";

await attempt(() => symlinkSync("/", join(target.folder, `to-root-${process.pid}`)) ?? "linked");
