/** Flows that this worker was asked about, by the number that the outside knows them by. */

import type { FlowStats, Stats } from "../index.js";
import type { FlowCounts, FlowFacts } from "../questions.js";

const MAX_FLOWS = 20_000;
/** Numbers a flow, in the order of the addon's `flowCounts`. */
const COUNTED = 8;

const flows = new Map<number, FlowFacts>();
/** Those whose end a tick has told. */
const toldClosed = new Set<number>();

export function knownFlow(key: number): FlowFacts | undefined {
  return flows.get(key);
}

/** Remembers a flow; the one that had to be forgotten for it, if any. */
export function learnFlow(key: number, facts: FlowFacts): FlowFacts | undefined {
  flows.set(key, facts);
  if (flows.size <= MAX_FLOWS) return undefined;
  const [oldest] = flows;
  if (oldest === undefined) return undefined;
  flows.delete(oldest[0]);
  toldClosed.delete(oldest[0]);
  return oldest[1];
}

/** What a tick tells the script. */
export function statsOf(packed: FlowCounts): Stats {
  const { buffer, byteOffset, byteLength } = Buffer.from(packed, "base64");
  const counts = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength)); // aligned
  const total = { ops: 0, connects: 0, failed: 0, resets: 0, bytesUp: 0, bytesDown: 0, flows: 0, open: 0 };
  const told: FlowStats[] = [];
  for (let at = 0; at + COUNTED <= counts.length; at += COUNTED) {
    const of = (column: number): number => counts[at + column] ?? 0;
    const [key, open, ops, connects] = [of(0), of(1), of(2), of(3)];
    const [failed, resets, bytesUp, bytesDown] = [of(4), of(5), of(6), of(7)];
    total.flows += 1;
    total.open += open;
    total.ops += ops;
    total.connects += connects;
    total.failed += failed;
    total.resets += resets;
    total.bytesUp += bytesUp;
    total.bytesDown += bytesDown;
    const facts = flows.get(key);
    if (facts === undefined || toldClosed.has(key)) continue;
    if (open === 0) toldClosed.add(key);
    const { id, peer } = facts;
    told.push({ id, peer, open: open === 1, ops, connects, failed, resets, bytesUp, bytesDown });
  }
  return { total, flows: told };
}
