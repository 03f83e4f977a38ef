/**
 * Connection pools. A kept-alive connection belongs to whoever opened it, so a context that shared one would fault others
 * or miss its own. A context brings pools whose connections are all opened inside it, whoever triggers them; and the
 * pools that Node has for everybody are kept apart by policy.
 */

import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import type { Agent as UndiciAgent } from "undici";
import { wrap } from "./opening.js";

type Undici = typeof import("undici");
/** Runs something inside the context. */
type Within = <Result>(open: () => Result) => Result;

/** What keeps shared pools apart: the policy of the current flow by index, and running something under one. */
export interface Placement {
  current(): number | undefined;
  within<Result>(policy: number | undefined, open: () => Result): Result;
}

const require = createRequire(import.meta.url);

/** Pools made when first asked for. */
export class Pools {
  readonly #within: Within;
  #agents: { readonly http: http.Agent; readonly https: https.Agent } | undefined;
  #dispatcher: UndiciAgent | undefined;
  #fetch: typeof fetch | undefined;

  constructor(within: Within) {
    this.#within = within;
  }

  get agent(): { readonly http: http.Agent; readonly https: https.Agent } {
    this.#agents ??= {
      http: this.#opensWithin(new http.Agent({ keepAlive: true })),
      https: this.#opensWithin(new https.Agent({ keepAlive: true })),
    };
    return this.#agents;
  }

  get dispatcher(): UndiciAgent {
    if (this.#dispatcher === undefined) {
      const { Agent, buildConnector } = loadUndici();
      const connect = buildConnector({});
      const within = this.#within;
      this.#dispatcher = new Agent({ connect: (options, callback) => within(() => connect(options, callback)) });
    }
    return this.#dispatcher;
  }

  get fetch(): typeof fetch {
    this.#fetch ??= fetchOver(this.dispatcher);
    return this.#fetch;
  }

  /** Idle connections close now, the others after the request they carry. */
  close(): void {
    for (const agent of this.#agents === undefined ? [] : [this.#agents.http, this.#agents.https]) {
      agent.maxFreeSockets = 0;
      for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
    }
    this.#dispatcher?.close().catch(() => {}); // closed by its user already
  }

  #opensWithin<Pool extends http.Agent>(agent: Pool): Pool {
    const open: unknown = Reflect.get(agent, "createConnection");
    if (typeof open === "function") {
      const within = this.#within;
      Reflect.set(agent, "createConnection", (...args: unknown[]) => within(() => Reflect.apply(open, agent, args)));
    }
    return agent;
  }
}

/**
 * Keeps connections that Node's own clients hold for later apart by policy, so that none opened inside a context is used
 * outside it, or the other way round.
 */
export function keepPoolsApart(placement: Placement): void {
  divideAgents(placement);
  divideFetch(placement);
}

/** `node:http` and `node:https`: an agent looks for a connection by the name of what is asked for. */
function divideAgents({ current, within }: Placement): void {
  const openedUnder = Symbol("policy");
  // An agent asks again when the connection is free or gone, maybe elsewhere; its options keep the first answer.
  const policyOf = (options: unknown): number | undefined => {
    if (typeof options !== "object" || options === null) return undefined;
    if (!Reflect.has(options, openedUnder)) Reflect.set(options, openedUnder, current());
    const policy: unknown = Reflect.get(options, openedUnder);
    return typeof policy === "number" ? policy : undefined;
  };
  wrap(
    http.Agent.prototype,
    "getName",
    (getName) =>
      function (this: unknown, ...args) {
        const [options] = args;
        const name = Reflect.apply(getName, this, args);
        const policy = policyOf(options);
        return policy === undefined ? name : `${String(name)}:policy-${String(policy)}`;
      },
  );
  // A request that waited gets its connection when another one ends, in that one's flow.
  wrap(
    http.Agent.prototype,
    "createSocket",
    (createSocket) =>
      function (this: unknown, ...args) {
        const [, options] = args;
        const policy = policyOf(options);
        const open = (): unknown => Reflect.apply(createSocket, this, args);
        return policy === current() ? open() : within(policy, open);
      },
  );
}

/** The global `fetch`: inside a context it uses another dispatcher like the one it has, one for each policy. */
function divideFetch({ current }: Placement): void {
  if (Object.keys(globalThis.fetch).length > 0) return; // a mock: functions of Node have no properties of their own
  wrap(
    globalThis,
    "fetch",
    (fetchAnywhere) =>
      function (this: unknown, ...args) {
        const [input, given] = args;
        const init: object = typeof given === "object" && given !== null ? given : {};
        const policy = current();
        const dispatcher = policy === undefined ? undefined : dispatcherLikeGlobal(policy);
        // What the caller says of its own comes last, and holds.
        return Reflect.apply(fetchAnywhere, this, dispatcher === undefined ? args : [input, { dispatcher, ...init }]);
      },
  );
}

/** By the global dispatcher that they are like, which a program may change, and policy. */
const divided = new WeakMap<object, Map<number, object>>();

/** Undefined where the program has put something of its own in the place of undici's agent, such as a mock or a proxy. */
function dispatcherLikeGlobal(policy: number): object | undefined {
  void Response; // naming it loads Node's undici, which then is there to be found
  const agent: unknown = Reflect.get(globalThis, Symbol.for("undici.globalDispatcher.1"));
  if (typeof agent !== "object" || agent === null || agent.constructor.name !== "Agent") return undefined;
  const byPolicy = divided.get(agent) ?? new Map<number, object>();
  divided.set(agent, byPolicy);
  const dispatcher = byPolicy.get(policy) ?? anotherLike(agent);
  byPolicy.set(policy, dispatcher);
  return dispatcher;
}

/** An agent of the same class and options. */
function anotherLike(agent: object): object {
  const options = Object.getOwnPropertySymbols(agent).find(({ description }) => description === "options");
  return Reflect.construct(agent.constructor, [options === undefined ? {} : Reflect.get(agent, options)]);
}

function fetchOver(dispatcher: UndiciAgent): typeof fetch {
  const undici = loadUndici();
  const call = (input: unknown, init: object = {}): unknown => {
    const asked = input instanceof Request ? undiciRequest(undici, input) : input;
    return Reflect.apply(undici.fetch, undefined, [asked, { ...init, dispatcher }]);
  };
  return call as typeof fetch; // undici declares Node's fetch a second time, in types of its own
}

/** undici takes its own `Request` only; Node's has the same properties. */
function undiciRequest({ Request: UndiciRequest }: Undici, request: Request): object {
  return Reflect.construct(UndiciRequest, [request.url, request]);
}

/** Loaded when first used: most programs bring their own client. */
function loadUndici(): Undici {
  return require("undici") as Undici;
}
