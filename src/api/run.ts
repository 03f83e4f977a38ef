/**
 * A run: one program, faulted by one policy, from a segment of its own to evidence. Everything a run makes is gone when
 * `run` settles, however it settles; should this process be killed, its lease ends at once and the janitor cleans up.
 */

import { readFileSync } from "node:fs";
import { KernelError } from "../kernel/loader.js";
import { type ExecutorChoice, type Testimony, Witness } from "../kernel/witness.js";
import { decisionsOfPolicy } from "../replay/decisions.js";
import { readRunCounters } from "../report/counters.js";
import { buildEvidence, type Executor } from "../report/evidence.js";
import type { Evidence } from "../report/schema.js";
import { ScriptError } from "../script/supervisor.js";
import { nameOf, native, newSegmentPath, type Segment } from "../segment/index.js";
import { EscapeWatch } from "./escapes.js";
import { asSession, type KeepOptions, Kept, type ReplayOptions } from "./kept.js";
import { describeUnreachable, findProgram, type Program, ProgramError } from "./program.js";
import { Programs } from "./programs.js";
import { defaultProject } from "./project.js";
import { Scripted, type ScriptOptions } from "./scripted.js";
import { drawSeed, policiesOf, Session, type SessionOptions } from "./session.js";
import { SignalRelay, signalExitCode } from "./signals.js";

/** What to run, and how. */
export interface RunOptions
  extends Omit<
      SessionOptions,
      "journal" | "recorded" | "payload" | "decisions" | "witnessed" | "intercepted" | "script"
    >,
    KeepOptions {
  /** The program and its arguments. */
  readonly command: readonly string[];
  /** Ends the faults, not the program, after this time. */
  readonly durationNs?: number;
  /** The program, where it was found already. */
  readonly program?: Program;
  /**
   * Whether the kernel watches every flow of the run, which takes root: as root, or through sudo. It then fails before
   * the program starts where that is not to be had.
   */
  readonly kernel?: boolean;
  /** The kernel's witness, where it was started already. */
  readonly witness?: Witness;
  /**
   * What carries the faults out; all but the interceptor take `kernel`, and fail before the program starts where there is no
   * relay. Default: `auto` with `kernel`, or the interceptor alone where there is no relay, with a note; else the interceptor.
   */
  readonly executor?: ExecutorChoice;
  /** A script that is asked about flows and ops; what it leaves open is the policy's. */
  readonly script?: ScriptOptions;
}

/** The program could not be started, or mishap could not do its part. */
export class RunError extends Error {
  override readonly name = "RunError";
  readonly exitCode: 125 | 126 | 127;

  constructor(message: string, exitCode: 125 | 126 | 127) {
    super(message);
    this.exitCode = exitCode;
  }
}

const STATE_CHECK_MS = 250;
/** What Node's timers take at most: 24 days. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** This package's version. */
export function version(): string {
  const content: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const given = typeof content === "object" && content !== null && "version" in content ? content.version : undefined;
  return typeof given === "string" ? given : "unknown";
}

/** Runs a program under a policy; resolves when it ended. Throws {@link RunError} or {@link ProgramError}. */
export async function run(options: RunOptions): Promise<Evidence> {
  const [name = ""] = options.command;
  const program = options.program ?? findProgram(name);
  const signals = new SignalRelay();
  let session: Session | undefined;
  let kept: Kept | undefined;
  let scripted: Scripted | undefined;
  let { witness } = options;
  try {
    const relay = takesRelay(options);
    if (options.kernel === true)
      witness ??= await Witness.start(options.project ?? defaultProject(), { executor: choiceOf(options) });
    if (relay && witness === undefined) throw new RunError("the relay needs the kernel's side: give `kernel` too", 125);
    const witnessed = witness === undefined ? {} : { witnessed: witness };
    const replay = options.replay ?? listed(options.policy);
    const inReplay = replay === undefined ? options : { ...options, replay };
    const seed = policiesOf(options.policy).own.fields.seed ?? options.seed ?? drawSeed();
    if (options.script !== undefined) scripted = await startScript(options.script, options, seed, witness);
    const shared = { ...witnessed, intercepted: options.executor !== "relay", script: scripted?.asked };
    session = await Session.start({ ...options, seed, ...shared, ...asSession(inReplay) });
    if (relay && witness !== undefined) await beginRelay(witness, options, session.notes);
    const diverged = new AbortController();
    const facts = {
      version: version(),
      command: options.command,
      setpriority: options.legacy === true,
      answers: answersOf(scripted),
    };
    kept = await Kept.start(session, inReplay, facts, () => diverged.abort());
    const inSession = { ...inReplay, ...(witness === undefined ? {} : { witness }) };
    await scripted?.serve(session);
    return await runIn(session, kept, scripted, inSession, program, signals, diverged.signal);
  } catch (error) {
    if (error instanceof RunError || error instanceof ProgramError || error instanceof ScriptError) throw error;
    throw new RunError(error instanceof Error ? error.message : String(error), 125);
  } finally {
    await kept?.close();
    session?.close();
    await scripted?.close();
    await witness?.close();
    signals.close();
  }
}

