/**
 * One script, loaded: its state, that of its flows, and its hooks, which are asked one question at a time. It knows
 * nothing of threads or channels; whoever has it calls {@link Instance.ask}.
 */

import { pathToFileURL } from "node:url";
import { formatWithOptions } from "node:util";
import { loadPreset, type PolicyFields, toCamelKeys } from "../../policy/index.js";
import { type Context, type Faults, type Flow, isPolicy, type ScriptPolicy } from "../index.js";
import {
  type Answer,
  type Asked,
  type FlowFacts,
  HOOK_OF,
  HOOKS,
  type HookName,
  type Loaded,
  type LoadOptions,
  type Reply,
  type Said,
} from "../questions.js";
import { AnswerError, answerOf } from "./answers.js";
import { placesOf } from "./places.js";
import { problemOf } from "./problems.js";
import { type DrawKey, drawKey, draws } from "./random.js";

const DEFAULT_TICK_MS = 1000;
/** What is said in one question beyond this is left out. */
const MAX_SAID = 200;
const MAX_SAID_CHARACTERS = 2000;

/** A flow that the script was asked about. */
interface KnownFlow {
  flow: Flow;
  readonly key: DrawKey;
  /** Asked so far. */
  questions: number;
}

/** A script that runs. */
export class Instance {
  readonly loaded: Loaded;
  readonly #policy: ScriptPolicy;
  readonly #load: LoadOptions;
  readonly #flows: Map<string, KnownFlow>;
  readonly #ctx: Context;
  readonly #tickKey: DrawKey;
  #ticks = 0;
  #said: Said[] = [];
  #atMs = 0;
  #random: () => number = () => 0;

  /** Use {@link Instance.load}. */
  private constructor(policy: ScriptPolicy, load: LoadOptions, old: Instance | undefined) {
    this.#policy = policy;
    this.#load = load;
    this.#flows = old === undefined ? new Map() : old.#flows;
    this.#ticks = old === undefined ? 0 : old.#ticks;
    this.#tickKey = drawKey(load.seed, "");
    const places = placesOf(Object.fromEntries(HOOKS.map((hook) => [hook, policy[hook]])));
    const hooks = Object.fromEntries(
      HOOKS.filter((hook) => policy[hook] !== undefined).map((hook) => {
        return [hook, places[hook] ?? { file: load.script, line: 1, column: 1 }];
      }),
    );
    this.loaded = { name: policy.name, tickMs: policy.tickMs ?? DEFAULT_TICK_MS, hooks };
    this.#ctx = this.#context(load, this.#begin(old));
  }

  /**
   * Loads a version of a script; the state of the one before goes through `onReload`, and its flows are kept. Throws what
   * the script throws, or an Error that says what it lacks.
   */
  static async load(load: LoadOptions, version: number, old?: Instance): Promise<Instance> {
    const module: unknown = await import(`${pathToFileURL(load.script).href}?mishap=${version}`);
    const policy = typeof module === "object" && module !== null && "default" in module ? module.default : undefined;
    if (!isPolicy(policy)) {
      const right = 'a script ends in: export default policy({ name: "…", onFlow… }), with policy from "mishap/script"';
      throw new Error(`${load.script}:1:1: exports no policy; ${right}`);
    }
    return new Instance(policy, load, old);
  }

  /** What was said since the last question; while loading, by `state` and `onReload`. */
  takeSaid(): Said[] {
    const said = this.#said;
    this.#said = [];
    return said;
  }

  /** Asks a hook. What it does wrong is in the reply. */
  ask(question: Asked): Reply {
    const hook = HOOK_OF[question.kind];
    try {
      const answer = this.#answer(question);
      return { answer, said: this.takeSaid() };
    } catch (error) {
      const place = this.loaded.hooks[hook];
      const problem =
        error instanceof AnswerError
          ? { message: `${hook} ${error.message}`, ...place }
          : problemOf(error, hook, place);
      return { answer: {}, problem, said: this.takeSaid() };
    }
  }

  #answer(question: Asked): Answer {
    this.#atMs = question.atMs;
    if (question.kind === "closed") {
      this.#flows.delete(question.flow.id);
      return {};
    }
    if (question.kind === "tick") {
      const { onTick } = this.#policy;
      if (onTick === undefined) return {};
      this.#drawFrom(this.#tickKey, this.#ticks++);
      return answerOf("onTick", onTick(question.stats, this.#ctx));
    }
    const hook: HookName = HOOK_OF[question.kind];
    if (this.#policy[hook] === undefined) return {};
    const known = this.#flow(question.flow);
    this.#drawFrom(known.key, known.questions++);
    if (question.kind === "flow") return answerOf(hook, this.#policy.onFlow?.(known.flow, this.#ctx));
    return answerOf(hook, this.#policy.onOp?.({ ...question.op, flow: known.flow }, this.#ctx));
  }

  #flow(facts: FlowFacts): KnownFlow {
    const known = this.#flows.get(facts.id);
    if (known !== undefined) {
      // More may be known of it by now, such as the name in its ClientHello.
      if (known.flow.peer !== facts.peer) known.flow = { ...known.flow, peer: facts.peer };
      return known;
    }
    const flow: Flow = { ...facts, state: this.#policy.flowState?.() ?? {} };
    const made = { flow, key: drawKey(this.#load.seed, facts.id), questions: 0 };
    this.#flows.set(facts.id, made);
    return made;
  }

  /** Most questions draw nothing: the generator is made by the first draw. */
  #drawFrom(key: DrawKey, question: number): void {
    this.#random = () => {
      this.#random = draws(key, question);
      return this.#random();
    };
  }

  #begin(old: Instance | undefined): object {
    const { onReload, state } = this.#policy;
    if (old !== undefined && onReload !== undefined) return onReload(old.#ctx.state);
    return state?.() ?? {};
  }

  #context({ options, policies, seed }: LoadOptions, state: object): Context {
    const say = (said: Said): void => {
      if (this.#said.length < MAX_SAID) this.#said.push(said);
    };
    const metric = (kind: "count" | "gauge", name: unknown, value: unknown): void => {
      if (typeof name !== "string" || name === "" || typeof value !== "number" || !Number.isFinite(value)) {
        throw new TypeError(`ctx.metrics.${kind} takes a name and a number, such as ("retries", 1)`);
      }
      say({ kind, name: name.slice(0, MAX_SAID_CHARACTERS), value });
    };
    const fields = Object.entries(policies).map(([name, written]): [string, PolicyFields] => [
      name,
      toCamelKeys(written),
    ]);
    return Object.freeze({
      random: () => this.#random(),
      now: () => this.#atMs,
      log: (...words: unknown[]) => {
        say({ kind: "log", text: formatWithOptions({ colors: false }, ...words).slice(0, MAX_SAID_CHARACTERS) });
      },
      metrics: Object.freeze({
        count: (name: string, by = 1) => metric("count", name, by),
        gauge: (name: string, value: number) => metric("gauge", name, value),
      }),
      policies: Object.freeze(Object.fromEntries(fields)),
      preset: (name: string): Faults => {
        const { schedule: _, ...faults } = toCamelKeys(loadPreset(name).written);
        return faults;
      },
      options: Object.freeze({ ...options }),
      state,
      seed,
    });
  }
}
