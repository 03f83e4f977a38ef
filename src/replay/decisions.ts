/**
 * What is to happen in a run in place of chance: what a recording holds, or what a policy lists, as the columns of a
 * recording, and packed for the segment. The engine's side is native/engine/decided.cpp.
 */

import { STREAM_UNIT_BYTES } from "../policy/contract.js";
import type { Policy } from "../policy/index.js";
import {
  ANSWERED,
  DIRECTIONS,
  type EventColumns,
  endsConversation,
  eventAt,
  FAULT_WORDS,
  type FlowIdentity,
  flowKey,
  isByTheClock,
  isFaults,
  newColumns,
  OPS,
  type Recording,
  STAGES,
  VERDICTS,
  withoutPassingPort,
} from "../recording/index.js";
import { codec } from "../segment/index.js";

/** Decisions and whose they are. */
export interface Decisions {
  /** Where they come from, for people. */
  readonly source: string;
  readonly flows: readonly FlowIdentity[];
  /** Decisions alone; `flow` is a place in {@link flows}. */
  readonly events: EventColumns;
  /** Every flow of the run is among `flows`, and nothing was decided but this. */
  readonly whole: boolean;
  /** Flows are known without the ports that pass: see src/recording/passing-ports.ts. */
  readonly portless: boolean;
  /** Where a script was asked: which of its answers decided each op, by its slot. */
  readonly answers?: EventColumns;
  /** Where every op was recorded: the last unit that each flow's ops came to, by {@link opNumber}. */
  readonly reached?: ReadonlyMap<number, number>;
}

/** A flow's op in a number. */
export function opNumber(flow: number, op: number): number {
  return flow * 4 + op;
}

/**
 * What a recording decided: each decision once, and of a conversation that ended its end.
 *
 * @param slots - where the answers of its script will be, by what events call them
 */
export function decisionsOf(recording: Recording, slots?: ReadonlyMap<number, number>): Decisions {
  const { header, end, lost, wholeness, path } = recording;
  const gathered = new Gathered();
  const answers = slots === undefined ? undefined : new Gathered();
  const known: FlowIdentity[] = [];
  const places = new Map<number, number>(); // by the recording's number; a flow that it does not name is met by nobody
  const reached = header?.record_all === true ? new Map<number, number>() : undefined;
  for (const block of recording.blocks()) {
    block.flows.forEach((flow, i) => {
      places.set(block.firstFlow + i, known.push(flow) - 1);
    });
    for (let i = 0; i < block.events.count; i++) {
      const flow = places.get(block.events.flow[i] ?? 0);
      if (flow === undefined) continue;
      if (reached !== undefined) noteReached(reached, flow, block.events, i);
      gathered.take(flow, block.events, i);
      if (block.events.verdict[i] === ANSWERED) {
        answers?.add({ ...eventAt(block.events, i), flow, value: slots?.get(block.events.value[i] ?? 0) ?? 0 });
      }
    }
  }
  const whole = header?.partial !== true && end !== undefined && lost === 0 && wholeness.damaged_bytes === 0;
  const { portless } = recording;
  return {
    ...{ source: path, events: gathered.columns, whole, ...(reached !== undefined && { reached }) },
    ...{ portless, flows: portless ? known.map(withoutPort) : known },
    ...(answers !== undefined && { answers: answers.columns }),
  };
}

/** What a policy lists; undefined where it leaves it to chance. */
export function decisionsOfPolicy({ fields }: Policy): Decisions | undefined {
  if (fields.decisions === undefined) return undefined;
  const gathered = new Gathered();
  const numbers = new Map<string, number>();
  for (const { flow, op, direction, stage, verdict, fault, unit, offset, value } of fields.decisions) {
    const number = numbers.get(flow) ?? numbers.size;
    numbers.set(flow, number);
    gathered.add({
      ...{ flow: number, unit, offset, value, policy: 0, bytes: 0, at_ns: 0 },
      op: OPS.indexOf(op),
      direction: DIRECTIONS.indexOf(direction),
      stage: STAGES.indexOf(stage),
      verdict: VERDICTS.indexOf(verdict),
      fault: FAULT_WORDS.indexOf(fault),
    });
  }
  const flows = [...numbers.keys()].map((words) => ({ key: flowKey(words), words }));
  const portless = flows.some(({ words }) => words.includes(":*#"));
  return { source: "the policy's decisions", events: gathered.columns, whole: false, portless, flows };
}

