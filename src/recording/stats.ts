/** What a recording holds, summed up in one pass over its columns. */

import type { EventColumns } from "./events.js";
import type { Recording, Wholeness } from "./reader.js";
import { FAULT_WORDS, isFaults, STAGES, VERDICTS, wordFor } from "./words.js";

/** Decisions that are alike. */
export interface DecisionStats {
  /** The policy's name, or its slot where the header does not name it. */
  policy: string;
  stage: string;
  verdict: string;
  /** Absent where the verdict is to continue. */
  fault?: string;
  uplink: number;
  downlink: number;
  /** Of the units or ops decided. */
  bytes: number;
  /** What was chosen: nanoseconds, copies, bytes. */
  value_min: number;
  value_max: number;
}

/** A flow's share. */
export interface FlowStats {
  flow: string;
  events: number;
}

/** A recording in numbers. */
export interface RecordingStats {
  events: number;
  flows: number;
  /** Known to be missing: what its gaps say. */
  lost: number;
  /** Times of the first and the last event, in nanoseconds since the start; absent without events. */
  first_ns?: number;
  last_ns?: number;
  /** The most frequent first. */
  decisions: DecisionStats[];
  /** The ten flows with most events. */
  busiest: FlowStats[];
  wholeness: Wholeness;
}

const BUSIEST = 10;

interface Row {
  readonly policy: number;
  readonly stage: number;
  readonly verdict: number;
  readonly fault: number;
  /** By direction. */
  readonly events: [number, number];
  bytes: number;
  min: number;
  max: number;
}

/** Sums up a recording. */
export function statsOf(recording: Recording): RecordingStats {
  const rows = new Map<number, Row>();
  const perFlow: number[] = [];
  let [events, first, last] = [0, Number.POSITIVE_INFINITY, 0];
  for (const block of recording.blocks()) {
    events += block.events.count;
    [first, last] = countBlock(block.events, rows, perFlow, first, last);
  }
  const flows = Object.entries(perFlow).map(([flow, count]) => ({ flow: Number(flow), events: count }));
  const busiest = flows.sort((a, b) => b.events - a.events).slice(0, BUSIEST);
  return {
    events,
    flows: flows.length,
    lost: recording.lost,
    ...(events === 0 ? {} : { first_ns: first, last_ns: last }),
    decisions: [...rows.values()].sort((a, b) => sum(b) - sum(a)).map((row) => describe(row, recording)),
    busiest: busiest.map(({ flow, events: count }) => ({ flow: recording.flowWords(flow), events: count })),
    wholeness: recording.wholeness,
  };
}

function countBlock(
  columns: EventColumns,
  rows: Map<number, Row>,
  perFlow: number[],
  first: number,
  last: number,
): [first: number, last: number] {
  const { count, flow, direction, stage, verdict, fault, policy, value, bytes, at_ns } = columns;
  for (let i = 0; i < count; i++) {
    const row = rowOf(rows, policy[i] ?? 0, stage[i] ?? 0, verdict[i] ?? 0, fault[i] ?? 0);
    const chosen = value[i] ?? 0;
    row.events[direction[i] === 1 ? 1 : 0]++;
    row.bytes += bytes[i] ?? 0;
    if (chosen < row.min) row.min = chosen;
    if (chosen > row.max) row.max = chosen;
    const of = flow[i] ?? 0;
    perFlow[of] = (perFlow[of] ?? 0) + 1;
    const at = at_ns[i] ?? 0;
    if (at < first) first = at;
    if (at > last) last = at;
  }
  return [first, last];
}

function rowOf(rows: Map<number, Row>, policy: number, stage: number, verdict: number, fault: number): Row {
  const asked = isFaults(verdict) ? fault : 0;
  const key = ((policy * 32 + stage) * 16 + verdict) * 256 + asked; // up to 33 bits
  const known = rows.get(key);
  if (known !== undefined) return known;
  const row: Row = {
    ...{ policy, stage, verdict, fault: asked },
    ...{ events: [0, 0], bytes: 0, min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY },
  };
  rows.set(key, row);
  return row;
}

const sum = ({ events: [uplink, downlink] }: Row): number => uplink + downlink;

function describe(row: Row, recording: Recording): DecisionStats {
  const { policy, stage, verdict, fault, events, bytes, min, max } = row;
  return {
    policy: recording.policyName(policy),
    stage: wordFor(STAGES, stage),
    verdict: wordFor(VERDICTS, verdict),
    ...(!isFaults(verdict) ? {} : { fault: wordFor(FAULT_WORDS, fault) }),
    uplink: events[0],
    downlink: events[1],
    bytes,
    value_min: min,
    value_max: max,
  };
}
