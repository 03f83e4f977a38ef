// Lists a directory.
import { readdirSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => readdirSync(target.folder).join());
