/**
 * Evidence: for each fault that was asked for, what was asked and what was delivered, from counters and clock readings
 * that the interceptor kept where it applied it; and everything that limits what these numbers say. A fault asked for
 * and never applied is a note, never silence. Only reads; text.ts prints.
 */

import type { AskedFault, Direction, Policy } from "../policy/index.js";
import type { HistogramReading, PolicyCounters, RunCounters } from "./counters.js";
import type {
  Accounts,
  Attached,
  CoverageRow,
  Determinism,
  EscapedFlow,
  Evidence,
  FaultEvidence,
  Replay,
  ScriptEvidence,
} from "./schema.js";

/** What is known about a run beside its counters. */
export interface RunFacts {
  readonly version: string;
  readonly command: readonly string[];
  readonly seed: bigint;
  readonly exitCode: number;
  readonly durationMs: number;
  /** The run's own policy first. */
  readonly policies: readonly PolicyFacts[];
  readonly escaped: readonly EscapedFlow[];
  /** Why the program itself could not be intercepted, in words. */
  readonly unreachable: string | undefined;
  /** Anything else worth saying. */
  readonly notes: readonly string[];
  /** Where what happens was decided beforehand. */
  readonly replay?: Replay | undefined;
  /** Where a script was asked. */
  readonly script?: ScriptEvidence | undefined;
  /** Where it ran already. */
  readonly attached?: Attached | undefined;
  /** And what the kernel did to connections that were there before. */
  readonly before?: readonly FaultEvidence[] | undefined;
  /** What carried faults out; default: the interceptor. */
  readonly executor?: Executor | undefined;
  /** Where the kernel's witness was there to the end. */
  readonly kernel?: KernelFacts | undefined;
}

/** What carried decisions out. */
export type Executor = Exclude<FaultEvidence["executor"], "kernel">;

/** What the kernel's witness says of a run. */
export interface KernelFacts {
  readonly coverage: readonly CoverageRow[];
  readonly accounts: { readonly uplink: Accounts; readonly downlink: Accounts };
  /** Where it and the interceptor contradict each other, in words. */
  readonly disagreements: readonly string[];
  /** What it saw of a fault; undefined where it cannot tell. */
  witnessed(asked: AskedFault, policy: PolicyFacts): Witnessed | undefined;
}

/** What the kernel saw of a fault. */
export interface Witnessed
  extends Pick<FaultEvidence, "witnessed" | "witnessed_ppm" | "witnessed_p50_ns" | "witnessed_p99_ns"> {
  /** Why that cannot be what was delivered, in words. */
  readonly disagreement?: string | undefined;
}

/** A policy, and what it did. */
export interface PolicyFacts {
  /** Undefined for the policy that the flags made. */
  readonly name?: string | undefined;
  readonly policy: Policy;
  /** Its places in the segment. */
  readonly slots: readonly number[];
  readonly asked: readonly AskedFault[];
  readonly counters: PolicyCounters;
}

type Basis = "ops" | "data ops" | "receives" | "units" | "connects" | "lookups" | "calls";

/** What a fault is counted against, and whether chance decides it; by the schema's key, without its direction. */
const KINDS: Readonly<Record<string, { basis: Basis; chance?: true; never: string }>> = {
  latency: { basis: "ops", never: "no flow carried it" },
  jitter: { basis: "ops", never: "no flow carried it" },
  rate: { basis: "data ops", never: "the traffic stayed below it" },
  packet_loss: { basis: "units", chance: true, never: "chance spared every unit" },
  burst_loss: { basis: "units", chance: true, never: "no loss began a burst" },
  correlated_loss: { basis: "units", chance: true, never: "chance spared every unit" },
  packet_duplicate: { basis: "units", chance: true, never: "chance spared every unit" },
  packet_reorder: { basis: "units", chance: true, never: "no later unit overtook a held one" },
  connection_error: { basis: "connects", chance: true, never: "chance spared every connection" },
  "timeout.connect": { basis: "connects", never: "every connect was done in time" },
  "timeout.recv": { basis: "receives", never: "no receive waited that long" },
  "dns.delay": { basis: "lookups", never: "no lookup carried it" },
  "dns.timeout": { basis: "lookups", never: "no lookup met it" },
  "dns.nxdomain": { basis: "lookups", chance: true, never: "chance spared every lookup" },
  session_budget: { basis: "ops", never: "no flow went past it" },
  half_open: { basis: "ops", never: "no flow carried that many bytes" },
  payload_mutation: { basis: "calls", chance: true, never: "no call passed its gates" },
};

