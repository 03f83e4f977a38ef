/**
 * What the outside asks a script and what comes back: facts about flows, ops and time one way, answers in the form of
 * policy files the other. All of it is plain data, because it crosses threads and processes; what comes out of the host is
 * checked again by whoever uses it.
 */

import type { PolicyInput } from "../policy/index.js";
import type { Flow, Op, Stats, ValidFor } from "./index.js";

/** The host's end of the control channel. */
export const CONTROL_FD = 3;
/** Where the host asks the broker. */
export const BROKER_FD = 4;
/** Where the host is given the mailbox. */
export const MAILBOX_FD = 5;

/** A flow as the outside knows it. */
export type FlowFacts = Omit<Flow, "state">;

/** An op as the outside knows it. */
export type OpFacts = Omit<Op, "flow">;

/** A flow from its identity in words, as far as they say. */
export function flowFactsOf(words: string, openedAtMs: number): FlowFacts {
  const [, protocol = "tcp", peer = words, ordinal = "1", thread = "0"] =
    /^(tcp|udp|unix|dns):(.*?)(?:#(\d+))?@(.*)$/.exec(words) ?? [];
  const [, address = peer, port = "0"] = /^(.*):(\d+|\*)$/.exec(peer) ?? [];
  return {
    id: words,
    protocol: protocol === "udp" || protocol === "unix" ? protocol : "tcp",
    role: "client",
    peer: { address, port: Number(port) || 0 },
    ordinal: Number(ordinal),
    thread,
    openedAtMs,
  };
}

/** Flows of a run in numbers, the doubles of the addon's `flowCounts` in base64: there are many, ten times a second. */
export type FlowCounts = string;

/** One question; `atMs` is when, in milliseconds since the run began. */
export type Question =
  | { readonly kind: "flow"; readonly atMs: number; readonly flow: FlowFacts }
  | { readonly kind: "op"; readonly atMs: number; readonly flow: FlowFacts; readonly op: OpFacts }
  | { readonly kind: "tick"; readonly atMs: number; readonly stats: Stats }
  /** The same from a run, whose flows the worker knows that was asked about them. */
  | { readonly kind: "run_tick"; readonly atMs: number; readonly counts: FlowCounts }
  /** A flow closed, and its state may go. Has no answer. */
  | { readonly kind: "closed"; readonly atMs: number; readonly flow: FlowFacts };

/** One question as the script's hooks get it. */
export type Asked = Exclude<Question, { kind: "run_tick" }>;

/** Answered faults, in the form of policy files. */
export interface Answer {
  /** Undefined where the policy's own fields apply. */
  readonly fields?: PolicyInput;
  /** Left out where it is for this question alone (an op), or for the flow (onFlow). */
  readonly validFor?: ValidFor;
  /** onTick: the run's policies that change. */
  readonly policies?: Readonly<Record<string, PolicyInput>>;
}

/** What is wrong with a script, and where. */
export interface ScriptProblem {
  /** One sentence. */
  readonly message: string;
  readonly file?: string;
  /** From 1. */
  readonly line?: number;
  /** From 1. */
  readonly column?: number;
}

/** What a script said and counted meanwhile, in its order. */
export type Said =
  | { readonly kind: "log"; readonly text: string }
  | { readonly kind: "count" | "gauge"; readonly name: string; readonly value: number };

/** What comes back. */
export interface Reply {
  /** Without any field where there is a problem. */
  readonly answer: Answer;
  readonly problem?: ScriptProblem;
  readonly said: readonly Said[];
}

export const HOOKS = ["onFlow", "onOp", "onTick", "onReload"] as const;
export type HookName = (typeof HOOKS)[number];

/** Where hooks are written. */
export type HookPlaces = Readonly<Partial<Record<HookName, ScriptProblemPlace>>>;
export type ScriptProblemPlace = Required<Pick<ScriptProblem, "file" | "line" | "column">>;

/** A script that loaded. */
export interface Loaded {
  readonly name: string;
  readonly tickMs: number;
  readonly hooks: HookPlaces;
}

/** What a script is loaded with. */
export interface LoadOptions {
  /** Its absolute path. */
  readonly script: string;
  /** The files that it is made of, by real path: what they hold now, whatever becomes of them. */
  readonly sources: Readonly<Record<string, string>>;
  readonly seed: string;
  readonly options: Readonly<Record<string, string>>;
  /** The run's policies, in the form of policy files. */
  readonly policies: Readonly<Record<string, PolicyInput>>;
  readonly limits: Limits;
  /** The environment's variables that the script may know. */
  readonly variables: Readonly<Record<string, string>>;
  /** Lanes of the mailbox through which programs ask, a worker each; 0: there is no mailbox. */
  readonly lanes: number;
  /** Whether what programs are answered is told: somebody records it. */
  readonly recorded: boolean;
}

/** What a script may take. */
export interface Limits {
  /** Until it has loaded, in milliseconds. */
  readonly loadMs: number;
  /** Until a hook has returned, in milliseconds; the run itself goes on without an answer long before. */
  readonly hookMs: number;
  /** Of the worker's heap, in megabytes. */
  readonly memoryMb: number;
}

export const DEFAULT_LIMITS: Limits = { loadMs: 5000, hookMs: 1000, memoryMb: 128 };

/** The hook that a question is for. */
export const HOOK_OF = { flow: "onFlow", op: "onOp", tick: "onTick", run_tick: "onTick", closed: "onFlow" } as const;

/** To the host, a line of JSON each. */
export type Order =
  | { readonly id: number; readonly kind: "load"; readonly load: LoadOptions }
  | { readonly id: number; readonly kind: "reload"; readonly sources: LoadOptions["sources"] }
  /** From now on programs are answered, too. */
  | { readonly id: number; readonly kind: "serve" }
  /** What came of that and was not told yet is told, before the report. */
  | { readonly id: number; readonly kind: "flush" }
  | { readonly id: number; readonly kind: "ask"; readonly question: Question };

/** From the host, a line of JSON each. */
export type Report =
  | { readonly id: number; readonly kind: "loaded"; readonly loaded: Loaded; readonly said: readonly Said[] }
  | { readonly id: number; readonly kind: "failed"; readonly problem: ScriptProblem }
  | { readonly id: number; readonly kind: "reply"; readonly reply: Reply }
  | { readonly id: number; readonly kind: "serving" | "flushed" }
  /** What came of answering programs since the last such line, and what went wrong between questions. */
  | { readonly kind: "news"; readonly news: News };

/** An answer, as journals and recordings know it. */
export interface NumberedAnswer {
  /** As in an event: the row, and from bit 12 on its generation. */
  readonly value: number;
  readonly fields: PolicyInput;
}

/** What a script did while programs were answered. */
export interface News {
  /** Answers that were not told before, by what journals call them. */
  readonly answers: readonly NumberedAnswer[];
  readonly problems: readonly { readonly problem: ScriptProblem; readonly times: number }[];
  readonly said: readonly Said[];
}

/** A problem as a person reads it: `file:line:column: sentence`. */
export function problemText({ file, line, column, message }: ScriptProblem): string {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return place === "" ? message : `${place}: ${message}`;
}