async function runIn(
  session: Session,
  kept: Kept,
  scripted: Scripted | undefined,
  options: RunOptions,
  program: Program,
  signals: SignalRelay,
  diverged: AbortSignal,
): Promise<Evidence> {
  const { segment, courier, notes } = session;
  const { witness } = options;
  const start = (): Started => startProgram(options.command, program, session);
  const startedMs = performance.now();
  const { pid, ended } = await (witness === undefined ? start() : witness.within(start));
  signals.forwardTo(pid);
  const escapes = new EscapeWatch(pid, segment.path, () => attachedProcesses(segment), witness !== undefined);
  const force = new ForceWatch(segment, startedMs, options.durationNs, notes);
  const end = options.replay?.strict === true ? endOnAbort(diverged, pid, segment) : undefined;

  const status = await ended;
  const durationMs = performance.now() - startedMs;
  end?.over();
  signals.stopForwarding();
  session.stopFollowing();
  const listed = escapes.stop();
  const drained = Promise.all([courier.drained(), takesRelay(options) ? witness?.drained() : undefined]);
  await letDrain(drained, force, notes);
  force.stop();
  const programs = new Programs(segment, escapes, { pid, program });
  const testimony = await witness?.testify(segment, programs, force.throughout);
  if (testimony === undefined) notes.push(...escapes.notes);
  if (witness !== undefined) notes.push(...witness.notes);
  await scripted?.stop();
  segment.retire();
  notes.push(...(await kept.finish()));
  const { unreachable: reason } = program;
  const unreachable = reason === undefined || takesRelay(options) ? undefined : describeUnreachable(reason);
  if (unreachable !== undefined) notes.push(`${program.image} is not intercepted: ${unreachable}`);

  const replay = kept.replayed();
  const facts = {
    version: version(),
    command: options.command,
    replay,
    seed: session.seed,
    exitCode: exitCodeOf(status),
    durationMs,
    policies: session.policies(),
    script: scripted?.evidence(segment),
    escaped: testimony?.escaped.map((flow) => programs.asEscaped(flow)) ?? listed,
    unreachable,
    notes,
    executor: executorOf(choiceOf(options), testimony),
    kernel: testimony?.facts,
  };
  const counters = readRunCounters(segment);
  const evidence = buildEvidence(facts, kept.observed ? counters : { ...counters, journalDropped: 0 });
  await kept.end(evidence);
  return evidence;
}

/** What is to carry the faults out. */
function choiceOf({ executor, kernel, witness }: Parameters<typeof takesRelay>[0]): ExecutorChoice {
  return executor ?? (kernel === true || witness !== undefined ? "auto" : "interceptor");
}

/** Whether the kernel hands connections to the relay. */
export function takesRelay(options: Pick<RunOptions, "executor" | "kernel" | "witness">): boolean {
  return choiceOf(options) !== "interceptor";
}

/** Where nobody asked for the relay, a run does without. */
async function beginRelay(witness: Witness, { executor }: RunOptions, notes: string[]): Promise<void> {
  try {
    await witness.relay();
  } catch (error) {
    if (executor !== undefined || !(error instanceof KernelError)) throw error;
    notes.push(`${error.message}; what the interceptor cannot enter runs unfaulted`);
  }
}

/** Who carried faults out, as the kernel's witness saw it where both might have. */
function executorOf(choice: ExecutorChoice, testimony: Testimony | undefined): Executor {
  if (choice !== "auto") return choice;
  const states = new Set(testimony?.facts.coverage.map(({ state }) => state));
  if (!states.has("relayed")) return "interceptor";
  return states.has("intercepted") ? "both" : "relay";
}

/** What a recording asks for as the run goes on. */
function answersOf(scripted: Scripted | undefined): (() => Scripted["answers"]) | undefined {
  return scripted === undefined ? undefined : () => scripted.answers;
}

/** The script, before there is anything that it could be asked about. */
function startScript(
  script: ScriptOptions,
  { policy, project, record, notice = () => {} }: RunOptions,
  seed: bigint,
  witness: Witness | undefined,
): Promise<Scripted> {
  const segmentPath = witness?.segmentPath ?? newSegmentPath(project ?? defaultProject());
  const recorded = record !== undefined;
  return Scripted.start(script, { segmentPath, seed, policies: policiesOf(policy), recorded, notice });
}

/** A policy that lists what happens decides a run as a recording does, and leaves the rest of the program its way. */
export function listed(policy: SessionOptions["policy"]): ReplayOptions | undefined {
  const decisions = decisionsOfPolicy(policiesOf(policy).own);
  return decisions === undefined ? undefined : { decisions, strict: false };
}

/** What programs have after SIGTERM. */
const ENDED_WITHIN_MS = 1000;

