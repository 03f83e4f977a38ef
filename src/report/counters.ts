/**
 * What evidence is made of, read once at the end of a run: the counters and histograms of its policy and the segment's
 * own state, by name and direction.
 */

import type { Direction } from "../policy/index.js";
import { codec, layout, nameOf, native, numberOf, type Segment, type StructValue } from "../segment/index.js";

/** A number for each direction. */
export type PerDirection = Readonly<Record<Direction, number>>;

/** The part of a histogram that evidence reads. */
export interface HistogramReading {
  readonly count: number;
  quantileNs(q: number): number;
}

/** The counters of one policy and its segment. */
export interface Counters {
  readonly flows: number;
  readonly totalOps: number;
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
  /** By stage and verdict, as counted: `continue` and `skipped` are for the reader to derive. */
  readonly verdicts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  applied(faultBit: number, direction: Direction): number;
  /** Delivered times; undefined for a fault that takes none. */
  times(faultBit: number, directions: readonly Direction[]): HistogramReading | undefined;
}

/** Reads everything evidence needs about one policy of a segment. */
export function readCounters(segment: Segment, policy: number): Counters {
  const damage = segment.check();
  const header = segment.header();
  const stats = segment.stats(policy);
  const { units, ops } = segment.flowTotals(policy);
  const totals = segment.totals();
  const flows = totals.flows > 0 ? readFlows(segment) : [];
  return {
    flows: totals.flows,
    totalOps: totals.ops + Number(stats.connects) + Number(stats.lookups),
    ops: perDirection(ops),
    units: perDirection(units),
    gatedOps: perDirection(stats.gated_ops),
    gatedUnits: perDirection(stats.gated_units),
    connects: Number(stats.connects),
    datagramSends: flows
      .filter((flow) => flow.role === numberOf("Role", "datagram") && flow.policy === policy)
      .reduce((sum, flow) => sum + Number((flow.up as StructValue).ops), 0),
    lookups: Number(stats.lookups),
    lostHeldBytes: Number(stats.lost_held_bytes),
    fallbacks: namedFallbacks(header.fallbacks),
    ioUringDenied: Number(header.io_uring_denied),
    journalDropped: Number(header.journal_dropped),
    determinism: Number(header.determinism),
    sharedPeers: haveSharedPeers(flows),
    attached: segment.processes().filter(({ state }) => nameOf("ProcessState", state) !== "starting").length,
    shrunk: segment.shrunk,
    damage,
    verdicts: namedVerdicts(stats.verdicts),
    applied: (faultBit, direction) => {
      const { directions = 2 } = layout.constants;
      return numberAt(stats.applied, faultBit * directions + numberOf("Direction", direction));
    },
    times: (faultBit, directions) => {
      const { timedFaults = 0 } = layout.constants;
      if (faultBit >= timedFaults) return undefined;
      const [only] = directions;
      return segment.histogram(policy, faultBit, directions.length === 1 && only !== undefined ? only : "both");
    },
  };
}

/** The flows region's used rows, read through a mapping of its own. */
export function readFlows(segment: Segment): StructValue[] {
  const raw = new native.NativeSegment(segment.path);
  try {
    const region = numberOf("Region", "flows");
    const flows: StructValue[] = [];
    for (let row = 0; row < raw.capacities.flows; row++) {
      const bytes = raw.readStruct(region, row);
      if (bytes.readBigUInt64LE(0) !== 0n) flows.push(codec.decode("Flow", bytes));
    }
    return flows;
  } finally {
    raw.close(false);
  }
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

function perDirection(values: unknown): PerDirection {
  return { uplink: numberAt(values, 0), downlink: numberAt(values, 1) };
}

function numberAt(values: unknown, at: number): number {
  return Array.isArray(values) ? Number(values[at] ?? 0) : 0;
}

function namedVerdicts(values: unknown): Record<string, Record<string, number>> {
  const verdicts = Object.entries(layout.enums.Verdict ?? {});
  return Object.fromEntries(
    Object.entries(layout.enums.Stage ?? {}).map(([stage, row]) => [
      stage,
      Object.fromEntries(verdicts.map(([verdict, at]) => [verdict, numberAt(values, row * verdicts.length + at)])),
    ]),
  );
}

function namedFallbacks(values: unknown): Record<string, number> {
  return Object.fromEntries(
    Object.entries(layout.enums.Fallback ?? {}).map(([name, at]) => [name, numberAt(values, at)]),
  );
}
