// Loads native code.
import { attempt, target } from "./attempt.mjs";

await attempt(() => process.dlopen({ exports: {} }, target.addon) ?? "loaded");