/** Ends the program and all that it started, once the signal says so; until `over`. */
function endOnAbort(signal: AbortSignal, pid: number, segment: Segment): { over(): void } {
  let timer: NodeJS.Timeout | undefined;
  const end = (): void => {
    const send = (how: NodeJS.Signals): void => {
      for (const each of new Set([pid, ...attachedProcesses(segment).map((process) => process.pid)])) {
        try {
          process.kill(each, how);
        } catch {
          // It ended just now.
        }
      }
    };
    send("SIGTERM");
    timer = setTimeout(() => send("SIGKILL"), ENDED_WITHIN_MS);
  };
  if (signal.aborted) end();
  else signal.addEventListener("abort", end);
  return {
    over: () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
    },
  };
}

interface Started {
  readonly pid: number;
  readonly ended: Promise<number>;
}

function startProgram(command: readonly string[], program: Program, session: Session): Started {
  const variables = Object.entries(session.environment()).map(([variable, value]) => `${variable}=${value}`);
  let settle: (status: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    settle = resolve;
  });
  try {
    const keepFds = inheritedFds(command);
    const pid = native.spawnTarget(program.path, command, variables, { keepFds }, (status) => settle(status));
    return { pid, ended };
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
    const message = error instanceof Error ? error.message : String(error);
    if (code === "ENOENT") throw new RunError(`${program.path}: not found`, 127);
    throw new RunError(message, code === undefined || code === "EAGAIN" || code === "ENOMEM" ? 125 : 126);
  }
}

/** Descriptors that the arguments name, as a shell's process substitution does: the program has to inherit them. */
export function inheritedFds(command: readonly string[]): number[] {
  const found = new Set<number>();
  for (const argument of command.slice(1)) {
    for (const match of argument.matchAll(/\/(?:dev|proc\/self)\/fd\/(\d{1,6})(?![\d])/g)) found.add(Number(match[1]));
  }
  return [...found].filter((fd) => fd >= 3);
}

const HURRYING = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
/** What the courier and the relay have after a signal to send everything at once. */
const HURRIED_WITHIN_MS = 500;

/** Waits until what the program sent has left at its time; a signal ends that wait, and the bytes leave at once. */
async function letDrain(drained: Promise<unknown>, force: ForceWatch, notes: string[]): Promise<void> {
  let hurry = (): void => {};
  const hurried = new Promise<never>((_, reject) => {
    hurry = () => {
      force.hurry();
      setTimeout(reject, HURRIED_WITHIN_MS, new Error("a signal ended the wait")).unref();
    };
  });
  for (const signal of HURRYING) process.on(signal, hurry);
  try {
    await Promise.race([drained, hurried]);
  } catch (error) {
    notes.push(`not all that was sent has left: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    for (const signal of HURRYING) process.off(signal, hurry);
  }
}

/** The shell's number for a raw wait status. */
function exitCodeOf(status: number): number {
  const signal = status & 0x7f;
  return signal === 0 ? (status >> 8) & 0xff : signalExitCode(signal);
}

/** Processes that carry the interceptor, or are just replacing their program. */
export function attachedProcesses(segment: Segment): { pid: number; startTicks: bigint }[] {
  const nowNs = process.hrtime.bigint();
  return segment
    .processes()
    .filter(({ state, since_ns }) => {
      const word = nameOf("ProcessState", state);
      return word === "attached" || (word === "execing" && nowNs - BigInt(since_ns as bigint) < 100_000_000n);
    })
    .map(({ pid, start }) => ({ pid: Number(pid), startTicks: BigInt(start as bigint) }));
}

/** Ends the faults at their time, and notices when somebody else did. */
class ForceWatch {
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #segment: Segment;
  readonly #startedMs: number;
  readonly #notes: string[];
  #over = false;

  constructor(segment: Segment, startedMs: number, durationNs: number | undefined, notes: string[]) {
    this.#segment = segment;
    this.#startedMs = startedMs;
    this.#notes = notes;
    if (durationNs !== undefined) {
      this.#timers.push(setTimeout(() => this.#end(), Math.min(durationNs / 1e6, LONGEST_TIMER_MS)));
    }
    this.#timers.push(setInterval(() => this.#look(), STATE_CHECK_MS));
    for (const timer of this.#timers) timer.unref();
  }

  /** Whether the faults were in force until the program's end. */
  get throughout(): boolean {
    return !this.#over;
  }

  /** The program ended; has to be called before the run itself retires the segment. */
  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#look();
    if (!this.#over && !this.#segment.inForce()) {
      this.#notes.push("the lease lapsed during the run, so that calls passed through unfaulted until it was renewed");
    }
  }

  /** A signal came after the program's end, while bytes still waited for their time. */
  hurry(): void {
    if (this.#over) return;
    this.#over = true;
    this.#segment.retire();
    this.#notes.push("a signal ended the wait for bytes still under way: they left at once");
  }

  #end(): void {
    if (this.#over) return;
    this.#segment.retire();
    this.#say("as --duration says");
  }

  #look(): void {
    if (!this.#over && nameOf("State", this.#segment.header().state) === "retired") this.#say("by mishap stop");
  }

  #say(why: string): void {
    this.#over = true;
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    this.#notes.push(`the faults ended after ${seconds} s, ${why}; the program went on`);
  }
}
