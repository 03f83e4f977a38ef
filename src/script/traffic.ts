/**
 * Traffic to try scripts on, as questions: simulated, in virtual time and without chance (docs/scripts.md describes it),
 * or that of a recording.
 */

import { DIRECTIONS, OPS, type Recording } from "../recording/index.js";
import type { FlowStats, FlowTotals, Peer, Stats } from "./index.js";
import { type Answer, type Asked, type FlowFacts, flowFactsOf, type OpFacts } from "./questions.js";

const SERVERS = 4;
const EXCHANGES = 5;
const BETWEEN_FLOWS_MS = 100;
const BETWEEN_EXCHANGES_MS = 200;
const REQUEST_BYTES = 200;
const RESPONSE_BYTES = 14_480;
const UNIT_BYTES = 1448;

/** One thing that happens: a flow opens, an op of it begins, or it closes. */
type Happening =
  | { readonly atMs: number; readonly kind: "flow"; readonly flow: FlowFacts }
  | { readonly atMs: number; readonly kind: "closed"; readonly flow: FlowFacts }
  | { readonly atMs: number; readonly kind: "op"; readonly flow: FlowFacts; readonly op: OpFacts };

/**
 * Flow i of so many opens after i × 100 ms to the i-th of four servers in turn, 10.0.0.1 to 10.0.0.4, port 443: it looks
 * up `server-1.test` to `server-4.test`, connects, and five times, 200 ms apart, sends 200 bytes and receives 14,480.
 */
export function simulatedTraffic(flows: number): Happening[] {
  const happenings: Happening[] = [];
  for (let i = 0; i < flows; i++) {
    const [server, openedAtMs] = [1 + (i % SERVERS), i * BETWEEN_FLOWS_MS];
    const host = `server-${server}.test`;
    const ordinal = 1 + Math.floor(i / SERVERS);
    const peer = { address: `10.0.0.${server}`, port: 443, host, sni: host };
    const id = `tcp:${peer.address}:${peer.port}#${ordinal}@0`;
    const flow: FlowFacts = { id, protocol: "tcp", role: "client", peer, ordinal, thread: "0", openedAtMs };
    const op = (atMs: number, facts: OpFacts): void => {
      happenings.push({ kind: "op", atMs, flow, op: facts });
    };
    happenings.push({ kind: "flow", atMs: openedAtMs, flow });
    op(openedAtMs, { kind: "dns", direction: "uplink", bytes: 0, unit: 0, host });
    op(openedAtMs, { kind: "connect", direction: "uplink", bytes: 0, unit: 0 });
    for (let exchange = 0; exchange < EXCHANGES; exchange++) {
      const atMs = openedAtMs + exchange * BETWEEN_EXCHANGES_MS;
      const unit = exchange * (RESPONSE_BYTES / UNIT_BYTES);
      op(atMs, { kind: "send", direction: "uplink", bytes: REQUEST_BYTES, unit: exchange });
      op(atMs, { kind: "recv", direction: "downlink", bytes: RESPONSE_BYTES, unit });
    }
    happenings.push({ kind: "closed", atMs: openedAtMs + EXCHANGES * BETWEEN_EXCHANGES_MS, flow });
  }
  return happenings.sort((a, b) => a.atMs - b.atMs);
}

/** What a recording has: its flows open at their first event, and each op is asked about once a unit. */
export function recordedTraffic(recording: Recording): Happening[] {
  const happenings: Happening[] = [];
  const flows = new Map<number, { facts: FlowFacts; ops: Set<string>; lastMs: number }>();
  for (const event of recording.events()) {
    const atMs = event.at_ns / 1e6;
    let flow = flows.get(event.flow);
    if (flow === undefined) {
      flow = { facts: flowFactsOf(recording.flowWords(event.flow), atMs), ops: new Set(), lastMs: atMs };
      flows.set(event.flow, flow);
      happenings.push({ kind: "flow", atMs, flow: flow.facts });
    }
    flow.lastMs = Math.max(flow.lastMs, atMs);
    const [kind, direction] = [OPS[event.op], DIRECTIONS[event.direction]];
    const key = `${event.op} ${event.direction} ${event.unit}`;
    if (kind === undefined || direction === undefined || flow.ops.has(key)) continue;
    flow.ops.add(key);
    const host = kind === "dns" && { host: flow.facts.peer.host ?? flow.facts.peer.address };
    const op: OpFacts = { kind, direction, bytes: event.bytes, unit: event.unit, ...host };
    happenings.push({ kind: "op", atMs, flow: flow.facts, op });
  }
  for (const { facts, lastMs } of flows.values()) happenings.push({ kind: "closed", atMs: lastMs, flow: facts });
  return happenings.sort((a, b) => a.atMs - b.atMs);
}

/** Questions in order, ticks between them; `ask` is waited for before the next. */
export async function play(
  traffic: readonly Happening[],
  tickMs: number | undefined,
  ask: (question: Asked) => Promise<Answer>,
): Promise<void> {
  const counts = new Counts();
  let nextTick = tickMs ?? Number.POSITIVE_INFINITY;
  for (const happening of traffic) {
    for (; nextTick <= happening.atMs; nextTick += tickMs ?? 0) {
      await ask({ kind: "tick", atMs: nextTick, stats: counts.take() });
    }
    counts.add(happening);
    await ask(happening);
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
type Sums = Mutable<FlowTotals>;

const noSums = (): Sums => ({ ops: 0, connects: 0, failed: 0, resets: 0, bytesUp: 0, bytesDown: 0 });

/** Sums of what happened. */
class Counts {
  readonly #flows = new Map<string, { id: string; peer: Peer; open: boolean } & Sums>();
  readonly #total = noSums();
  #opened = 0;

  add(happening: Happening): void {
    const { id, peer } = happening.flow;
    const flow = this.#flows.get(id);
    if (happening.kind === "flow") {
      this.#opened++;
      this.#flows.set(id, { id, peer, open: true, ...noSums() });
    } else if (happening.kind === "closed") {
      if (flow !== undefined) flow.open = false;
    } else {
      if (flow !== undefined) addOp(flow, happening.op);
      addOp(this.#total, happening.op);
    }
  }

  /** So far; closed flows are told once. */
  take(): Stats {
    const flows: FlowStats[] = [...this.#flows.values()].map((flow) => ({ ...flow }));
    for (const { id, open } of flows) if (!open) this.#flows.delete(id);
    return { total: { ...this.#total, flows: this.#opened, open: this.#flows.size }, flows };
  }
}

function addOp(sums: Sums, { kind, direction, bytes }: OpFacts): void {
  sums.ops++;
  if (kind === "connect") sums.connects++;
  if (direction === "uplink") sums.bytesUp += bytes;
  else sums.bytesDown += bytes;
}
