/**
 * A run's script: the jailed host that has it, the mailbox through which programs ask it, its ticks, and what came of it
 * all. Nothing of it is left after `close`.
 */

import { closeSync, unlinkSync } from "node:fs";
import { type Policy, type PolicyInput, parsePolicy } from "../policy/index.js";
import type { ScriptEvidence } from "../report/schema.js";
import type { PermissionLog } from "../script/audit.js";
import { graphOf, type ScriptGraph } from "../script/graph.js";
import { jailLaunch } from "../script/jail.js";
import { isPermitted, type Permissions } from "../script/permissions.js";
import {
  DEFAULT_LIMITS,
  type Loaded,
  type News,
  problemText,
  type Reply,
  type Said,
  type ScriptProblem,
} from "../script/questions.js";
import { ScriptError, ScriptHost, type StartedHost } from "../script/supervisor.js";
import { layout, native, type Segment, startJanitor } from "../segment/index.js";
import { EditWatch } from "./edits.js";
import type { RunPolicies } from "./published.js";
import type { Session, SessionOptions } from "./session.js";

/** Which script a run asks, and how. */
export interface ScriptOptions {
  /** Its absolute path. */
  readonly file: string;
  /** As the command line names it. */
  readonly name: string;
  /** What `ctx.options` has. */
  readonly options: Readonly<Record<string, string>>;
  /** How long a program waits for an answer. */
  readonly patienceNs: number;
  /** Workers that answer; each has a state of its own, and a flow is always asked of the same one. */
  readonly workers: number;
  readonly permissions: Permissions;
  /** Where what the script asks for is logged; stays the caller's. */
  readonly permissionLog: PermissionLog;
  /** Goes on where the kernel cannot jail the script. */
  readonly unsafe: boolean;
}

/** The run that asks it. */
export interface AskingRun {
  /** Where its segment will be. */
  readonly segmentPath: string;
  readonly seed: bigint;
  readonly policies: RunPolicies;
  /** Whether it is recorded, with what the script answers. */
  readonly recorded: boolean;
  readonly notice: (sentence: string) => void;
}

/** Where programs look for the mailbox, behind the segment's path. */
const MAILBOX_SUFFIX = ".mailbox";
/** How often a problem is said again while it goes on. */
const SAY_AGAIN_MS = 10_000;
/** What is kept of different problems and of metrics; a script may have any number of either. */
const MAX_PROBLEMS = 100;
const MAX_METRICS = 1000;

/** A script that is asked. */
export class Scripted {
  /** What the session has to know of it. */
  readonly asked: NonNullable<SessionOptions["script"]>;
  readonly #options: ScriptOptions;
  readonly #path: string;
  readonly #fd: number;
  readonly #notice: (sentence: string) => void;
  readonly #host: StartedHost;
  readonly #files: readonly string[];
  readonly #problems = new Map<string, { problem: ScriptProblem; times: number; saidMs: number }>();
  readonly #metrics = new Map<string, number>();
  readonly #answers = new Map<number, Policy>();
  #closed = false;
  #stopped = false;
  #edits: EditWatch | undefined;
  #loaded: Loaded;
  #ticks: NodeJS.Timeout | undefined;
  #ticking: Promise<void> = Promise.resolve();