/** As the contract's Decided, in the order they are in: the segment sorts them. */
export function packDecisions({ flows, events, answers }: Decisions): Uint8Array {
  return Buffer.concat([pack(flows, events), ...(answers === undefined ? [] : [pack(flows, answers)])]);
}

function pack(flows: Decisions["flows"], events: EventColumns): Buffer {
  const { size, fields } = codec.struct("Decided");
  const packed = Buffer.alloc(size * events.count);
  const at = Object.fromEntries(fields.map(({ name, offset }) => [name, offset]));
  const place = (name: string, i: number): number => size * i + (at[name] ?? 0);
  for (let i = 0; i < events.count; i++) {
    packed.writeBigUInt64LE(flows[events.flow[i] ?? 0]?.key ?? 0n, place("key", i));
    packed.writeBigUInt64LE(BigInt(events.unit[i] ?? 0), place("unit", i));
    packed.writeBigInt64LE(BigInt(events.value[i] ?? 0), place("value", i));
    packed.writeUInt16LE(events.offset[i] ?? 0, place("offset", i));
    for (const name of ["op", "direction", "stage", "verdict", "fault"] as const) {
      packed.writeUInt8(events[name][i] ?? 0, place(name, i));
    }
  }
  return packed;
}

function withoutPort(flow: FlowIdentity): FlowIdentity {
  const words = withoutPassingPort(flow.words);
  return words === flow.words ? flow : { key: flowKey(words), words };
}

function noteReached(reached: Map<number, number>, flow: number, { op, unit, bytes }: EventColumns, i: number): void {
  const key = opNumber(flow, op[i] ?? 0);
  const last = (unit[i] ?? 0) + Math.ceil((bytes[i] ?? 0) / STREAM_UNIT_BYTES);
  if (last > (reached.get(key) ?? -1)) reached.set(key, last);
}

/** Columns that grow. */
class Gathered {
  columns: EventColumns = newColumns(1024);
  readonly #ended = new Set<number>();

  /** An event, unless nothing was decided by it or what it says is known. */
  take(flow: number, from: EventColumns, at: number): void {
    const verdict = from.verdict[at] ?? 0;
    const fault = from.fault[at] ?? 0;
    if (!isFaults(verdict) || isByTheClock(fault)) return;
    if (endsConversation(fault)) {
      const key = opNumber(flow, from.op[at] ?? 0);
      if (this.#ended.has(key)) return;
      this.#ended.add(key);
    }
    this.#append((name) => (name === "flow" ? flow : (from[name][at] ?? 0)));
  }

  add(event: Readonly<Record<ColumnName, number>>): void {
    this.#append((name) => event[name]);
  }

  #append(numberOf: (name: ColumnName) => number): void {
    if (this.columns.count === this.columns.flow.length) this.#grow();
    for (const name of COLUMN_NAMES) this.columns[name][this.columns.count] = numberOf(name);
    this.columns.count++;
  }

  #grow(): void {
    const larger = newColumns(2 * this.columns.flow.length);
    for (const name of COLUMN_NAMES) larger[name].set(this.columns[name]);
    larger.count = this.columns.count;
    this.columns = larger;
  }
}

type ColumnName = Exclude<keyof EventColumns, "count">;
const COLUMN_NAMES = Object.keys(newColumns(0)).filter((name): name is ColumnName => name !== "count");
