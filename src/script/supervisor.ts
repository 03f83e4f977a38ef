/**
 * The outside of a script's host: starts it, asks it, starts it again when it dies, and leaves nothing of it behind. What
 * comes from inside is not trusted: lines that are too long or no reports end the host.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { Duplex, type Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { native } from "../segment/native.js";
import { type Broker, type BrokerOptions, serveBroker } from "./broker.js";
import { variablesOf } from "./permissions.js";
import {
  CONTROL_FD,
  type Loaded,
  type LoadOptions,
  type News,
  type Order,
  problemText,
  type Question,
  type Reply,
  type Report,
  type Said,
  type ScriptProblem,
} from "./questions.js";
import { reportOf } from "./reports.js";

const MAIN = fileURLToPath(new URL("./host/main.js", import.meta.url));
/** More than all that one letter of news can hold. */
const MAX_LINE_BYTES = 4 << 20;
const MAX_RESTARTS = 5;
const FIRST_BACK_OFF_MS = 100;
/** A host that hangs itself is given the script's own limits and so much. */
const GRACE_MS = 5000;

/** What a host is started with. */
export interface HostOptions extends Omit<LoadOptions, "lanes" | "variables"> {
  /** The command that starts the rest of its line in a jail; empty for none. */
  readonly launch: readonly string[];
  /** What the script may do, by whose name it is logged where. */
  readonly broker: BrokerOptions;
  /** A line that the host or the script printed. */
  readonly onLine: (source: "stdout" | "stderr", text: string) => void;
  /** What came of answering programs, and what went wrong between questions. */
  readonly onNews: (news: News) => void;
  /** The mailbox through which programs ask; its descriptor stays the caller's. */
  readonly mailbox?: { readonly fd: number; readonly lanes: number } | undefined;
}

/** The script does not load, or its host does not run. */
export class ScriptError extends Error {
  override readonly name = "ScriptError";
  readonly problem: ScriptProblem;

  constructor(problem: ScriptProblem) {
    super(problemText(problem));
    this.problem = problem;
  }
}

type Distribute<T> = T extends unknown ? Omit<T, "id"> : never;

/** A host whose script has loaded. */
export type StartedHost = ScriptHost & { readonly loaded: Loaded };

/** A script that runs in a process of its own. */
export class ScriptHost {
  #options: HostOptions;
  #child: ChildProcess | undefined;
  #control: Duplex | undefined;
  #ended: Promise<void> = Promise.resolve();
  readonly #waiting = new Map<number, (report: Report | undefined) => void>();
  #nextId = 1;
  #restarts = 0;
  #closed = false;
  #serving = false;
  #starting: Promise<Loaded> | undefined;
  /** What was said while loading. */
  said: readonly Said[] = [];

  /** Use {@link ScriptHost.start}. */
  private constructor(options: HostOptions) {
    this.#options = options;
  }

