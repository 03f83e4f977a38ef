// Watches what happens in a folder.
import { watch } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => watch(target.folder) && "watching");