  /**
   * Starts the host, which loads the script. Throws a {@link ScriptError} for one that does not load; what fails leaves
   * nothing behind.
   */
  static async start(options: ScriptOptions, run: AskingRun): Promise<Scripted> {
    const { permissions, permissionLog: log } = options;
    const { files, sources } = await wholeGraph(options);
    const path = `${run.segmentPath}${MAILBOX_SUFFIX}`;
    const lanes = options.workers;
    startJanitor(run.segmentPath, ({ message }) => run.notice(`the janitor could not be started: ${message}`));
    const fd = native.createMailbox(path, lanes);
    try {
      // Its news come only once it serves, when there is somebody to tell.
      let scripted: Scripted | undefined;
      const host = await ScriptHost.start({
        script: options.file,
        sources,
        seed: `0x${run.seed.toString(16)}`,
        options: options.options,
        policies: Object.fromEntries([...run.policies.others].map(([name, { written }]) => [name, written])),
        limits: DEFAULT_LIMITS,
        recorded: run.recorded,
        launch: jailLaunch({ files, permissions, mailbox: true, unsafe: options.unsafe }),
        broker: { permissions, script: options.name, log },
        mailbox: { fd, lanes },
        onLine: (_, text) => run.notice(`script: ${text}`),
        onNews: (news) => scripted?.learn(news),
      });
      scripted = new Scripted(options, path, fd, run.notice, host, files);
      return scripted;
    } catch (error) {
      closeSync(fd);
      unlinkSync(path);
      throw error;
    }
  }

  private constructor(
    options: ScriptOptions,
    path: string,
    fd: number,
    notice: (sentence: string) => void,
    host: StartedHost,
    files: readonly string[],
  ) {
    this.#options = options;
    this.#path = path;
    this.#fd = fd;
    this.#notice = notice;
    this.#host = host;
    this.#files = files;
    this.#loaded = host.loaded;
    const segmentPath = path.slice(0, -MAILBOX_SUFFIX.length);
    this.asked = { segmentPath, asks: asksOf(host.loaded), patienceNs: options.patienceNs };
    this.#say(host.said);
  }

  /** From now on programs are answered, the script is told how the run goes on, and its edits are followed. */
  async serve(session: Session): Promise<void> {
    await this.#host.serve();
    this.#tick(session, performance.now());
    const edits = new EditWatch(this.#files, async (sure) => {
      try {
        edits.watch(await this.#reload(session));
        return true;
      } catch (error) {
        if (sure) this.#notice(`${error instanceof Error ? error.message : String(error)}; the script stays as it was`);
        return false;
      }
    });
    this.#edits = edits;
  }

  /** Loads the script as it is now, if it can be; answers the files that it is made of. */
  async #reload(session: Session): Promise<readonly string[]> {
    const { file } = this.#options;
    const { files, sources } = await wholeGraph(this.#options);
    this.#loaded = await this.#host.reload(sources);
    this.#say(this.#host.said);
    session.ask(asksOf(this.#loaded));
    this.#notice(`${file} was edited: it is in force`);
    return files;
  }

  /** Tells the script how the run goes on, as often as it asks for. */
  #tick(session: Session, startedMs: number): void {
    const { hooks, tickMs } = this.#loaded;
    this.#ticks = setTimeout(() => {
      const atMs = performance.now() - startedMs;
      const counts = Buffer.from(session.segment.flowCounts().buffer).toString("base64");
      const ask = async (): Promise<void> => {
        if (hooks.onTick !== undefined) this.#change(session, await this.#host.ask({ kind: "run_tick", atMs, counts }));
        if (!this.#stopped) this.#tick(session, startedMs);
      };
      this.#ticking = ask();
    }, tickMs);
  }

  /** Takes what came of answering programs. */
  learn({ problems, said, answers }: News): void {
    this.#say(said);
    for (const { value, fields } of answers) this.#keep(value, fields);
    for (const { problem, times } of problems) this.#note(problem, times);
  }

  /** What it answered so far, by what journals call it. */
  get answers(): ReadonlyMap<number, Policy> {
    return this.#answers;
  }