const DIRECTIONS: readonly Direction[] = ["uplink", "downlink"];

/** The key without its direction: `rate` for `uplink.rate`. */
export function baseKey(fault: string): string {
  return fault.replace(/^(uplink|downlink)\./, "");
}

function kindOf(asked: AskedFault, policy: Policy): { basis: Basis; chance?: true; never: string } {
  const kind = KINDS[baseKey(asked.fault)] ?? { basis: "ops", never: "no flow carried it" };
  const resets = asked.fault === "connection_error" && policy.fields.connection_error?.kind === "reset";
  return resets ? { basis: "units", chance: true, never: "chance spared every unit" } : kind;
}

function basisCount(basis: Basis, directions: readonly Direction[], counters: PolicyCounters): number {
  const sum = (of: (direction: Direction) => number): number => directions.reduce((all, each) => all + of(each), 0);
  const ops = (direction: Direction): number => counters.ops[direction] - counters.gatedOps[direction];
  switch (basis) {
    case "ops":
      return sum((direction) => ops(direction) + counters.connects);
    case "data ops":
      return sum(ops);
    case "receives":
      return ops("downlink");
    case "units":
      return sum((direction) => counters.units[direction] - counters.gatedUnits[direction]);
    case "connects":
      return counters.connects + counters.datagramSends;
    case "lookups":
      return counters.lookups;
    case "calls":
      // Every send and receive passes the payload stage; it may count for itself which of them it looked at.
      return sum(ops);
  }
}

function faultEvidence(
  asked: AskedFault,
  { name, policy, counters }: PolicyFacts,
  executor: Executor = "interceptor",
): FaultEvidence {
  const kind = kindOf(asked, policy);
  const applied = asked.directions.reduce((all, each) => all + counters.applied(asked.faultBit, each), 0);
  // An op under way when the program ended is applied but not yet counted as one.
  const of = Math.max(applied, basisCount(kind.basis, asked.directions, counters));
  const evidence: FaultEvidence = {
    ...(name !== undefined && { policy: name }),
    fault: asked.fault,
    asked: asked.asked,
    applied,
    of,
    executor,
  };
  if (kind.chance && of > 0) evidence.delivered_ppm = Math.round((applied / of) * 1e6);
  const times: HistogramReading | undefined = counters.times(asked.faultBit, asked.directions);
  if (times !== undefined && times.count > 0) {
    evidence.p50_ns = Math.round(times.quantileNs(0.5));
    evidence.p99_ns = Math.round(times.quantileNs(0.99));
  }
  return evidence;
}

const TERMINAL = ["drop", "timeout", "error", "nxdomain"];

/**
 * What each stage decided. Every unit, connect and lookup comes to the first stage and goes on until one ends it, so that
 * `continue` is what reached a stage and met nothing there; what a schedule kept away from all of them was skipped by R0.
 */
function stagesOf(counters: PolicyCounters): Evidence["stages"] {
  const gated = counters.gatedOps.uplink + counters.gatedOps.downlink;
  let reached = counters.units.uplink + counters.units.downlink + counters.connects + counters.lookups;
  const stages: Evidence["stages"] = {};
  for (const [stage, counted] of Object.entries(counters.verdicts)) {
    const met = Object.entries(counted).filter(([, many]) => many > 0);
    const hits = met.reduce((sum, [, many]) => sum + many, 0);
    stages[stage] = { continue: Math.max(0, reached - hits), ...Object.fromEntries(met) };
    if (stage === "resolve" && gated > 0) stages[stage].skipped = gated;
    reached -= met.filter(([verdict]) => TERMINAL.includes(verdict)).reduce((sum, [, many]) => sum + many, 0);
  }
  return stages;
}

