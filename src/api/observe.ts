/**
 * Watching flows through the kernel's eyes, without a run: looks at them again and again, and says of each whose it is,
 * whether the interceptor carries it, and how fast it is. What is watched is only looked at, never touched.
 */

import { readFileSync, statfsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { WITHOUT } from "../kernel/hooks.js";
import type { KernelReading, Loader } from "../kernel/loader.js";
import type { KernelFlow, KernelHook } from "../kernel/words.js";
import type { ObservedFlow } from "../report/observed.js";

/** Whose flows are watched. */
export type ObserveScope = { readonly pid: number } | { readonly cgroup: string } | "all";

/** What is watched, and for how long. */
export interface ObserveOptions {
  readonly scope: ObserveScope;
  /** Milliseconds from one look to the next. */
  readonly intervalMs: number;
  /** Ends the watch after so many milliseconds. */
  readonly durationMs?: number;
  /** Ends the watch at once. */
  readonly stop: AbortSignal;
  /** The watch began; gets what it cannot show on this kernel, in sentences. */
  readonly onStart: (lacking: readonly string[]) => void;
  /** Gets every look; the next one is not taken before this one was shown. */
  readonly onLook: (look: Look) => Promise<void>;
}

/** One look: every open flow, and those that were closed since the look before. */
export interface Look {
  readonly flows: readonly ObservedFlow[];
  /** Flows that could not be kept so far: events lost, no room for a socket, or more closed at once than are listed. */
  readonly missed: number;
}

/** Why a watch ended: it was stopped, its time was over, or the process watched ended. */
export type ObserveEnd = "stopped" | "duration" | "process";

/** What was asked to be watched does not exist; the message does not name it. */
export class ScopeError extends Error {
  override readonly name = "ScopeError";
}

const CGROUP2_MAGIC = 0x63677270; // statfs(2)
const PROCESS_LOOK_MS = 200;

/**
 * Watches until it is stopped, its time is over, or the process watched ends.
 *
 * @throws {ScopeError} when there is no such process or cgroup
 * @throws {Error} one sentence, when the kernel's side is not to be had or is lost
 */
export async function observe(options: ObserveOptions): Promise<ObserveEnd> {
  const { scope, stop } = options;
  const isGone = watchFor(scope);
  const loader = await begin(scope);
  const over = new AbortController();
  void loader.ended.then(() => over.abort());
  const watchdog = setInterval(() => isGone() && over.abort(), PROCESS_LOOK_MS);
  const wake = AbortSignal.any([stop, over.signal]);
  const looks = new Looks();
  const endsAtMs = performance.now() + (options.durationMs ?? Number.POSITIVE_INFINITY);
  options.onStart(lackingOf(loader.ready.hooks));
  try {
    for (;;) {
      const leftMs = Math.max(0, endsAtMs - performance.now());
      await sleep(Math.min(options.intervalMs, leftMs), undefined, { signal: wake }).catch(() => {});
      if (stop.aborted) return "stopped";
      await options.onLook(looks.take(await loader.flows()));
      if (over.signal.aborted) return "process";
      if (performance.now() >= endsAtMs) return "duration";
    }
  } catch (error) {
    throw new Error(`the kernel's witness was lost: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    clearInterval(watchdog);
    loader.close();
  }
}

async function begin(scope: ObserveScope): Promise<Loader> {
  const { startLoader } = await import("../kernel/loader.js");
  try {
    // Round trips of flows that are open come with their arrivals.
    return await startLoader(["observe", ...scopeArguments(scope), "--arrivals"]);
  } catch (error) {
    throw new Error(`the kernel's witness is not to be had: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What goes unseen, in sentences. */
function lackingOf(hooks: readonly KernelHook[]): string[] {
  const lacking = hooks.filter(({ ok }) => !ok);
  return [...new Set(lacking.map((hook) => WITHOUT[hook.for]))];
}

function scopeArguments(scope: ObserveScope): string[] {
  if (scope === "all") return ["--all"];
  return "pid" in scope ? ["--pid", String(scope.pid)] : ["--cgroup", scope.cgroup];
}

/** Holds that there is something to watch, else throws a {@link ScopeError}; tells later whether the process watched is gone. */
export function watchFor(scope: ObserveScope): () => boolean {
  if (scope === "all") return () => false;
  if ("cgroup" in scope) {
    expectCgroup(scope.cgroup);
    return () => false;
  }
  const began = startTicks(scope.pid);
  if (began === undefined) throw new ScopeError("there is no such process; `ps -e` lists those there are");
  return () => startTicks(scope.pid) !== began;
}

/** Holds that a path is a cgroup's; throws a {@link ScopeError}. */
export function expectCgroup(path: string): void {
  let kind: number;
  try {
    kind = statfsSync(path).type;
  } catch {
    throw new ScopeError(`there is no such cgroup; one is a folder such as ${ownCgroup()}`);
  }
  if (kind !== CGROUP2_MAGIC) {
    throw new ScopeError(`this is no cgroup of version 2; one is a folder such as ${ownCgroup()}`);
  }
}

/** The cgroup of this process: an example that exists. */
function ownCgroup(): string {
  const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "latin1"))?.[1];
  const own = /^0::\/(.*)$/m.exec(readFileSync("/proc/self/cgroup", "latin1"))?.[1] ?? "";
  return mount === undefined ? "/sys/fs/cgroup/system.slice" : `${mount}/${own}`.replace(/\/$/, "");
}

/** Start time of a process that lives, in ticks since the machine's start (proc(5), stat field 22). */
function startTicks(pid: number): bigint | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : BigInt(fields[19] ?? "0");
  } catch {
    return undefined;
  }
}

