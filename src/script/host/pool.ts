/**
 * The pool that runs one script: a worker that is watched from outside it, and replaced when it hangs, dies or takes more
 * memory than it may. The one place that knows Piscina.
 */

import { Piscina } from "piscina";
import {
  HOOK_OF,
  type HookName,
  type Loaded,
  type LoadOptions,
  type Question,
  type Reply,
  type ScriptProblem,
  type ScriptProblemPlace,
} from "../questions.js";
import { placeOfThread } from "./pause.js";
import { problemOf } from "./problems.js";
import type { LoadResult, Task } from "./worker.js";

const PAUSE_PATIENCE_MS = 500;
const YOUNG_GENERATION_MB = 16;
const STACK_MB = 4;

/** A script in its worker. Questions wait for each other. */
export class ScriptPool {
  readonly #load: LoadOptions;
  readonly #onProblem: (problem: ScriptProblem) => void;
  #pool: Piscina;
  #version = 1;
  /** Undefined while the worker that there is has not loaded it. */
  #loaded: Loaded | undefined;
  /** That of the version that loaded last. */
  #hooks: Loaded["hooks"] = {};
  #last: Promise<unknown> = Promise.resolve();

  constructor(load: LoadOptions, onProblem: (problem: ScriptProblem) => void) {
    this.#load = load;
    this.#onProblem = onProblem;
    this.#pool = this.#newPool();
  }

  /** Loads the script. */
  load(): Promise<LoadResult> {
    return this.#inTurn(() => this.#loadVersion(this.#version));
  }

  /** Loads the script as it is now; where that fails, the version before goes on. */
  reload(): Promise<LoadResult> {
    return this.#inTurn(async () => {
      const version = this.#version + 1;
      // In a worker that is thrown away: loading may hang or take all memory, and the old version must not notice.
      const trial = new ScriptPool(this.#load, () => {});
      try {
        const tried = await trial.load();
        if ("problem" in tried) return tried;
      } finally {
        await trial.close();
      }
      const result = await this.#loadVersion(version);
      if ("loaded" in result) this.#version = version;
      return result;
    });
  }

  /** Asks a hook. */
  ask(question: Question): Promise<Reply> {
    return this.#inTurn(async () => {
      if (this.#loaded === undefined) {
        const result = await this.#loadVersion(this.#version);
        if ("problem" in result) return { answer: {}, problem: result.problem, said: [] };
      }
      const hook = HOOK_OF[question.kind];
      const { hookMs } = this.#load.limits;
      const ran = await this.#run<Reply>({ kind: "ask", question }, hook, hookMs, this.#hooks[hook]);
      return "failed" in ran ? { answer: {}, problem: ran.failed, said: [] } : ran.done;
    });
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #loadVersion(version: number): Promise<LoadResult> {
    const { script, limits } = this.#load;
    const place = { file: script, line: 1, column: 1 };
    const task: Task = { kind: "load", load: this.#load, version };
    const ran = await this.#run<LoadResult>(task, "the script", limits.loadMs, place);
    if ("failed" in ran) return { problem: ran.failed };
    if ("loaded" in ran.done) {
      this.#loaded = ran.done.loaded;
      this.#hooks = ran.done.loaded.hooks;
    }
    return ran.done;
  }

  /** Runs a task; a worker that fails at it is gone, and its state with it. */
  async #run<Result>(
    task: Task,
    what: HookName | "the script",
    limitMs: number,
    place: ScriptProblemPlace | undefined,
  ): Promise<{ done: Result } | { failed: ScriptProblem }> {
    const stop = new AbortController();
    let hung: ScriptProblem | undefined;
    const timer = setTimeout(async () => {
      const [thread] = this.#pool.threads;
      const at = thread && (await placeOfThread(thread.threadId, PAUSE_PATIENCE_MS));
      hung = { message: `${what} did not return within ${limitMs} ms, and its worker was replaced`, ...(at ?? place) };
      stop.abort();
    }, limitMs);
    try {
      return { done: await this.#pool.run(task, { signal: stop.signal }) };
    } catch (error) {
      this.#loaded = undefined;
      return { failed: hung ?? this.#deathOf(error, what, place) };
    } finally {
      clearTimeout(timer);
    }
  }

  #deathOf(error: unknown, what: string, place: ScriptProblemPlace | undefined): ScriptProblem {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ERR_WORKER_OUT_OF_MEMORY") {
      return {
        message: `${what} took more than ${this.#load.limits.memoryMb} MB of memory, and its worker was replaced`,
        ...place,
      };
    }
    if (error instanceof Error && error.message.startsWith("worker exited")) {
      return { message: `${what} ended its worker, which was replaced`, ...place };
    }
    return problemOf(error, what, place);
  }

  #newPool(): Piscina {
    const { memoryMb } = this.#load.limits;
    const pool = new Piscina({
      filename: new URL("./worker.js", import.meta.url).href,
      minThreads: 1,
      maxThreads: 1,
      // Between questions, timers and promises of the script go on.
      atomics: "disabled",
      resourceLimits: {
        maxOldGenerationSizeMb: memoryMb,
        maxYoungGenerationSizeMb: YOUNG_GENERATION_MB,
        stackSizeMb: STACK_MB,
      },
      env: {},
    });
    pool.on("error", (error: unknown) => {
      this.#loaded = undefined;
      this.#onProblem(this.#deathOf(error, "between questions, the script", undefined));
    });
    return pool;
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