/** Why a fault was never applied, as far as it is known. */
function neverApplied(
  asked: AskedFault,
  of: number,
  { policy, counters }: PolicyFacts,
  run: RunCounters,
  facts: RunFacts,
): string {
  if (facts.unreachable !== undefined && run.attached === 0)
    return `the program is not intercepted: ${facts.unreachable}`;
  if (run.attached === 0 && (facts.executor ?? "interceptor") === "interceptor")
    return "the program never loaded the interceptor";
  const kind = kindOf(asked, policy);
  if (kind.basis === "lookups" && of === 0) return "no name was looked up";
  if (run.flows === 0) return facts.escaped.length > 0 ? "every flow escaped" : "the program opened no network flow";
  if (of > 0) return kind.never;
  const gated = DIRECTIONS.some((direction) => counters.gatedOps[direction] > 0);
  if (gated && policy.fields.schedule === undefined) return "the other end of its flows carried it";
  if (gated) return "its schedule was off while there was traffic";
  if (policy.fields.targets !== undefined) return "its targets matched no flow";
  if (kind.basis === "connects") return "no connection was made";
  return "no flow carried it";
}

/** Asked for as nothing (`0ms`, `0%`): then never applied is what was asked. */
function isZero({ fault }: AskedFault, policy: Policy): boolean {
  const value = fault.split(".").reduce<unknown>((at, key) => {
    return typeof at === "object" && at !== null ? (at as Record<string, unknown>)[key] : undefined;
  }, policy.fields);
  if (typeof value === "object" && value !== null && "prob" in value) return value.prob === 0;
  return value === 0;
}

function determinismOf(
  counters: RunCounters,
  policies: readonly PolicyFacts[],
  replay?: Replay,
  script?: ScriptEvidence,
): Determinism {
  if (replay !== undefined) return replayed(replay, policies);
  const unanswered = script === undefined ? 0 : script.late + script.unserved;
  if (unanswered > 0) {
    return { level: "statistical", reason: `${unanswered} questions to the script were not answered in time` };
  }
  const drawing = policies.some(({ policy, asked }) =>
    asked.some((fault) => kindOf(fault, policy).chance || baseKey(fault.fault) === "jitter"),
  );
  if (!drawing) return { level: "exact", reason: "no fault that was asked for draws on chance" };
  if (counters.determinism & UNNUMBERED) {
    return {
      level: "statistical",
      reason: "a thread or process could not be numbered, so its flows are not recognised again",
    };
  }
  if (counters.determinism & (RACED | TURNED)) {
    const what = counters.determinism & RACED ? "two calls of one flow ran at once" : "a conversation turned under way";
    return { level: "statistical", reason: `${what}, so that its units may fall differently another time` };
  }
  if (counters.sharedPeers) {
    return {
      level: "per flow",
      reason: "several threads opened flows to one peer: each flow repeats, which thread opens which may not",
    };
  }
  return { level: "exact", reason: "every draw hung on the identity of its flow, and no race was seen" };
}

/** In a replay nothing is drawn: what limits it is what the program did, and the clock. */
function replayed({ divergence, met, decisions }: Replay, policies: readonly PolicyFacts[]): Determinism {
  if (divergence !== undefined) {
    return {
      level: "per flow",
      reason: `${met} of ${decisions} decisions were met: the program did otherwise than before`,
    };
  }
  const clocked = policies.some(({ asked }) => asked.some(({ fault }) => CLOCKED.has(baseKey(fault))));
  const but = clocked ? "; how long a rate or a timeout made it wait hangs on the clock" : "";
  return { level: "exact", reason: `every decision was made beforehand, and met again by flow and unit${but}` };
}

/** Carried out by the clock, from the policy. */
const CLOCKED: ReadonlySet<string> = new Set(["rate", "timeout.connect", "timeout.recv"]);

/** Bits of the header's `determinism`. */
const RACED = 1;
const TURNED = 2;
const UNNUMBERED = 4;

const FALLBACK_WORDS: Readonly<Record<string, string>> = {
  bad_segment: "the shared memory did not check out",
  row_busy: "the policy was being written",
  bad_index: "an index in shared memory lay outside its region",
  table_full: "a table of the segment was full",
  stale_descriptor: "a descriptor was reused behind the interceptor's back",
  reentered: "a call came from a signal handler or from inside the interceptor",
  no_memory: "there was no memory to hold bytes",
  unsupported: "the call cannot carry that fault",
};

