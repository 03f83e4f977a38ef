/**
 * Contexts: which policy holds for what an asynchronous flow does. They follow AsyncLocalStorage. Each entry is a cell;
 * a disposed cell defers to the one it was entered in, so that flows which still carry it are right too.
 */

import "./dispose.js";
import { AsyncLocalStorage } from "node:async_hooks";
import type { Agent as HttpAgent } from "node:http";
import type { Agent as HttpsAgent } from "node:https";
import { types } from "node:util";
import type { Agent as UndiciAgent } from "undici";
import { type Policy, PolicyError, type PolicyFields, parseFields } from "../policy/index.js";
import { native, type Segment } from "../segment/index.js";
import { requireSegment } from "./inside.js";
import { watchOpenings } from "./opening.js";
import { keepPoolsApart, Pools } from "./pools.js";
import { dropInline, holdInline, inlineKey, policyIndex, requirePolicy } from "./registry.js";

/** What a context holds. Where it is in force it has an index, looked up when a socket is opened. */
export interface Source {
  enter(segment: Segment): void;
  leave(segment: Segment): void;
  index(segment: Segment): number | undefined;
}

interface Cell {
  readonly source: Source;
  readonly segment: Segment;
  readonly parent: Cell | undefined;
  live: boolean;
}

const storage = new AsyncLocalStorage<Cell | undefined>();
let followed = false;

/** A policy by its name: nothing is in force while no policy has it. */
export function namedSource(name: string): Source {
  return {
    enter: () => {},
    leave: () => {},
    index: (segment) => policyIndex(segment, name),
  };
}

/** A policy by its index, as bindings know it. */
export function indexSource(index: number): Source {
  return { enter: () => {}, leave: () => {}, index: () => index };
}

/** Fields of their own, registered while something is inside. */
export function inlineSource(fields: PolicyFields, policy: () => Policy = () => parseFields(fields)): Source {
  const key = inlineKey(fields);
  let index: number | undefined;
  return {
    enter: (segment) => {
      index = holdInline(segment, key, policy);
    },
    leave: (segment) => dropInline(segment, key),
    index: () => index,
  };
}

/** A context that was entered. Leaving it restores what held before and closes its pools. */
export class PolicyContext implements Disposable, AsyncDisposable {
  readonly #cell: Cell | undefined;
  readonly #pools: Pools;

  /** @internal */
  constructor(cell: Cell | undefined) {
    this.#cell = cell;
    this.#pools = new Pools((open) => storage.run(cell, open));
  }

  /** `fetch` by undici, over connections that only this context uses. Answers are undici's `Response`. */
  get fetch(): typeof fetch {
    return this.#pools.fetch;
  }

  /** Keep-alive agents for `http.request` and `https.request`. */
  get agent(): { readonly http: HttpAgent; readonly https: HttpsAgent } {
    return this.#pools.agent;
  }

  /** For undici's own calls: `request(url, { dispatcher: context.dispatcher })`. */
  get dispatcher(): UndiciAgent {
    return this.#pools.dispatcher;
  }

  /** Leaves the context. Requests under way end as they would; connections close after their last. */
  [Symbol.dispose](): void {
    if (this.#cell !== undefined) leave(this.#cell);
    this.#pools.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}

/**
 * Enters a context at once, for `using` or `await using`: it holds for the rest of the block and all that the block
 * starts. Code that goes on beside the block without awaiting it is inside too; where flows run side by side, take the
 * form with a callback.
 *
 * @param policy - the name of a policy, or the fields of one that is registered until the context is left
 * @throws PolicyError for a bad field or an unknown name, NotInterceptedError outside a run
 */
export function policyContext(policy: string | PolicyFields): PolicyContext;
/**
 * Runs a callback inside a context and leaves it when the callback has returned, its promise has settled, or it threw.
 *
 * @returns what the callback returns
 */
export function policyContext<Result>(
  policy: string | PolicyFields,
  callback: (context: PolicyContext) => Result,
): Result;
export function policyContext(policy: string | PolicyFields, callback?: unknown): unknown {
  if (callback === undefined) {
    const cell = enter(checkedSource(policy), "policyContext");
    if (cell !== undefined) storage.enterWith(cell);
    return new PolicyContext(cell);
  }
  if (typeof callback !== "function") {
    throw new PolicyError("policyContext", "takes a name or fields, not both, and after it a callback or nothing");
  }
  return runInside(checkedSource(policy), "policyContext", (context) => callback(context));
}

/** Runs `body` inside a context of its own. */
export function runInside<Result>(source: Source, what: string, body: (context: PolicyContext) => Result): Result {
  const cell = enter(source, what);
  const context = new PolicyContext(cell);
  const end = (): void => context[Symbol.dispose]();
  try {
    const result = cell === undefined ? body(context) : storage.run(cell, body, context);
    // The promise that settles after leaving is the one handed on, so that a rejection nobody handles is still reported.
    if (types.isPromise(result)) return result.finally(end) as Result; // a promise of the same, which no guard can say
    end();
    return result;
  } catch (error) {
    end();
    throw error;
  }
}

/** What the current flow is inside of. */
export function currentSource(): Source | undefined {
  return innermost()?.source;
}

/** Makes Node's openings of sockets and its lookups follow contexts and thread bindings, once a thread. */
export function followContexts(segment: Segment): void {
  if (followed) return;
  followed = true;
  const current = (): number | undefined => {
    const cell = innermost();
    return cell?.source.index(cell.segment);
  };
  watchOpenings({ sockets: current, lookups: () => current() ?? segment.boundPolicy(native.threadId()) });
  keepPoolsApart({
    current,
    within: (policy, open) => storage.run(policy === undefined ? undefined : fixed(segment, policy), open),
  });
}

/** A cell of its own around what has to happen under a policy, whatever the flow. */
function fixed(segment: Segment, policy: number): Cell {
  return { source: indexSource(policy), segment, parent: undefined, live: true };
}

function checkedSource(policy: string | PolicyFields): Source {
  if (typeof policy !== "string") return inlineSource(policy);
  const source = namedSource(policy);
  return { ...source, enter: (segment) => void requirePolicy(segment, policy, "policyContext") };
}

function enter(source: Source, what: string): Cell | undefined {
  const segment = requireSegment(what);
  if (segment === undefined) return undefined;
  followContexts(segment);
  source.enter(segment);
  return { source, segment, parent: innermost(), live: true };
}

function leave(cell: Cell): void {
  if (!cell.live) return;
  cell.live = false;
  cell.source.leave(cell.segment);
  if (storage.getStore() === cell) storage.enterWith(innermost());
}

function innermost(): Cell | undefined {
  let cell = storage.getStore();
  while (cell !== undefined && !cell.live) cell = cell.parent;
  return cell;
}
