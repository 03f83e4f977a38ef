/** `mishap observe`: live flows as the kernel sees them, as a table on a terminal or as lines of JSON. */

import { constants } from "node:os";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Look, ObserveEnd, ObserveScope } from "../api/observe.js";
import { PolicyError, parseDuration } from "../policy/index.js";
import type { ObservedFlow } from "../report/observed.js";
import type { SortKey } from "../report/table.js";
import { printError, UsageError } from "./errors.js";

const EXAMPLES = `
Examples:
  sudo mishap observe
  sudo mishap observe --pid 4242
  sudo mishap observe --json --duration 10s > flows.jsonl

Keys: q quits, s sorts by something else, p pauses.

Exit codes:
  0 it was left with q, its time is over, or the process watched ended; 128+n when signal n ended it;
  2 bad usage; 125 the kernel's side cannot be had`;

const DEFAULT_INTERVAL = "1s";
const LEAST_INTERVAL_MS = 100;
/** Closed flows stay in the table, greyed, for so long. */
const LINGER_MS = 4000;
/** A reader that is slow still gets whole lines within this time of a signal. */
const LAST_WORDS_MS = 500;
const END_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

interface Flags {
  readonly pid?: string;
  readonly cgroup?: string;
  readonly all?: boolean;
  readonly json?: boolean;
  readonly interval: string;
  readonly duration?: string;
}

/** What shows the looks. */
interface View {
  open(): void;
  /** Resolves once it is shown, or when nobody wants to see it any more. */
  show(look: Look): Promise<void>;
  close(): void;
}

/** A right value of a flag. */
export function exampleOf(flag: string): string | undefined {
  return { "--pid": "4242", "--cgroup": "/sys/fs/cgroup/system.slice", "--interval": "1s", "--duration": "10s" }[flag];
}

/** Adds `observe` to the program. */
export function define(program: Command): void {
  program
    .command("observe")
    .summary("watch live flows through the kernel's eyes")
    .description(
      "Shows live flows: whose they are, whether mishap carries them, how fast they are. Needs root, or sudo; changes nothing.",
    )
    .option("--pid <pid>", "the flows of one process (4242)")
    .option("--cgroup <path>", "the flows of a cgroup's processes (/sys/fs/cgroup/system.slice)")
    .option("--all", "the flows of every process; the default")
    .option("--json", "lines of JSON, one a flow and look, also on a terminal")
    .option("--interval <duration>", "from one look to the next", DEFAULT_INTERVAL)
    .option("--duration <duration>", "end after this time (10s)")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: Flags) => {
      process.exitCode = await execute(flags);
    });
}

async function execute(flags: Flags): Promise<number> {
  const scope = scopeOf(flags);
  const intervalMs = millisecondsOf("--interval", flags.interval, LEAST_INTERVAL_MS);
  const durationMs =
    flags.duration === undefined ? undefined : millisecondsOf("--duration", flags.duration, LEAST_INTERVAL_MS);
  const { observe, ScopeError } = await import("../api/observe.js");

  const stop = new AbortController();
  let code = 0;
  const end = (withCode: number): void => {
    code = withCode;
    stop.abort();
  };
  const asTable = !flags.json && process.stdout.isTTY && process.env.TERM !== "dumb";
  const view = asTable ? await tableView(wordsOf(scope), () => end(0)) : jsonView(stop.signal);
  process.stdout.on("error", () => end(0)); // nobody reads any more
  let ended: ObserveEnd;
  try {
    ended = await observe({
      scope,
      intervalMs,
      stop: stop.signal,
      ...(durationMs === undefined ? {} : { durationMs }),
      // Until then a signal ends this process as it ends any, sudo's question for a password included.
      onStart: (lacking) => {
        for (const sentence of lacking) printError(sentence);
        for (const signal of END_SIGNALS) process.on(signal, () => end(128 + constants.signals[signal]));
        view.open();
      },
      onLook: (look) => view.show(look),
    });
  } catch (error) {
    if (error instanceof ScopeError) throw new UsageError(`--${wordsOf(scope)}: ${error.message}`);
    throw error;
  } finally {
    view.close();
  }
  if (ended === "process") printError(`pid ${flags.pid} ended, and the watch with it`);
  return code;
}

