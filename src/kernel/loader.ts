/**
 * The loader's client. The loader is a small program with the rights that eBPF takes; it is started as it is where we
 * are root and through sudo elsewhere, speaks JSON lines, and ends with everything it did when its stdin ends.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { native, nativeFolder } from "../segment/index.js";
import {
  type KernelFlow,
  type KernelHook,
  type KernelSummary,
  type LoaderLine,
  parseLine,
  type Treated,
} from "./words.js";

/** The kernel's witness is not to be had, or was lost; why, in one sentence. */
export class KernelError extends Error {
  override readonly name = "KernelError";
}

/** What the kernel saw up to now. */
export interface KernelReading {
  /** Sockets closed since the last reading, and every open one. */
  readonly flows: readonly KernelFlow[];
  readonly summary: KernelSummary;
}

/** A loader at work. */
export interface Loader {
  readonly ready: {
    /** The folder of the cgroup that is watched; undefined where none is. */
    readonly cgroup: string | undefined;
    /** Each with whether the kernel took it. */
    readonly hooks: readonly KernelHook[];
  };
  /** Moves a process into the run's cgroup. Rejects with a {@link KernelError}, as all of these do. */
  join(pid: number): Promise<void>;
  /** And back to where it was. */
  leave(pid: number): Promise<void>;
  /** From now on the run's connections go to the relay; answers what came of those there before, of an attach. */
  relay(): Promise<Treated | undefined>;
  /** And from now on no more; resolves once all that programs sent and left behind has gone its way. */
  drain(): Promise<void>;
  flows(): Promise<KernelReading>;
  /** Resolves once the process that it was told to attach to has ended. */
  readonly subjectGone: Promise<void>;
  /** Resolves once it is gone: undefined when it was told to, else what became of it, in words. */
  readonly ended: Promise<string | undefined>;
  /** Ends it, and all it loaded. A second call does nothing. */
  close(): void;
}

/** Where the build puts the loader. */
export const LOADER_PATH = `${nativeFolder}mishap-loader`;

/** More than any answer takes; a password may take longer. */
const ANSWER_WITHIN_MS = 15_000;
const MOST_STDERR = 8192;

/**
 * Starts the loader and waits until its hooks are in place.
 *
 * @param args - what native/loader/main.cpp takes: `run --segment …`, `attach --segment …`, `observe --pid …`
 * @throws KernelError when the kernel's witness is not to be had
 */
export async function startLoader(args: readonly string[]): Promise<Loader> {
  const { command, throughSudo } = loaderCommand(args);
  return await new LoaderProcess(command, throughSudo).start();
}

/**
 * The words that start the loader with the rights it needs.
 *
 * @throws KernelError when it was not built, or when root's rights are needed and there is no sudo
 */
export function loaderCommand(args: readonly string[]): { command: readonly string[]; throughSudo: boolean } {
  if (!existsSync(LOADER_PATH)) {
    throw new KernelError(
      `mishap was built without it: ${LOADER_PATH} is not there; \`apt-get install libbpf-dev clang bpftool\`, then \`npm run build\``,
    );
  }
  if (process.geteuid?.() === 0) return { command: [LOADER_PATH, ...args], throughSudo: false };
  const sudo = (process.env.PATH ?? "/usr/bin")
    .split(":")
    .map((folder) => join(folder, "sudo"))
    .find((path) => existsSync(path));
  if (sudo === undefined) throw new KernelError("it needs root, and sudo is not installed; run mishap as root");
  const asking = hasTerminal() ? ["-p", "mishap: password of %p, for the kernel's witness: "] : ["-n"];
  return { command: [sudo, ...asking, "--", LOADER_PATH, ...args], throughSudo: true };
}

function hasTerminal(): boolean {
  try {
    closeSync(openSync("/dev/tty", "r+"));
    return true;
  } catch {
    return false;
  }
}

/**
 * The loader's standard input and output are one socket that is ours, not the child's: what is started, sudo or the
 * loader's first process, leaves at once, and with it a child's own pipes would end. The keys that end a program reach
 * sudo too, while it asks for a password; the loader leaves them to the program.
 */
function spawnLoader(command: readonly string[], throughSudo: boolean): { program: ChildProcess; line: Socket } {
  const [file = "", ...args] = command;
  const [ours, theirs] = native.socketPair();
  const options = throughSudo ? {} : { detached: true, env: {} };
  try {
    const program = spawn(file, args, { ...options, stdio: [theirs, theirs, "pipe"] });
    return { program, line: new Socket({ fd: ours }) };
  } finally {
    closeSync(theirs);
  }
}

interface Question {
  take(line: LoaderLine): "more" | "answered";
  fail(reason: string): void;
}

class LoaderProcess implements Loader {
  readonly ended: Promise<string | undefined>;
  readonly subjectGone: Promise<void>;
  #onSubjectGone = (): void => {};
  #ready: Loader["ready"] = { cgroup: undefined, hooks: [] };
  readonly #line: Socket;
  readonly #throughSudo: boolean;
  readonly #questions: Question[] = [];
  #stderr = "";
  #garbled: string | undefined;
  #closed = false;
  #gone: string | undefined;

