/**
 * The process that runs a script, in its jail: the supervisor outside starts it and speaks to it in lines of JSON on
 * descriptor 3. It ends when that channel does.
 */

import { Socket } from "node:net";
import { createInterface } from "node:readline";
import type { NativeMailbox } from "../../segment/index.js";
import { CONTROL_FD, type LoadOptions, MAILBOX_FD, type News, type Order, type Report } from "../questions.js";
import { ScriptPool } from "./pool.js";
import type { LoadResult } from "./worker.js";

const control = new Socket({ fd: CONTROL_FD, readable: true, writable: true });
const report = (line: Report): void => {
  control.write(`${JSON.stringify(line)}\n`);
};

/** One worker each; the first is asked about ticks. */
let pools: readonly ScriptPool[] = [];
let mailbox: NativeMailbox | undefined;

async function begin(load: LoadOptions): Promise<LoadResult> {
  if (load.lanes > 0) {
    const { native } = await import("../../segment/index.js");
    mailbox = new native.Mailbox(MAILBOX_FD); // before the script is there, which must not have the descriptor
  }
  const onNews = (news: News): void => report({ kind: "news", news });
  pools = Array.from({ length: Math.max(1, load.lanes) }, () => new ScriptPool(load, onNews));
  return inAll((pool) => pool.load());
}

/** What came of it in the first, unless it went wrong in another. */
async function inAll(work: (pool: ScriptPool) => Promise<LoadResult>): Promise<LoadResult> {
  const results = await Promise.all(pools.map(work));
  const [first = { problem: { message: "no script is loaded" } }] = results;
  return results.find((result) => "problem" in result) ?? first;
}

async function carryOut(order: Order): Promise<Report> {
  const { id } = order;
  if (order.kind === "load") return loadReport(id, await begin(order.load));
  if (order.kind === "reload") return loadReport(id, await inAll((pool) => pool.reload(order.sources)));
  if (order.kind === "serve") {
    const box = mailbox;
    if (box !== undefined) await Promise.all(pools.map((pool, lane) => pool.serve(box, lane)));
    return { id, kind: "serving" };
  }
  if (order.kind === "flush") {
    await Promise.all(pools.map((pool) => pool.flush()));
    return { id, kind: "flushed" };
  }
  const [first] = pools;
  if (first === undefined) return { id, kind: "failed", problem: { message: "no script is loaded" } };
  return { id, kind: "reply", reply: await first.ask(order.question) };
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