function scopeOf({ pid, cgroup, all }: Flags): ObserveScope {
  const given = [pid === undefined ? [] : "--pid", cgroup === undefined ? [] : "--cgroup", all ? "--all" : []].flat();
  if (given.length > 1) {
    throw new UsageError(`${given.join(" and ")}: one of them says what is watched, such as ${given[0]} alone`);
  }
  if (pid !== undefined) {
    if (!/^[1-9]\d{0,8}$/.test(pid)) throw new UsageError(`--pid ${pid}: is no process's number, such as --pid 4242`);
    return { pid: Number(pid) };
  }
  return cgroup === undefined ? "all" : { cgroup: resolve(cgroup) };
}

function wordsOf(scope: ObserveScope): string {
  if (scope === "all") return "every process";
  return "pid" in scope ? `pid ${scope.pid}` : `cgroup ${scope.cgroup}`;
}

function millisecondsOf(flag: string, written: string, leastMs: number): number {
  try {
    const milliseconds = parseDuration(written) / 1e6;
    if (milliseconds >= leastMs) return milliseconds;
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(`${flag} ${written}: ${error.problem}`);
    throw error;
  }
  throw new UsageError(`${flag} ${written}: must be at least ${leastMs}ms, such as ${exampleOf(flag)}`);
}

/** One line a flow and look; what could not be kept is said on stderr, which leaves the lines alone. */
function jsonView(stop: AbortSignal): View {
  let missed = 0;
  const stopped = new Promise<void>((resolve) => {
    stop.addEventListener("abort", () => setTimeout(resolve, LAST_WORDS_MS));
  });
  return {
    open: () => {},
    show: async (look) => {
      const more = look.missed - missed;
      if (more > 0) printError(`${more} more flows or events could not be kept`);
      missed = look.missed;
      const lines = look.flows.map((flow) => `${JSON.stringify(flow)}\n`).join("");
      const read = new Promise<void>((resolve) => process.stdout.write(lines, () => resolve()));
      await Promise.race([read, stopped]);
    },
    close: () => {},
  };
}

async function tableView(scope: string, quit: () => void): Promise<View> {
  const { frame, SORT_KEYS } = await import("../report/table.js");
  const { Screen } = await import("./screen.js");
  const colour = !process.env.NO_COLOR;
  let closed: { readonly flow: ObservedFlow; readonly untilMs: number }[] = [];
  let missed = 0;
  let sort: SortKey = "rate";
  let paused = false;
  let flows: readonly ObservedFlow[] = [];
  const draw = (): void =>
    screen.draw((columns, rows) => frame({ scope, flows, missed, sort, paused, colour }, columns, rows));
  const screen = new Screen({
    onChange: draw,
    onKey: (key) => {
      if (key === "q") quit();
      if (key === "s") sort = SORT_KEYS[(SORT_KEYS.indexOf(sort) + 1) % SORT_KEYS.length] ?? "rate";
      if (key === "p") paused = !paused;
      draw();
    },
  });
  return {
    open: () => {
      screen.open();
      draw();
    },
    show: async (look) => {
      const nowMs = performance.now();
      closed = closed.filter(({ untilMs }) => untilMs > nowMs);
      const lingering = closed.map(({ flow }) => ({ ...flow, bytes_up_per_s: 0, bytes_down_per_s: 0 }));
      closed.push(...look.flows.filter(({ open }) => !open).map((flow) => ({ flow, untilMs: nowMs + LINGER_MS })));
      if (paused) return;
      missed = look.missed;
      flows = [...look.flows, ...lingering];
      draw();
    },
    close: () => screen.close(),
  };
}
