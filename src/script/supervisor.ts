/**
 * The outside of a script's host: starts it, asks it, starts it again when it dies, and leaves nothing of it behind. What
 * comes from inside is not trusted: lines that are too long or no reports end the host.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { Duplex, type Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import {
  type Loaded,
  type LoadOptions,
  type Order,
  problemText,
  type Question,
  type Reply,
  type Report,
  type Said,
  type ScriptProblem,
} from "./questions.js";

const MAIN = fileURLToPath(new URL("./host/main.js", import.meta.url));
/** The host's end of the control channel. */
export const CONTROL_FD = 3;
const MAX_LINE_BYTES = 1 << 20;
const MAX_RESTARTS = 5;
const FIRST_BACK_OFF_MS = 100;
/** A host that hangs itself is given the script's own limits and so much. */
const GRACE_MS = 5000;

/** What a host is started with. */
export interface HostOptions extends LoadOptions {
  /** The command that starts the rest of its line in a jail; empty for none. */
  readonly launch: readonly string[];
  /** A line that the host or the script printed, or something that went wrong between questions. */
  readonly onLine: (source: "stdout" | "stderr" | "problem", text: string) => void;
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
  readonly #options: HostOptions;
  #child: ChildProcess | undefined;
  #control: Duplex | undefined;
  #ended: Promise<void> = Promise.resolve();
  readonly #waiting = new Map<number, (report: Report | undefined) => void>();
  #nextId = 1;
  #restarts = 0;
  #closed = false;
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

  /** Loads the script as it is now. Throws a {@link ScriptError} for one that does not load: the old one goes on. */
  async reload(): Promise<Loaded> {
    await this.#running();
    return this.#loadedOf(await this.#send({ kind: "reload" }, 2 * this.#options.limits.loadMs));
  }

  /** Ends the host; nothing of it is left when this resolves. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#child?.kill("SIGKILL");
    await this.#ended;
  }

  async #start(): Promise<Loaded> {
    const { launch, limits, onLine, ...rest } = this.#options;
    const node = [process.execPath, "--disable-warning=ExperimentalWarning", MAIN];
    const [command = process.execPath, ...args] = [...launch, ...node];
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe", "pipe"], env: {}, detached: true });
    this.#child = child;
    const control = child.stdio[CONTROL_FD];
    if (!(control instanceof Duplex)) throw new ScriptError({ message: "the script host could not be started" });
    this.#control = control;
    control.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      child.on("error", (error) => {
        onLine("problem", `the script host could not be started: ${error.message}`);
        this.#giveUp();
        resolve();
      });
      child.on("close", () => {
        if (this.#child === child) this.#giveUp();
        resolve();
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
    return this.#loadedOf(await this.#send({ kind: "load", load: { ...rest, limits } }, limits.loadMs));
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

  async #again(): Promise<Loaded> {
    await new Promise((resolve) => setTimeout(resolve, FIRST_BACK_OFF_MS * 2 ** this.#restarts++));
    return this.#start();
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
    else if (report.kind === "problem") this.#options.onLine("problem", problemText(report.problem));
    else this.#waiting.get(report.id)?.(report);
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
    return {
      message: "the script host died and is started again; the script's state is lost",
      file: this.#options.script,
    };
  }
}

function reportOf(line: string): Report | undefined {
  try {
    const report: unknown = JSON.parse(line);
    return typeof report === "object" && report !== null && "kind" in report ? (report as Report) : undefined;
  } catch {
    return undefined;
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
