/**
 * `mishap/script`: what a policy script imports. A script exports one policy, whose hooks answer questions about flows,
 * ops and time with policy fields; the types here are all there is to know, and docs/scripts.md shows them in use.
 */

import type { PolicyFields } from "../policy/camel.js";

export type { PolicyFields } from "../policy/camel.js";
export { PermissionDenied } from "./denied.js";

/**
 * The faults of one flow or one op, as a policy's fields. Which flow is known already, and chance is `ctx.random()`'s, so
 * that the fields `targets`, `decisions`, `schedule` and `seed` are not among them. `{}` asks for no faults.
 */
export type Faults = Omit<PolicyFields, "targets" | "decisions" | "schedule" | "seed">;

/** How long an answer to onOp stands, so that ops meanwhile need not ask: the flow's life, units of chance, or time. */
export type ValidFor = "op" | "flow" | { readonly units: number } | { readonly ms: number };

/** Faults that stand for longer than the op they answer. */
export interface StandingFaults {
  readonly fields: Faults;
  readonly validFor: ValidFor;
}

/** Who is at the other end. */
export interface Peer {
  /** An IP address, or a path where the protocol is unix. */
  readonly address: string;
  /** 0 where the protocol is unix. */
  readonly port: number;
  /** The name that was looked up for it, where one was. */
  readonly host?: string;
  /** The name that its ClientHello asked for, where one did. */
  readonly sni?: string;
}

/** A flow: a connection, or the datagrams of a socket to one peer. */
export interface Flow<FlowState = object> {
  /** Its identity, the same in every run of the same program, such as `tcp:127.0.0.1:8080#1@0`. */
  readonly id: string;
  readonly protocol: "tcp" | "udp" | "unix";
  /** Whether the program connected or accepted. */
  readonly role: "client" | "server";
  readonly peer: Peer;
  /** The how-manieth flow of its thread to this peer, from 1. */
  readonly ordinal: number;
  /** The thread that opened it, by who started whom: `0` is the program's first, `0.2` the second it started. */
  readonly thread: string;
  /** Milliseconds since the run began. */
  readonly openedAtMs: number;
  /** The script's own, from the policy's `flowState`; an empty object where it has none. */
  readonly state: FlowState;
}

/** Something that a program is about to do with a flow. */
export interface Op<FlowState = object> {
  readonly kind: "connect" | "send" | "recv" | "dns";
  /** `uplink` is from the program, `downlink` to it. */
  readonly direction: "uplink" | "downlink";
  /** 0 where the kind is connect or dns. */
  readonly bytes: number;
  /** Number of the unit of chance in the flow's direction, from 0. */
  readonly unit: number;
  readonly flow: Flow<FlowState>;
  /** The name being looked up, where the kind is dns. */
  readonly host?: string;
}

/** Sums over flows. */
export interface FlowTotals {
  readonly ops: number;
  readonly connects: number;
  /** Connects that failed. */
  readonly failed: number;
  readonly resets: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** One flow so far. */
export interface FlowStats extends FlowTotals {
  readonly id: string;
  readonly peer: Peer;
  readonly open: boolean;
}

/** A run so far. */
export interface Stats {
  readonly total: FlowTotals & { readonly flows: number; readonly open: number };
  /** Those open now, and those closed since the tick before. */
  readonly flows: readonly FlowStats[];
}

/** What onTick may change. */
export interface TickAnswer {
  /** Policies of the run, by name: their fields are replaced from now on. */
  readonly policies?: Readonly<Record<string, PolicyFields>>;
  /** The faults of every flow that no other hook answered for, from now on. */
  readonly own?: Faults;
}

/** What a hook may use besides its question. */
export interface Context<State = object> {
  /** At least 0 and below 1. Hangs on the seed, the flow and the number of its question, so that a run repeats. */
  random(): number;
  /** Milliseconds from the run's beginning to the question; stands still within a hook. */
  now(): number;
  /** Says something in the run's log. */
  log(...words: unknown[]): void;
  readonly metrics: {
    /** Adds to a counter. */
    count(name: string, by?: number): void;
    /** Sets a gauge. */
    gauge(name: string, value: number): void;
  };
  /** The policies of the run, by name. */
  readonly policies: Readonly<Record<string, PolicyFields>>;
  /** The fields of a ready-made policy (`mishap policy presets`). Throws for a name that there is not. */
  preset(name: string): Faults;
  /** What `--script-option name=value` gave. */
  readonly options: Readonly<Record<string, string>>;
  /** The script's own, from the policy's `state`. */
  readonly state: State;
  readonly seed: string;
}

/**
 * A policy that a script programs. Hooks answer at once: a promise is no answer. What a hook does not answer
 * (`undefined`) is left to the policy's own fields, those of the flags and of the policy's file.
 */
export interface ScriptPolicy<FlowState extends object = object, State extends object = object> {
  /** For evidence and logs. */
  readonly name: string;
  /** What `ctx.state` is at the start. */
  readonly state?: () => State;
  /** What `flow.state` is when a flow opens. */
  readonly flowState?: () => FlowState;
  /** A flow opens. Answered before its first byte. */
  readonly onFlow?: (flow: Flow<FlowState>, ctx: Context<State>) => Faults | undefined;
  /** A program is about to connect, send, receive or look up a name. */
  readonly onOp?: (op: Op<FlowState>, ctx: Context<State>) => Faults | StandingFaults | undefined;
  /** Every `tickMs`. */
  readonly onTick?: (stats: Stats, ctx: Context<State>) => TickAnswer | undefined;
  /** The script was edited: what `ctx.state` becomes. Without it a new version begins with its own `state`. */
  readonly onReload?: (old: unknown) => State;
  /** Milliseconds between ticks; 1000 where left out. */
  readonly tickMs?: number;
}

const HOOKS = ["onFlow", "onOp", "onTick", "onReload"] as const;
const FUNCTIONS = ["state", "flowState", ...HOOKS] as const;
const FIELDS: readonly string[] = ["name", "tickMs", ...FUNCTIONS];
const MIN_TICK_MS = 10;

const policies = new WeakSet<object>();

/** Makes the policy that a script exports: `export default policy({ name: "…", onFlow: … })`. Throws a TypeError. */
export function policy<FlowState extends object = object, State extends object = object>(
  written: ScriptPolicy<FlowState, State>,
): ScriptPolicy<FlowState, State> {
  // Scripts without types come here too.
  const given: Readonly<Record<string, unknown>> = { ...written };
  const unknown = Object.keys(given).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) throw new TypeError(`policy: unknown field ${unknown}; it takes ${FIELDS.join(", ")}`);
  if (typeof given.name !== "string" || given.name.trim() === "") {
    throw new TypeError('policy: name must be a text that is not empty, such as "brownout"');
  }
  for (const name of FUNCTIONS) {
    if (given[name] !== undefined && typeof given[name] !== "function") {
      throw new TypeError(`policy: ${name} must be a function, such as ${name}() { … }`);
    }
  }
  const { tickMs } = given;
  if (tickMs !== undefined && !(typeof tickMs === "number" && tickMs >= MIN_TICK_MS && Number.isFinite(tickMs))) {
    throw new TypeError(`policy: tickMs must be a number of milliseconds, ${MIN_TICK_MS} or more, such as 1000`);
  }
  const made = Object.freeze({ ...written });
  policies.add(made);
  return made;
}

/** Whether {@link policy} made this. */
export function isPolicy(value: unknown): value is ScriptPolicy {
  return typeof value === "object" && value !== null && policies.has(value);
}