/** Turns what the kernel counted into looks: rates come from what was counted at the look before. */
class Looks {
  readonly #interception = new Interception();
  #before = new Map<bigint, { up: number; down: number }>();
  #beforeNs = process.hrtime.bigint();
  #unlisted = 0;

  take({ flows, summary }: KernelReading): Look {
    this.#unlisted += summary.older.reduce((sum, each) => sum + each.flows, 0);
    return { flows: this.#observed(flows), missed: this.#unlisted + summary.lost_events + summary.without_row };
  }

  #observed(kernelFlows: readonly KernelFlow[]): ObservedFlow[] {
    const nowNs = process.hrtime.bigint(); // CLOCK_MONOTONIC, as the kernel's own
    const seconds = Number(nowNs - this.#beforeNs) / 1e9;
    const time = new Date().toISOString();
    const counted = new Map<bigint, { up: number; down: number }>();
    this.#interception.lookAgain();
    const flows = kernelFlows.filter(isFlow).map((flow): ObservedFlow => {
      const { up, down } = this.#before.get(flow.cookie) ?? { up: 0, down: 0 };
      if (flow.open) counted.set(flow.cookie, { up: flow.bytes_up, down: flow.bytes_down });
      return {
        time,
        cookie: String(flow.cookie),
        pid: flow.pid,
        program: flow.program,
        state: flow.claimed ? "intercepted" : this.#interception.of(flow),
        protocol: flow.protocol,
        role: flow.role,
        open: flow.open,
        ...(flow.protocol === "tcp" ? { tcp_state: flow.open ? flow.state : "CLOSE" } : {}),
        local: flow.local,
        peer: flow.peer.endsWith(":0") ? "*:*" : flow.peer,
        ...(flow.created_ns > 0n ? { age_ms: Math.max(0, Number((nowNs - flow.created_ns) / 1_000_000n)) } : {}),
        bytes_up: flow.bytes_up,
        bytes_down: flow.bytes_down,
        bytes_up_per_s: Math.max(0, Math.round((flow.bytes_up - up) / seconds)),
        bytes_down_per_s: Math.max(0, Math.round((flow.bytes_down - down) / seconds)),
        ops_up: flow.ops_up,
        ops_down: flow.ops_down,
        ...(flow.rtt_us > 0 ? { rtt_us: flow.rtt_us } : {}),
        retransmits: flow.retransmits,
        resets: flow.resets,
        failures: flow.failures,
      };
    });
    this.#before = counted;
    this.#beforeNs = nowNs;
    return flows;
  }
}

/** A socket that listens, or that was made and never used, is no flow. */
function isFlow(flow: KernelFlow): flow is KernelFlow & { role: Exclude<KernelFlow["role"], "listener"> } {
  return flow.role !== "listener" && (!flow.peer.endsWith(":0") || flow.bytes_up + flow.bytes_down > 0);
}

/** Whether processes carry the interceptor, by the libraries they have mapped. */
class Interception {
  /** By process, as the kernel numbers it: what was seen last, because a closed flow's process may be gone. */
  readonly #known = new Map<bigint, ObservedFlow["state"]>();
  readonly #seen = new Set<bigint>();

  /** Processes may have executed another program since. */
  lookAgain(): void {
    for (const owner of this.#known.keys()) if (!this.#seen.has(owner)) this.#known.delete(owner);
    this.#seen.clear();
  }

  of({ pid, process: owner }: KernelFlow): ObservedFlow["state"] {
    const known = this.#known.get(owner);
    if (this.#seen.has(owner)) return known ?? "unknown";
    this.#seen.add(owner);
    const state = interceptorIn(pid, owner) ?? known ?? "unknown";
    this.#known.set(owner, state);
    return state;
  }
}

/** `undefined`: the process is gone, lives in another pid namespace, or is hidden from this user. */
function interceptorIn(pid: number, owner: bigint): "intercepted" | "escaped" | undefined {
  const ticks = startTicks(pid);
  if (ticks === undefined || BigInt.asUintN(32, ticks) !== BigInt.asUintN(32, owner)) return undefined;
  try {
    const maps = readFileSync(`/proc/${pid}/maps`, "latin1");
    if (maps === "") return undefined; // it is just ending
    return maps.includes("/libmishap-interceptor.so") ? "intercepted" : "escaped";
  } catch {
    return undefined;
  }
}
