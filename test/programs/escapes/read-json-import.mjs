// Reads JSON by importing it.
import { pathToFileURL } from "node:url";
import { attempt, target } from "./attempt.mjs";

await attempt(async () => (await import(pathToFileURL(target.json).href, { with: { type: "json" } })).default.secret);
