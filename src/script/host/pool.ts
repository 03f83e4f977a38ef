/**
 * The pool that runs one script: a worker that is watched from outside it, and replaced when it hangs, dies or takes more
 * memory than it may. The one place that knows Piscina.
 */

import { setTimeout as pause } from "node:timers/promises";
import { Piscina } from "piscina";
import type { NativeMailbox } from "../../segment/index.js";
import {
  HOOK_OF,
  type HookName,
  type Loaded,
  type LoadOptions,
  type News,
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
/** How often a worker that serves is looked at. */
const LOOK_MS = 50;
const FIRST_BACK_OFF_MS = 20;
const MAX_BACK_OFF_MS = 1000;
/** A worker that served for so long may fail as if for the first time. */
const HEALTHY_MS = 5000;

/** Calls back once a task has taken too long, until it is ended. */
type HangWatch = (onHang: () => void) => () => void;

/** A task that has so long. */
function after(limitMs: number): HangWatch {
  return (onHang) => {
    const timer = setTimeout(onHang, limitMs);
    return () => clearTimeout(timer);
  };
}

/** A script in its worker. Questions wait for each other. */
export class ScriptPool {
  #load: LoadOptions;
  readonly #onNews: (news: News) => void;
  /** What to do once the worker sends news: it serves. */
  #onServing = (): void => {};
  #pool: Piscina;
  #closed = false;
  #version = 1;
  /** Undefined while the worker that there is has not loaded it. */
  #loaded: Loaded | undefined;
  /** That of the version that loaded last. */
  #hooks: Loaded["hooks"] = {};
  #last: Promise<unknown> = Promise.resolve();

  constructor(load: LoadOptions, onNews: (news: News) => void) {
    this.#load = load;
    this.#onNews = onNews;
    this.#pool = this.#newPool();
  }

  /** Loads the script. */
  load(): Promise<LoadResult> {
    return this.#inTurn(() => this.#loadVersion(this.#version));
  }

  /** Loads the script as it is now; where that fails, the version before goes on. */
  reload(sources: LoadOptions["sources"]): Promise<LoadResult> {
    return this.#inTurn(async () => {
      const version = this.#version + 1;
      const load = { ...this.#load, sources };
      // In a worker that is thrown away: loading may hang or take all memory, and the old version must not notice.
      const trial = new ScriptPool(load, () => {});
      try {
        const tried = await trial.load();
        if ("problem" in tried) return tried;
      } finally {
        await trial.close();
      }
      const result = await this.#loadVersion(version, load);
      if ("loaded" in result) {
        this.#version = version;
        this.#load = load;
      }
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
      const ran = await this.#run<Reply>({ kind: "ask", question }, hook, after(hookMs), hookMs, this.#hooks[hook]);
      return "failed" in ran ? { answer: {}, problem: ran.failed, said: [] } : ran.done;
    });
  }

  /**
   * Has programs answered at a lane of the mailbox until the pool closes; a worker that fails at it is replaced. Resolves
   * when the first one serves, or has failed to.
   */
  serve(mailbox: NativeMailbox, lane: number): Promise<void> {
    return new Promise((resolve) => {
      this.#onServing = resolve;
      void this.#serveOn(mailbox, lane);
    });
  }

  async #serveOn(mailbox: NativeMailbox, lane: number): Promise<void> {
    const { hookMs } = this.#load.limits;
    const { seed, lanes, recorded } = this.#load;
    const hangs = (onHang: () => void): (() => void) => {
      const timer = setInterval(() => {
        if (mailbox.servingForMs(lane) > hookMs) onHang();
      }, LOOK_MS);
      return () => clearInterval(timer);
    };
    let backOffMs = FIRST_BACK_OFF_MS;
    while (!this.#closed) {
      const startedMs = performance.now();
      const loaded = await this.#inTurn(async () =>
        this.#loaded === undefined ? this.#loadVersion(this.#version) : undefined,
      );
      let problem = loaded !== undefined && "problem" in loaded ? loaded.problem : undefined;
      if (problem === undefined) {
        const hook = this.#hooks.onOp === undefined ? "onFlow" : "onOp";
        const ran = await this.#run(
          { kind: "serve", lane, lanes, seed, recorded },
          hook,
          hangs,
          hookMs,
          this.#hooks[hook],
        );
        problem = "failed" in ran ? ran.failed : undefined;
      }
      mailbox.leave(lane);
      this.#onServing(); // or never will
      if (this.#closed) return;
      if (problem !== undefined) this.#tell(problem);
      if (performance.now() - startedMs > HEALTHY_MS) backOffMs = FIRST_BACK_OFF_MS;
      await pause(backOffMs);
      backOffMs = Math.min(2 * backOffMs, MAX_BACK_OFF_MS);
    }
  }

  /** Sends what came of answering programs and was not sent yet. */
  async flush(): Promise<void> {
    const { hookMs } = this.#load.limits;
    for (let more = true; more; ) {
      const ran = await this.#run<News>({ kind: "news" }, "the script", after(hookMs), hookMs, undefined);
      if ("failed" in ran) return;
      this.#onNews(ran.done);
      more = ran.done.answers.length > 0;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#pool.destroy();
  }

  #tell(problem: ScriptProblem): void {
    this.#onNews({ problems: [{ problem, times: 1 }], said: [], answers: [] });
  }

  async #loadVersion(version: number, load: LoadOptions = this.#load): Promise<LoadResult> {
    const { script, limits } = load;
    const place = { file: script, line: 1, column: 1 };
    const task: Task = { kind: "load", load, version };
    const ran = await this.#run<LoadResult>(task, "the script", after(limits.loadMs), limits.loadMs, place);
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
    watch: HangWatch,
    limitMs: number,
    place: ScriptProblemPlace | undefined,
  ): Promise<{ done: Result } | { failed: ScriptProblem }> {
    let hung: ScriptProblem | undefined;
    const unwatch = watch(async () => {
      unwatch();
      const [thread] = this.#pool.threads;
      const at = thread && (await placeOfThread(thread.threadId, PAUSE_PATIENCE_MS));
      hung = { message: `${what} did not return within ${limitMs} ms, and its worker was replaced`, ...(at ?? place) };
      // Not by a signal: a worker with a task that has one is given no other.
      await thread?.terminate();
    });
    try {
      return { done: await this.#pool.run(task) };
    } catch (error) {
      this.#loaded = undefined;
      return { failed: hung ?? this.#deathOf(error, what, place) };
    } finally {
      unwatch();
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
      // One that serves programs is asked about ticks, and given new versions, between its questions.
      concurrentTasksPerWorker: 2,
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
      this.#tell(this.#deathOf(error, "between questions, the script", undefined));
    });
    pool.on("message", (news: News) => {
      this.#onServing();
      this.#onNews(news);
    });
    return pool;
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
