// Reads a module in a worker.
import { Worker } from "node:worker_threads";
import { attempt, once, target } from "./attempt.mjs";

await attempt(async () => once(new Worker(target.module), "exit").then(() => "read"));
