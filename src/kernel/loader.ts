/**
 * The loader's client: starts the privileged program that puts mishap's programs into the kernel, directly as root and
 * through sudo otherwise, and speaks to it in lines of JSON. It undoes what it did when this process ends, however.
 */

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { isatty } from "node:tty";
import { z } from "zod";
import { nativeFolder } from "../segment/index.js";

const flowSchema = z.object({
  cookie: z.string(),
  pid: z.int(),
  tid: z.int(),
  process: z.string(),
  program: z.string(),
  role: z.enum(["connector", "acceptor", "datagram", "listener"]),
  protocol: z.enum(["tcp", "udp"]),
  open: z.boolean(),
  state: z.string(),
  local: z.string(),
  peer: z.string(),
  claimed: z.boolean(),
  policy: z.int(),
  reset: z.boolean(),
  created_ns: z.string(),
  bytes_up: z.number(),
  bytes_down: z.number(),
  ops_up: z.number(),
  ops_down: z.number(),
  last_up_ns: z.string(),
  last_down_ns: z.string(),
  rtt_us: z.number(),
  retransmits: z.number(),
  resets: z.number(),
  failures: z.number(),
});
/** A socket as the kernel saw it. */
export type KernelFlow = z.infer<typeof flowSchema>;

const olderSchema = z.object({
  pid: z.int(),
  program: z.string(),
  claimed: z.boolean(),
  flows: z.number(),
  bytes_up: z.number(),
  bytes_down: z.number(),
});
const summarySchema = z.object({
  open: z.number(),
  closed: z.number(),
  lost_events: z.number(),
  without_row: z.number(),
  older: z.array(olderSchema),
  delays: z.array(z.unknown()),
});
const readySchema = z.object({
  ready: z.literal(true),
  cgroup: z.string(),
  hooks: z.array(z.object({ name: z.string(), for: z.string(), ok: z.boolean(), reason: z.string().optional() })),
});
const lineSchema = z.union([
  readySchema,
  z.object({ error: z.string() }),
  z.object({ flow: flowSchema }),
  z.object({ flows: summarySchema }),
]);

/** A loader at work. */
export interface Loader {
  readonly ready: z.infer<typeof readySchema>;
  flows(): Promise<{ flows: KernelFlow[]; summary: z.infer<typeof summarySchema> }>;
  /** Resolves when it ended, with the reason where it did so by itself. */
  readonly ended: Promise<string | undefined>;
  close(): void;
}

/** Starts the loader; rejects with one sentence when it cannot do its work. */
export async function startLoader(args: readonly string[]): Promise<Loader> {
  const path = `${nativeFolder}mishap-loader`;
  const sudo = process.geteuid?.() === 0 ? [] : ["sudo", ...(isatty(0) ? [] : ["-n"]), "--"];
  const [command = path, ...rest] = [...sudo, path, ...args];
  const child = spawn(command, rest, { stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.on("error", () => {});
  let complaint = "";
  child.stderr.on("data", (data) => {
    complaint += String(data);
  });
  const ended = new Promise<string | undefined>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) =>
      resolve(
        code === 0 ? undefined : complaint.trim().split("\n")[0] || `it ended with ${signal ?? `status ${code}`}`,
      ),
    );
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error((await ended) ?? "the loader ended");
    return lineSchema.parse(JSON.parse(value));
  };
  const ready = await next();
  if ("error" in ready) throw new Error(ready.error);
  if (!("ready" in ready)) throw new Error("the loader did not say that it is ready");
  return {
    ready,
    ended,
    flows: async () => {
      child.stdin.write("flows\n");
      const flows: KernelFlow[] = [];
      for (;;) {
        const line = await next();
        if ("flow" in line) flows.push(line.flow);
        else if ("flows" in line) return { flows, summary: line.flows };
        else throw new Error("error" in line ? line.error : "the loader answered out of turn");
      }
    },
    close: () => {
      child.stdin.end();
    },
  };
}
