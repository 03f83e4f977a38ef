// Reads a module by require.
import { createRequire } from "node:module";
import { attempt, target } from "./attempt.mjs";

await attempt(() => createRequire(import.meta.url)(target.json).secret);
