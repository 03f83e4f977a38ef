// Reads a file in a worker of its own.
import { Worker } from "node:worker_threads";
import { attempt, once, target } from "./attempt.mjs";

await attempt(async () => {
  const worker = new Worker(`require("fs").readFileSync(require("worker_threads").workerData, "utf8")`, {
    eval: true,
    workerData: target.secret,
  });
  await once(worker, "exit");
  return "read";
});
