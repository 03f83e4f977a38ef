/**
 * The process that runs a script, in its jail: the supervisor outside starts it and speaks to it in lines of JSON on
 * descriptor 3. It ends when that channel does.
 */

import { Socket } from "node:net";
import { createInterface } from "node:readline";
import type { Order, Report, ScriptProblem } from "../questions.js";
import { ScriptPool } from "./pool.js";
import type { LoadResult } from "./worker.js";

const CONTROL_FD = 3;

const control = new Socket({ fd: CONTROL_FD, readable: true, writable: true });
const report = (line: Report): void => {
  control.write(`${JSON.stringify(line)}\n`);
};

let pool: ScriptPool | undefined;

async function carryOut(order: Order): Promise<Report> {
  const { id } = order;
  if (order.kind === "load") {
    pool = new ScriptPool(order.load, (problem: ScriptProblem) => report({ kind: "problem", problem }));
    return loadReport(id, await pool.load());
  }
  if (pool === undefined) return { id, kind: "failed", problem: { message: "no script is loaded" } };
  if (order.kind === "reload") return loadReport(id, await pool.reload());
  return { id, kind: "reply", reply: await pool.ask(order.question) };
}

function loadReport(id: number, result: LoadResult): Report {
  return "problem" in result ? { id, kind: "failed", ...result } : { id, kind: "loaded", ...result };
}

createInterface({ input: control }).on("line", async (line) => {
  const order: Order = JSON.parse(line); // the outside is trusted
  report(await carryOut(order));
});
// Not by process.exit, which waits for workers, of which one may never end.
const end = (): void => {
  process.kill(process.pid, "SIGKILL");
};
control.on("error", end);
control.on("close", end);
