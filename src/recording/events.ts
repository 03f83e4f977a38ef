/**
 * Decisions as a recording holds them: by column, so that a million of them is a dozen arrays and not a million objects,
 * and in blocks that can be read each by itself. The numbers are those of src/recording/words.ts.
 */

/** A decision. */
export interface RecordedEvent {
  /** The flow's number in the recording. */
  flow: number;
  op: number;
  direction: number;
  stage: number;
  verdict: number;
  /** What asked for it; without meaning where the verdict is to continue. */
  fault: number;
  /** The policy's slot. */
  policy: number;
  /** Number of the unit of chance in the flow's direction, or of the call for the payload stage. */
  unit: number;
  /** What was chosen, where something was: nanoseconds (of jitter less than 0 too), copies, and so on. */
  value: number;
  /** Bytes of the unit before what was decided: where a limit was met within it. */
  offset: number;
  /** Of the unit, or of the op where it has none. */
  bytes: number;
  /** When, in nanoseconds since the recording's start. */
  at_ns: number;
}

/** What repeats between two runs of a flow. */
export interface FlowIdentity {
  /** Its hash, which draws hang on. */
  readonly key: bigint;
  /** In words, such as `tcp:127.0.0.1:8080#1@0`; empty where the flow's opening was not recorded. */
  readonly words: string;
}

/** Events by column; `count` of each array are in use. */
export interface EventColumns {
  count: number;
  readonly flow: Uint32Array;
  readonly op: Uint8Array;
  readonly direction: Uint8Array;
  readonly stage: Uint8Array;
  readonly verdict: Uint8Array;
  readonly fault: Uint8Array;
  readonly policy: Uint16Array;
  readonly unit: Float64Array;
  readonly value: Float64Array;
  readonly offset: Uint16Array;
  readonly bytes: Uint32Array;
  readonly at_ns: Float64Array;
}

/** What one frame of events holds. */
export interface EventBlock {
  /** The number of the first of `flows`; they are numbered on from there. */
  readonly firstFlow: number;
  /** Those that no earlier block named. */
  readonly flows: readonly FlowIdentity[];
  readonly events: EventColumns;
}

/** A block holds no more events. */
export const MAX_BLOCK_EVENTS = 65_536;

/** Columns with room for so many events, and none in them. */
export function newColumns(capacity: number): EventColumns {
  return {
    count: 0,
    flow: new Uint32Array(capacity),
    op: new Uint8Array(capacity),
    direction: new Uint8Array(capacity),
    stage: new Uint8Array(capacity),
    verdict: new Uint8Array(capacity),
    fault: new Uint8Array(capacity),
    policy: new Uint16Array(capacity),
    unit: new Float64Array(capacity),
    value: new Float64Array(capacity),
    offset: new Uint16Array(capacity),
    bytes: new Uint32Array(capacity),
    at_ns: new Float64Array(capacity),
  };
}

/** Puts an event behind the others. Throws a RangeError when there is no room. */
export function appendEvent(columns: EventColumns, event: Readonly<RecordedEvent>): void {
  const at = columns.count;
  if (at >= columns.flow.length) throw new RangeError(`there is room for ${at} events`);
  columns.flow[at] = event.flow;
  columns.op[at] = event.op;
  columns.direction[at] = event.direction;
  columns.stage[at] = event.stage;
  columns.verdict[at] = event.verdict;
  columns.fault[at] = event.fault;
  columns.policy[at] = event.policy;
  columns.unit[at] = event.unit;
  columns.value[at] = event.value;
  columns.offset[at] = event.offset;
  columns.bytes[at] = event.bytes;
  columns.at_ns[at] = event.at_ns;
  columns.count = at + 1;
}

/** The event at a place, as an object of its own. Throws a RangeError for a place that has none. */
export function eventAt(columns: EventColumns, at: number): RecordedEvent {
  if (!(at >= 0 && at < columns.count)) throw new RangeError(`there is no event ${at} of ${columns.count}`);
  return {
    flow: columns.flow[at] ?? 0,
    op: columns.op[at] ?? 0,
    direction: columns.direction[at] ?? 0,
    stage: columns.stage[at] ?? 0,
    verdict: columns.verdict[at] ?? 0,
    fault: columns.fault[at] ?? 0,
    policy: columns.policy[at] ?? 0,
    unit: columns.unit[at] ?? 0,
    value: columns.value[at] ?? 0,
    offset: columns.offset[at] ?? 0,
    bytes: columns.bytes[at] ?? 0,
    at_ns: columns.at_ns[at] ?? 0,
  };
}

/** Unit, stage, direction and op as one number: exact up to unit 2^45, which no flow comes to. */
export function placeNumber({
  unit,
  stage,
  direction,
  op,
}: Pick<RecordedEvent, "unit" | "stage" | "direction" | "op">): number {
  return unit * 256 + stage * 8 + direction * 4 + op;
}

/**
 * Gathers events into blocks and numbers flows in the order in which they first appear. For speed, columns can be
 * filled directly: `events.flow[events.count] = flowNumber(key); …; events.count++`.
 */
export class BlockBuilder {
  readonly events: EventColumns;
  readonly #numbers = new Map<bigint, number>();
  #new: FlowIdentity[] = [];

  constructor(capacity = MAX_BLOCK_EVENTS) {
    this.events = newColumns(capacity);
  }

  /** Whether the block has to be taken before the next event. */
  get full(): boolean {
    return this.events.count === this.events.flow.length;
  }

  /** The flow's number, given out with its first event. */
  flowNumber(key: bigint, words = ""): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const number = this.#numbers.size;
    this.#numbers.set(key, number);
    this.#new.push({ key, words });
    return number;
  }

  /**
   * What was gathered since the last time; nothing when nothing was. Its columns are this builder's own and are valid
   * until {@link clear}, which has to follow before the next event.
   */
  block(): EventBlock | undefined {
    if (this.events.count === 0 && this.#new.length === 0) return undefined;
    return { firstFlow: this.#numbers.size - this.#new.length, flows: this.#new, events: this.events };
  }

  /** Begins the next block. */
  clear(): void {
    this.#new = [];
    this.events.count = 0;
  }
}