function counterNotes(counters: RunCounters): string[] {
  const notes: string[] = [];
  const say = (many: number, text: (count: string) => string): void => {
    if (many > 0) notes.push(text(String(many)));
  };
  for (const [reason, many] of Object.entries(counters.fallbacks)) {
    say(many, (n) =>
      reason === "no_courier"
        ? `${n} delays were waited for inside calls, because the courier could not be reached`
        : `${n} calls passed through unfaulted: ${FALLBACK_WORDS[reason] ?? reason}`,
    );
  }
  say(
    counters.ioUringDenied,
    (n) => `io_uring was refused ${n} times, so that the program used calls that are intercepted`,
  );
  say(counters.journalDropped, (n) => `the journal lost ${n} events because its ring was full`);
  say(counters.all.lostHeldBytes, (n) => `${n} bytes under way were lost with the process that held them`);
  if (counters.shrunk) notes.push("the shared memory was made smaller than usual, because /dev/shm is nearly full");
  if (counters.damage !== undefined)
    notes.push(`the shared memory was damaged during the run: ${counters.damage}; calls passed through unfaulted`);
  return notes;
}

/**
 * A policy's faults, asked against delivered; a sentence for each that was asked for and never applied, and one for each
 * that the kernel contradicts.
 */
function policyEvidence(
  facts: RunFacts,
  run: RunCounters,
  of: PolicyFacts,
): { faults: FaultEvidence[]; silent: string[]; loud: string[] } {
  const loud: string[] = [];
  const faults = of.asked.map((asked) => {
    const { disagreement, ...witnessed } = facts.kernel?.witnessed(asked, of) ?? {};
    if (disagreement !== undefined) loud.push(disagreement);
    return { ...faultEvidence(asked, of, facts.executor), ...witnessed };
  });
  const silent = of.asked.flatMap((asked, at) => {
    const evidence = faults[at];
    if (evidence === undefined || evidence.applied > 0 || isZero(asked, of.policy)) return [];
    const what = of.name === undefined ? asked.fault : `${asked.fault} of ${of.name}`;
    return [`${what} was asked for and never applied: ${neverApplied(asked, evidence.of, of, run, facts)}`];
  });
  return { faults, silent, loud };
}

/** Puts a run's evidence together from its counters and what else is known. */
export function buildEvidence(facts: RunFacts, counters: RunCounters): Evidence {
  const policies = facts.policies.map((policy) => policyEvidence(facts, counters, policy));
  return {
    version: facts.version,
    command: [...facts.command],
    seed: `0x${facts.seed.toString(16)}`,
    determinism: determinismOf(counters, facts.policies, facts.replay, facts.script),
    ...(facts.attached !== undefined && { attached: facts.attached }),
    ...(facts.replay !== undefined && { replay: facts.replay }),
    ...(facts.script !== undefined && { script: facts.script }),
    exit_code: facts.exitCode,
    duration_ms: Math.round(facts.durationMs),
    flows: counters.flows,
    ops: counters.totalOps,
    faults: [...policies.flatMap(({ faults }) => faults), ...(facts.before ?? [])],
    stages: stagesOf(counters.all),
    escaped: facts.escaped.map(({ peer, pid, program, reason }) => ({ peer, pid, program, reason })),
    ...(facts.kernel !== undefined && { coverage: [...facts.kernel.coverage], accounts: facts.kernel.accounts }),
    fallbacks: Object.fromEntries(Object.entries(counters.fallbacks).filter(([, many]) => many > 0)),
    notes: [
      ...policies.flatMap(({ loud }) => loud),
      ...(facts.kernel?.disagreements ?? []),
      ...facts.notes,
      ...counterNotes(counters),
      ...policies.flatMap(({ silent }) => silent),
    ],
  };
}

/** What a fault's `of` counts, as a person says it. */
export function basisNoun(fault: FaultEvidence): string {
  if (fault.executor === "kernel") return "earlier connection";
  const basis = KINDS[baseKey(fault.fault)]?.basis ?? "ops";
  if (fault.fault === "connection_error" && fault.asked.startsWith("reset")) return "unit";
  if (basis === "data ops") return "op";
  return basis.replace(/s$/, "");
}
