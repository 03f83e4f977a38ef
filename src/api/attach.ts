/**
 * Faults for what runs already: its connections go to the relay from now on, until the time is over, a signal comes, somebody
 * stops it, or the process ends. What is attached to is neither started nor moved nor changed; everything else is as in a run.
 */

import { readFileSync, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { basename } from "node:path";
import { describeTreated, treatmentOf } from "../kernel/before.js";
import { type Subject, type Testimony, Witness } from "../kernel/witness.js";
import type { KernelFlow } from "../kernel/words.js";
import { readRunCounters } from "../report/counters.js";
import { buildEvidence } from "../report/evidence.js";
import { formatPlural } from "../report/format.js";
import type { Attached, EscapedFlow, Evidence, FaultEvidence } from "../report/schema.js";
import { nameOf, type Segment } from "../segment/index.js";
import { asSession, type KeepOptions, Kept } from "./kept.js";
import { defaultProject } from "./project.js";
import { listed, version } from "./run.js";
import { policiesOf, Session, type SessionOptions } from "./session.js";
import { signalExitCode } from "./signals.js";

/** What to attach to, and what it is to meet. */
export interface AttachOptions
  extends Pick<SessionOptions, "policy" | "project" | "seed" | "notice">,
    Pick<KeepOptions, "journal"> {
  readonly subject: Subject;
  /** Ends it after this time. */
  readonly durationNs?: number;
  /** The kernel's witness, where it was started already. */
  readonly witness?: Witness;
  /** The faults are in force. */
  readonly onStart?: () => void;
}

const LOST_EXIT_CODE = 125;
const STATE_CHECK_MS = 100;
/** What Node's timers take at most: 24 days. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const ENDING = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

/**
 * Attaches, and resolves with the evidence once it has ended and nothing of it is left.
 *
 * @throws {KernelError} one sentence, when the subject cannot be attached to
 */
export async function attach(options: AttachOptions): Promise<Evidence> {
  const { subject, policy } = options;
  const programs = new Names(subject); // it may be gone in the end
  const signals = new Signals();
  let session: Session | undefined;
  let kept: Kept | undefined;
  let { witness } = options;
  try {
    const { own } = policiesOf(policy);
    witness ??= await Witness.attach(options.project ?? defaultProject(), subject, own);
    const replay = listed(policy);
    const inReplay = replay === undefined ? options : { ...options, replay };
    session = await Session.start({ ...options, ...asSession(inReplay), witnessed: witness, intercepted: false });
    const facts = { version: version(), command: programs.command, setpriority: false };
    kept = await Kept.start(session, inReplay, facts, () => {});
    const treated = await witness.relay();
    const before = treated && describeTreated(treatmentOf(own), treated);
    session.notes.push(...(before?.notes ?? []));
    programs.begin(treated?.found ?? []);
    return await attached(options, session, kept, witness, programs, signals, before?.faults);
  } finally {
    await kept?.close();
    session?.close();
    await witness?.close();
    signals.close();
  }
}

async function attached(
  options: AttachOptions,
  session: Session,
  kept: Kept,
  witness: Witness,
  programs: Names,
  signals: Signals,
  before: readonly FaultEvidence[] | undefined,
): Promise<Evidence> {
  const { segment, notes } = session;
  const startedMs = performance.now();
  options.onStart?.();
  const endedBy = await ending(options, segment, witness, signals);
  const durationMs = performance.now() - startedMs;
  const endedNs = process.hrtime.bigint();
  const carried = endedBy === "process" ? [] : openFlows(segment);
  session.stopFollowing();
  // What an ended process sent leaves at its time; what a living one has is cut off, without the faults.
  if (endedBy === "process") void signals.next().then(() => segment.retire());
  else segment.retire();
  await witness.drained();
  const testimony = await witness.testify(segment, programs, false, endedNs);
  notes.push(...witness.notes, ...cutOff(carried, testimony));
  segment.retire();
  notes.push(...(await kept.finish()));
  const facts = {
    version: version(),
    command: programs.command,
    replay: kept.replayed(),
    seed: session.seed,
    exitCode: endedBy === "lost" ? LOST_EXIT_CODE : endedBy === "signal" ? signals.exitCode : 0,
    durationMs,
    policies: session.policies(),
    before,
    attached: { ...options.subject, ended_by: endedBy },
    escaped: testimony?.escaped.map((flow) => programs.asEscaped(flow)) ?? [],
    unreachable: undefined,
    notes,
    executor: "relay" as const,
    kernel: testimony?.facts,
  };
  const counters = readRunCounters(segment);
  return buildEvidence(facts, kept.observed ? counters : { ...counters, journalDropped: 0 });
}

/** Resolves with what ends it. */
async function ending(
  { durationNs }: AttachOptions,
  segment: Segment,
  witness: Witness,
  signals: Signals,
): Promise<Attached["ended_by"]> {
  const timers: NodeJS.Timeout[] = [];
  const over = new Promise<Attached["ended_by"]>((resolve) => {
    if (durationNs !== undefined) {
      timers.push(setTimeout(() => resolve("duration"), Math.min(durationNs / 1e6, LONGEST_TIMER_MS)));
    }
    const look = (): void => {
      if (nameOf("State", segment.header().state) === "retired") resolve("stop");
    };
    timers.push(setInterval(look, STATE_CHECK_MS));
  });
  const signal = signals.next().then(() => "signal" as const);
  try {
    return await Promise.race([over, signal, witness.over()]);
  } finally {
    for (const timer of timers) clearInterval(timer);
  }
}

/** Cookies of the connections that are being carried. */
function openFlows(segment: Segment): bigint[] {
  const open = segment.flows().filter(({ state }) => nameOf("FlowState", state) === "open");
  return open.map(({ cookie }) => BigInt(cookie as bigint));
}

/** Connections that the relay had when it ended: nobody else can carry them on. */
function cutOff(carried: readonly bigint[], testimony: Testimony | undefined): string[] {
  const cut = testimony?.flows.filter(({ cookie, reset }) => reset && carried.includes(cookie)).length ?? 0;
  return cut === 0 ? [] : [`${formatPlural(cut, "connection")} that the relay still carried ended in a reset`];
}

/** Signals that end it, from before it begins on; the first one decides the exit code. */
class Signals {
  exitCode = 0;
  #waiting: (() => void)[] = [];
  #many = 0;
  readonly #handlers = ENDING.map((signal) => [signal, (): void => this.#receive(signal)] as const);

  constructor() {
    for (const [signal, handler] of this.#handlers) process.on(signal, handler);
  }

  /** Resolves with the next one, or with one that came and ended nothing yet. */
  async next(): Promise<void> {
    if (this.#many > 0) this.#many -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  close(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }

  #receive(signal: (typeof ENDING)[number]): void {
    this.exitCode ||= signalExitCode(constants.signals[signal]);
    if (this.#waiting.length === 0) this.#many += 1;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Names of the processes attached to. */
class Names {
  /** What evidence calls the program: the words it was started with, or the cgroup. */
  readonly command: readonly string[];
  /** The one process's; others are called as the kernel does, by their threads. */
  readonly #name: string | undefined;
  readonly #before = new Set<bigint>();

  constructor(subject: Subject) {
    this.command = "pid" in subject ? commandOf(subject.pid) : [subject.cgroup];
    this.#name = "pid" in subject ? (imageOf(subject.pid) ?? basename(this.command[0] ?? "")) : undefined;
  }

  /** These were there before. */
  begin(before: readonly bigint[]): void {
    for (const cookie of before) this.#before.add(cookie);
  }

  carries(): boolean {
    return false;
  }

  programOf({ program }: Pick<KernelFlow, "program">): string {
    return this.#name ?? program;
  }

  asEscaped(flow: KernelFlow): EscapedFlow {
    const peer = flow.peer.endsWith(":0") ? "*:*" : flow.peer;
    const reason = this.#before.has(flow.cookie) ? "there before" : "not attached";
    return { peer, pid: flow.pid, program: this.programOf(flow), reason };
  }
}

function commandOf(pid: number): string[] {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replace(/\0$/, "");
    return words === "" ? [`pid ${pid}`] : words.split("\0");
  } catch {
    return [`pid ${pid}`];
  }
}

function imageOf(pid: number): string | undefined {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`)).replace(/ \(deleted\)$/, "");
  } catch {
    return undefined; // it is gone, or another user's
  }
}