  /** Starts a host and loads the script. Throws a {@link ScriptError}. */
  static async start(options: HostOptions): Promise<StartedHost> {
    const host = new ScriptHost(options);
    try {
      return Object.assign(host, { loaded: await host.#start() });
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  /** Asks the script. What goes wrong is in the reply. */
  async ask(question: Question): Promise<Reply> {
    try {
      await this.#running();
      const report = await this.#send(
        { kind: "ask", question },
        this.#options.limits.loadMs + this.#options.limits.hookMs,
      );
      if (report?.kind === "reply") return report.reply;
      return { answer: {}, problem: await this.#death(), said: [] };
    } catch (error) {
      if (!(error instanceof ScriptError)) throw error;
      return { answer: {}, problem: error.problem, said: [] };
    }
  }

  /**
   * Loads the script anew, from what its files hold now. Throws a {@link ScriptError} for one that does not load: the old
   * one goes on.
   */
  async reload(sources: LoadOptions["sources"]): Promise<Loaded> {
    await this.#running();
    const loaded = this.#loadedOf(await this.#send({ kind: "reload", sources }, 2 * this.#options.limits.loadMs));
    this.#options = { ...this.#options, sources };
    return loaded;
  }

  /** From now on programs are answered through the mailbox, by later hosts too. */
  async serve(): Promise<void> {
    this.#serving = true;
    await this.#running();
    await this.#send({ kind: "serve" }, this.#options.limits.loadMs);
  }

  /** Gets what came of answering programs and was not told yet. */
  async flush(): Promise<void> {
    if (this.#child !== undefined) await this.#send({ kind: "flush" }, this.#options.limits.hookMs);
  }

  /** Ends the host; nothing of it is left when this resolves. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#child?.kill("SIGKILL");
    await this.#ended;
  }

  async #start(): Promise<Loaded> {
    const { launch, limits, onLine, onNews, mailbox, broker: options, ...rest } = this.#options;
    const node = [process.execPath, "--disable-warning=ExperimentalWarning", MAIN];
    const [command = process.execPath, ...args] = [...launch, ...node];
    const [ours, theirs] = native.socketPair();
    const broker = serveBroker(ours, options);
    // In the order of their numbers: control, broker, mailbox.
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe", "pipe", theirs, mailbox?.fd ?? "ignore"],
      env: {},
      detached: true,
    });
    closeSync(theirs);
    this.#child = child;
    void this.#watch(child, broker);
    const control = child.stdio[CONTROL_FD];
    if (!(control instanceof Duplex)) throw new ScriptError({ message: "the script host could not be started" });
    this.#control = control;
    control.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      child.on("error", (error) => {
        this.#tell({ message: `the script host could not be started: ${error.message}` });
        this.#giveUp();
        broker.close();
        resolve();
      });
      child.on("close", async () => {
        if (this.#child === child) this.#giveUp();
        broker.close();
        await broker.ended;
        resolve();
        if (this.#serving && !this.#closed) void this.#revive();
      });
    });
    for (const source of ["stdout", "stderr"] as const)
      linesOf(
        child[source],
        (text) => onLine(source, text),
        () => {},
      );
    linesOf(
      control,
      (line) => this.#receive(line),
      () => child.kill("SIGKILL"),
    );
    const variables = variablesOf(options.permissions, options.environment ?? process.env);
    const load = { ...rest, limits, variables, lanes: mailbox?.lanes ?? 0 };
    return this.#loadedOf(await this.#send({ kind: "load", load }, limits.loadMs));
  }

  /** A host that asks the broker for what is no question is not asked any more either. */
  async #watch(child: ChildProcess, broker: Broker): Promise<void> {
    const reason = await broker.ended;
    if (reason === undefined) return;
    this.#tell({ message: reason, file: this.#options.script });
    child.kill("SIGKILL");
  }

  #tell(problem: ScriptProblem): void {
    this.#options.onNews({ problems: [{ problem, times: 1 }], said: [], answers: [] });
  }

  /** The host that runs, started again where it has died. */
  async #running(): Promise<void> {
    if (this.#closed) throw new ScriptError({ message: "the script host is closed" });
    if (this.#child !== undefined) return;
    if (this.#restarts >= MAX_RESTARTS) {
      throw new ScriptError({ message: `the script host died ${MAX_RESTARTS} times and is not started again` });
    }
    this.#starting ??= this.#again().finally(() => {
      this.#starting = undefined;
    });
    await this.#starting;
  }

  /** Programs wait for answers, not for somebody to ask for a new host. */
  async #revive(): Promise<void> {
    this.#tell(this.#deathNotice());
    try {
      await this.#running();
    } catch (error) {
      if (!this.#closed && error instanceof ScriptError) this.#tell(error.problem);
    }
  }

  async #again(): Promise<Loaded> {
    await new Promise((resolve) => setTimeout(resolve, FIRST_BACK_OFF_MS * 2 ** this.#restarts++));
    const loaded = await this.#start();
    if (this.#serving) await this.#send({ kind: "serve" }, this.#options.limits.loadMs);
    return loaded;
  }

  async #send(order: Distribute<Order>, limitMs: number): Promise<Report | undefined> {
    const id = this.#nextId++;
    let timer: NodeJS.Timeout | undefined;
    const reported = new Promise<Report | undefined>((resolve) => {
      this.#waiting.set(id, resolve);
      timer = setTimeout(() => this.#child?.kill("SIGKILL"), limitMs + GRACE_MS);
    });
    this.#control?.write(`${JSON.stringify({ id, ...order })}\n`);
    try {
      return await reported;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  #receive(line: string): void {
    const report = reportOf(line);
    if (report === undefined) this.#child?.kill("SIGKILL");
    else if (report.kind !== "news") this.#waiting.get(report.id)?.(report);
    else this.#options.onNews(report.news);
  }

  #loadedOf(report: Report | undefined): Loaded {
    if (report?.kind === "failed") throw new ScriptError(report.problem);
    if (report?.kind !== "loaded")
      throw new ScriptError({ message: "the script host ended while it loaded the script" });
    this.said = report.said;
    return report.loaded;
  }

  /** The host is gone: nobody waits for it any more. */
  #giveUp(): void {
    this.#child = undefined;
    this.#control = undefined;
    for (const resolve of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
  }

  async #death(): Promise<ScriptProblem> {
    await this.#ended;
    return this.#deathNotice();
  }

  #deathNotice(): ScriptProblem {
    return {
      message: "the script host died and is started again; the script's state is lost",
      file: this.#options.script,
    };
  }
}

/** Lines of a stream; one that is too long is cut, and said. */
function linesOf(stream: Readable | null, onLine: (line: string) => void, onFlood: () => void): void {
  let pending = "";
  stream?.setEncoding("utf8");
  stream?.on("data", (text: string) => {
    const lines = (pending + text).split("\n");
    pending = lines.pop() ?? "";
    for (const line of lines) onLine(line);
    if (pending.length <= MAX_LINE_BYTES) return;
    pending = "";
    onFlood();
  });
  stream?.on("end", () => {
    if (pending !== "") onLine(pending);
  });
}