  constructor(command: readonly string[], throughSudo: boolean) {
    this.#throughSudo = throughSudo;
    const { program, line } = spawnLoader(command, throughSudo);
    this.#line = line;
    this.subjectGone = new Promise((resolve) => {
      this.#onSubjectGone = resolve;
    });
    line.on("error", () => {}); // it died: its end says so
    program.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MOST_STDERR);
    });
    createInterface({ input: line }).on("line", (text) => this.#hear(text));
    this.ended = new Promise((resolve) => {
      const end = (reason: string | undefined): void => {
        this.#gone = reason ?? "it was told to end";
        for (const question of this.#questions.splice(0)) question.fail(this.#gone);
        resolve(reason);
      };
      program.once("error", (error) => end(error.message));
      // Not before the loader itself is gone, which holds its stderr open.
      program.once("close", (code, signal) => end(this.#closed ? undefined : this.#whyEnded(code, signal)));
    });
  }

  get ready(): Loader["ready"] {
    return this.#ready;
  }

  /** The first line says that it works, or why it does not. */
  async start(): Promise<Loader> {
    try {
      await this.#ask(undefined, this.#throughSudo ? undefined : ANSWER_WITHIN_MS, (line) => {
        if (!("ready" in line)) return false;
        this.#ready = { cgroup: line.cgroup ?? undefined, hooks: line.hooks };
        return true;
      });
      return this;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  join(pid: number): Promise<void> {
    return this.#ask(`join ${pid}`, ANSWER_WITHIN_MS, (line) => "joined" in line && line.joined === pid);
  }

  leave(pid: number): Promise<void> {
    return this.#ask(`leave ${pid}`, ANSWER_WITHIN_MS, (line) => "left" in line && line.left === pid);
  }

  async relay(): Promise<Treated | undefined> {
    let before: Treated | undefined;
    await this.#ask("relay", ANSWER_WITHIN_MS, (line) => {
      if (!("relayed" in line)) return false;
      before = line.before;
      return true;
    });
    return before;
  }

  drain(): Promise<void> {
    return this.#ask("drain", undefined, (line) => "drained" in line);
  }

  async flows(): Promise<KernelReading> {
    const flows: KernelFlow[] = [];
    let summary: KernelSummary | undefined;
    await this.#ask("flows", ANSWER_WITHIN_MS, (line) => {
      if ("flow" in line) flows.push(line.flow);
      if ("flows" in line) summary = line.flows;
      return summary !== undefined;
    });
    if (summary === undefined) throw new KernelError("it did not say what it saw");
    return { flows, summary };
  }

  close(): void {
    this.#closed = true;
    this.#line.end();
  }

  /** Says something, and hands every line that follows to `take` until that is content. */
  #ask(words: string | undefined, withinMs: number | undefined, take: (line: LoaderLine) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#gone !== undefined) {
        reject(new KernelError(this.#gone));
        return;
      }
      const late = (): void => this.#giveUp(`it did not answer within ${(withinMs ?? 0) / 1000} s`);
      const timer = withinMs === undefined ? undefined : setTimeout(late, withinMs);
      const fail = (reason: string): void => {
        clearTimeout(timer);
        reject(new KernelError(reason));
      };
      this.#questions.push({
        fail,
        take: (line) => {
          if ("error" in line) fail(line.error);
          else if (!take(line)) return "more";
          clearTimeout(timer);
          resolve();
          return "answered";
        },
      });
      if (words !== undefined) this.#line.write(`${words}\n`);
    });
  }

  #hear(text: string): void {
    try {
      const line = parseLine(text);
      if ("gone" in line) this.#onSubjectGone();
      else if (this.#questions[0]?.take(line) === "answered") this.#questions.shift();
    } catch (error) {
      this.#giveUp(error instanceof Error ? error.message : String(error));
    }
  }

  /** What it says can no longer be relied on. */
  #giveUp(reason: string): void {
    this.#garbled ??= reason;
    for (const question of this.#questions.splice(0)) question.fail(reason);
    this.#line.destroy();
  }

  #whyEnded(code: number | null, signal: NodeJS.Signals | null): string {
    if (this.#garbled !== undefined) return this.#garbled;
    const said = explainStderr(this.#stderr, this.#throughSudo);
    // What was started leaves at once; the loader itself is known by its pipes only.
    return said ?? (code === 0 ? "it was killed" : `it ended with ${signal ?? `status ${code}`}`);
  }
}

/** What the dynamic loader and sudo write to stderr, in a sentence for people; undefined where they wrote nothing. */
export function explainStderr(stderr: string, throughSudo: boolean): string | undefined {
  const library = /error while loading shared libraries: ([^:\s]+)/.exec(stderr)?.[1];
  if (library !== undefined) {
    const packages = library.startsWith("libbpf") ? "; `apt-get install libbpf1`" : "";
    return `${library}, which it needs, is not installed${packages}`;
  }
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  if (throughSudo) {
    if (/password is required|terminal is required|no askpass/.test(stderr)) {
      return "it needs root, and sudo wants a password where there is no terminal to ask for it; `sudo -v` asks beforehand";
    }
    const refusal = lines.find((line) => /^sudo: |sudoers|not allowed|may not run|incorrect password/.test(line));
    if (refusal !== undefined) return `it needs root, and sudo refused: ${refusal.replace(/^sudo: /, "").trim()}`;
  }
  return lines.at(-1)?.trim();
}