  /** What evidence says of it, from the segment's counters too. */
  evidence(segment: Segment): ScriptEvidence {
    const { script_asked, script_late, script_unserved } = segment.header();
    const problems = [...this.#problems.values()].map(({ problem, times }) => ({ ...problem, times }));
    return {
      file: this.#options.file,
      name: this.#loaded.name,
      questions: Number(script_asked),
      late: Number(script_late),
      unserved: Number(script_unserved),
      problems,
      metrics: Object.fromEntries(this.#metrics),
    };
  }

  /** No tick comes any more, and all is known that the script said. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#edits?.close();
    clearTimeout(this.#ticks);
    await this.#ticking;
    await this.#host.flush();
  }

  /** Ends the host and removes the mailbox. A second call does nothing. */
  async close(): Promise<void> {
    this.#stopped = true;
    this.#edits?.close();
    clearTimeout(this.#ticks);
    await this.#host.close();
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
    try {
      unlinkSync(this.#path);
    } catch {
      // The janitor, or mishap stop, was faster.
    }
  }

  /** What a tick changes: policies by their names, and the run's own. */
  #change(session: Session, { answer, problem, said }: Reply): void {
    this.#say(said);
    if (problem !== undefined) this.#note(problem, 1);
    const { fields, policies = {} } = answer;
    if (fields === undefined && Object.keys(policies).length === 0) return;
    try {
      const others = new Map(Object.entries(policies).map(([name, each]) => [name, parsePolicy(each)]));
      session.change({ ...(fields !== undefined && { own: parsePolicy(fields) }), others });
    } catch (error) {
      // Checked inside, and again here: what comes out of the jail is data at best. Or there is no room for so many.
      const reason = error instanceof Error ? error.message : String(error);
      this.#note({ message: `onTick answered what cannot be used: ${reason}`, ...this.#loaded.hooks.onTick }, 1);
    }
  }

  #keep(value: number, fields: PolicyInput): void {
    try {
      this.#answers.set(value, parsePolicy(fields));
    } catch (error) {
      // It was checked inside; what comes out of the jail is data at best.
      const reason = error instanceof Error ? error.message : String(error);
      this.#note({ message: `an answer cannot be recorded: ${reason}`, file: this.#options.file }, 1);
    }
  }

  #note(each: ScriptProblem, times: number): void {
    const full = this.#problems.size >= MAX_PROBLEMS && !this.#problems.has(problemText(each));
    const problem = full ? { message: `problems besides these ${MAX_PROBLEMS}`, file: this.#options.file } : each;
    const text = problemText(problem);
    const nowMs = performance.now();
    const known = this.#problems.get(text);
    const all = (known?.times ?? 0) + times;
    const say = known === undefined || nowMs - known.saidMs > SAY_AGAIN_MS;
    this.#problems.set(text, { problem, times: all, saidMs: say ? nowMs : (known?.saidMs ?? 0) });
    if (say) this.#notice(all === times ? text : `${text} (${all} times)`);
  }

  #say(said: readonly Said[]): void {
    for (const each of said) {
      if (each.kind === "log") this.#notice(`script: ${each.text}`);
      else this.#measure(each.name, each.value, each.kind === "count");
    }
  }

  #measure(name: string, value: number, isCount: boolean): void {
    const known = this.#metrics.get(name);
    if (known === undefined && this.#metrics.size >= MAX_METRICS) {
      const { file } = this.#options;
      this.#note({ message: `metrics besides the first ${MAX_METRICS} are left out`, file }, 1);
    } else {
      this.#metrics.set(name, isCount ? (known ?? 0) + value : value);
    }
  }
}

/** The files of a script, all of which it may have. Throws a {@link ScriptError}. */
async function wholeGraph({ file, permissions }: ScriptOptions): Promise<ScriptGraph> {
  const graph = await graphOf(file, (path) => isPermitted(permissions, "read", path));
  const [problem] = graph.problems;
  if (problem !== undefined) throw new ScriptError(problem);
  return graph;
}

/** A script with ticks is asked about flows too, because it is told of those that it knows. */
function asksOf({ hooks }: Loaded): number {
  const { asksFlow = 0, asksOps = 0 } = layout.constants;
  const flows = hooks.onFlow !== undefined || hooks.onTick !== undefined ? asksFlow : 0;
  return flows | (hooks.onOp === undefined ? 0 : asksOps);
}
