// Takes the processor from another process.
import { setPriority } from "node:os";
import { attempt, target } from "./attempt.mjs";

await attempt(() => setPriority(target.pid, 19) ?? "lowered");
