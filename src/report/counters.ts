/**
 * What evidence is made of, read at the end of a run or under way: the counters and histograms of policies and the
 * segment's own state, by name and direction.
 */

import type { Direction } from "../policy/index.js";
import { type Carried, layout, nameOf, numberOf, type Segment, type StructValue } from "../segment/index.js";

/** A number for each direction. */
export type PerDirection = Readonly<Record<Direction, number>>;

/** The part of a histogram that evidence reads. */
export interface HistogramReading {
  readonly count: number;
  quantileNs(q: number): number;
}

/** What one policy did, or several together. */
export interface PolicyCounters {
  readonly ops: PerDirection;
  readonly units: PerDirection;
  /** Carried while the schedule was off. */
  readonly gatedOps: PerDirection;
  readonly gatedUnits: PerDirection;
  readonly connects: number;
  /** Sends of datagram flows, which a refusal is drawn for as for a connect. */
  readonly datagramSends: number;
  readonly lookups: number;
  readonly lostHeldBytes: number;
  /** By stage and verdict, as counted: `continue` and `skipped` are for the reader to derive. */
  readonly verdicts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  applied(faultBit: number, direction: Direction): number;
  /** Delivered times; undefined for a fault that takes none. */
  times(faultBit: number, directions: readonly Direction[]): HistogramReading | undefined;
}

/** What a run did, whatever its policies. */
export interface RunCounters {
  /** Of all policies together. */
  readonly all: PolicyCounters;
  readonly flows: number;
  readonly totalOps: number;
  readonly fallbacks: Readonly<Record<string, number>>;
  readonly ioUringDenied: number;
  readonly journalDropped: number;
  readonly determinism: number;
  /** Several threads of one process opened flows to one and the same peer. */
  readonly sharedPeers: boolean;
  /** Processes that carried the interceptor. */
  readonly attached: number;
  readonly shrunk: boolean;
  /** What became wrong with the segment, in words. */
  readonly damage: string | undefined;
}

/** Reads what a run did. */
export function readRunCounters(segment: Segment): RunCounters {
  const damage = segment.check();
  const header = segment.header();
  const slots = segment.readPolicies().map(({ index }) => index);
  // The last slot has no policy of its own: it counts what earlier ones did whose slots were given to others.
  const all = readPolicyCounters(segment, [...new Set([...slots, segment.capacities.policies - 1])]);
  const totals = segment.totals();
  return {
    all,
    flows: totals.flows,
    totalOps: totals.ops + all.connects + all.lookups,
    fallbacks: namedFallbacks(header.fallbacks),
    ioUringDenied: Number(header.io_uring_denied),
    journalDropped: Number(header.journal_dropped),
    determinism: Number(header.determinism),
    sharedPeers: totals.flows > 0 && haveSharedPeers(segment.flows()),
    attached: segment.processes().filter(({ state }) => nameOf("ProcessState", state) !== "starting").length,
    shrunk: segment.shrunk,
    damage,
  };
}

/**
 * Reads what the policies of some slots did, together.
 *
 * @param flows - what flows carried; for who reads many policies, to be read once
 */
export function readPolicyCounters(
  segment: Segment,
  slots: readonly number[],
  flows: readonly Carried[] = segment.carried(),
): PolicyCounters {
  const stats = slots.map((slot) => segment.stats(slot));
  const carried = slots.flatMap((slot) => flows[slot] ?? []);
  const sum = (of: (each: StructValue) => unknown): number => stats.reduce((all, each) => all + Number(of(each)), 0);
  const perDirection = (of: (each: StructValue) => unknown): PerDirection => ({
    uplink: stats.reduce((all, each) => all + numberAt(of(each), 0), 0),
    downlink: stats.reduce((all, each) => all + numberAt(of(each), 1), 0),
  });
  const total = (of: "units" | "ops"): PerDirection => ({
    uplink: carried.reduce((all, each) => all + each[of][0], 0),
    downlink: carried.reduce((all, each) => all + each[of][1], 0),
  });
  return {
    ops: total("ops"),
    units: total("units"),
    gatedOps: perDirection(({ gated_ops }) => gated_ops),
    gatedUnits: perDirection(({ gated_units }) => gated_units),
    connects: sum(({ connects }) => connects),
    datagramSends: carried.reduce((all, each) => all + each.datagramSends, 0),
    lookups: sum(({ lookups }) => lookups),
    lostHeldBytes: sum(({ lost_held_bytes }) => lost_held_bytes),
    verdicts: namedVerdicts((at) => stats.reduce((all, { verdicts }) => all + numberAt(verdicts, at), 0)),
    applied: (faultBit, direction) => {
      const { directions = 2 } = layout.constants;
      const at = faultBit * directions + numberOf("Direction", direction);
      return stats.reduce((all, { applied }) => all + numberAt(applied, at), 0);
    },
    times: (faultBit, directions) => {
      const { timedFaults = 0 } = layout.constants;
      return faultBit >= timedFaults ? undefined : segment.histogram(slots, faultBit, directions);
    },
  };
}

/** Flows are numbered by thread and peer, so two that are alike but for their key were opened by two threads. */
function haveSharedPeers(flows: readonly StructValue[]): boolean {
  const seen = new Map<string, unknown>();
  for (const flow of flows) {
    const alike = [flow.pid, flow.role, flow.protocol, flow.peer, flow.peer_port, flow.name_hash, flow.ordinal].join(
      " ",
    );
    if (seen.has(alike) && seen.get(alike) !== flow.key) return true;
    seen.set(alike, flow.key);
  }
  return false;
}

function numberAt(values: unknown, at: number): number {
  return Array.isArray(values) ? Number(values[at] ?? 0) : 0;
}

function namedVerdicts(countAt: (at: number) => number): Record<string, Record<string, number>> {
  const verdicts = Object.entries(layout.enums.Verdict ?? {});
  return Object.fromEntries(
    Object.entries(layout.enums.Stage ?? {}).map(([stage, row]) => [
      stage,
      Object.fromEntries(verdicts.map(([verdict, at]) => [verdict, countAt(row * verdicts.length + at)])),
    ]),
  );
}

function namedFallbacks(values: unknown): Record<string, number> {
  return Object.fromEntries(
    Object.entries(layout.enums.Fallback ?? {}).map(([name, at]) => [name, numberAt(values, at)]),
  );
}
