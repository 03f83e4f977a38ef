/**
 * The format of recordings (docs/recording.md), encoded and decoded without files: frames that can be told apart and
 * checked each by itself, facts as JSON, and events by column.
 */

import { constants, crc32, deflateRawSync, inflateRawSync } from "node:zlib";
import { z } from "zod";
import { type EventBlock, type EventColumns, type FlowIdentity, MAX_BLOCK_EVENTS, newColumns } from "./events.js";
import { VarintReader, VarintWriter } from "./varint.js";

/** The version that is written, and the newest that is read. */
export const FORMAT_VERSION = 1;

/** What a file of this version begins with. */
export const MAGIC: Buffer = Buffer.concat([Buffer.from("MISHAPR"), Buffer.of(FORMAT_VERSION)]);

/** What every frame begins with. */
export const FRAME_MARKER: Buffer = Buffer.from("MARF");

/** Marker, kind, zeros, length and checksum. */
export const FRAME_HEAD_BYTES = 16;
/** A longer payload is none. */
export const MAX_PAYLOAD_BYTES = 1 << 24;
/** What a payload may become when it is inflated: 64 Ki events of the longest numbers, each of a flow of its own. */
export const MAX_INFLATED_BYTES: number = 1 << 24;

/** What a frame holds. */
export const FrameKind = { Header: 1, Events: 2, Gap: 3, End: 4, Payload: 5 } as const;

const count = z.int().min(0);

const header = z.object({
  version: z.int().min(1),
  mishap: z.string(),
  command: z.array(z.string()),
  seed: z.string().regex(/^0x[0-9a-f]{1,16}$/),
  policies: z.array(
    z.object({
      slot: count,
      name: z.string(),
      policy: z.record(z.string(), z.unknown()),
      by_program: z.boolean().optional(),
    }),
  ),
  layout_hash: z.string(),
  machine: z.object({ kernel: z.string(), arch: z.string(), cpus: count, node: z.string() }),
  started: z.string(),
  record_all: z.boolean(),
  record_payload: z.boolean().optional(),
  setpriority: z.boolean(),
  partial: z.boolean().optional(),
  keep_ports: z.boolean().optional(),
  answers: z.array(z.object({ value: count, fields: z.record(z.string(), z.unknown()) })).optional(),
});

const gap = z.object({ lost: count });

const end = z.object({
  exit_code: z.int().optional(),
  duration_ms: z.number().min(0).optional(),
  flows: count.optional(),
  ops: count.optional(),
  determinism: z.object({ level: z.string(), reason: z.string() }).optional(),
  events: count,
  lost: count,
});

/** What is known when a recording begins. Holds nothing of the program's environment. */
export type RecordingHeader = z.infer<typeof header>;
/** Events that were not recorded, at this place. */
export type RecordingGap = z.infer<typeof gap>;
/** What is known when a run has ended; `events` and `lost` are the recording's own, which alone imported ones have. */
export type RecordingEnd = z.infer<typeof end>;

/** A frame's payload does not hold what its kind says. */
export class FormatError extends Error {
  override readonly name = "FormatError";
}

/** The first fields of a frame. */
export interface FrameHead {
  readonly kind: number;
  readonly payloadBytes: number;
  readonly checksum: number;
}

/** The checksum of a frame: CRC-32 as zlib has it, of the kind and the payload. */
export function checksumOf(kind: number, payload: Uint8Array): number {
  return crc32(payload, crc32(Buffer.of(kind)));
}

/** A whole frame. Throws a RangeError for a payload that no reader would take. */
export function encodeFrame(kind: number, payload: Uint8Array): Buffer {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError(`a frame holds at most ${MAX_PAYLOAD_BYTES} bytes`);
  const frame = Buffer.alloc(FRAME_HEAD_BYTES + payload.length);
  FRAME_MARKER.copy(frame);
  frame.writeUInt8(kind, 4);
  frame.writeUInt32LE(payload.length, 8);
  frame.writeUInt32LE(checksumOf(kind, payload), 12);
  frame.set(payload, FRAME_HEAD_BYTES);
  return frame;
}

/** What stands before a frame's payload; undefined where no frame begins. */
export function decodeFrameHead(bytes: Buffer, at: number): FrameHead | undefined {
  if (at + FRAME_HEAD_BYTES > bytes.length) return undefined;
  if (bytes.compare(FRAME_MARKER, 0, FRAME_MARKER.length, at, at + FRAME_MARKER.length) !== 0) return undefined;
  const payloadBytes = bytes.readUInt32LE(at + 8);
  if (bytes.readUIntLE(at + 5, 3) !== 0 || payloadBytes > MAX_PAYLOAD_BYTES) return undefined;
  return { kind: bytes.readUInt8(at + 4), payloadBytes, checksum: bytes.readUInt32LE(at + 12) };
}

/** The header's payload. */
export const encodeHeader = (facts: RecordingHeader): Buffer => deflated(header.parse(facts));
/** A header from its payload. Throws a {@link FormatError}. */
export const decodeHeader = (payload: Uint8Array): RecordingHeader => inflated(payload, header, "header");

/** A gap's payload. */
export const encodeGap = (facts: RecordingGap): Buffer => deflated(gap.parse(facts));
/** A gap from its payload. Throws a {@link FormatError}. */
export const decodeGap = (payload: Uint8Array): RecordingGap => inflated(payload, gap, "gap");

/** The end's payload. */
export const encodeEnd = (facts: RecordingEnd): Buffer => deflated(end.parse(facts));
/** An end from its payload. Throws a {@link FormatError}. */
export const decodeEnd = (payload: Uint8Array): RecordingEnd => inflated(payload, end, "end");

/** The version in a header's payload, whatever else it holds; undefined without one. */
export function versionOf(payload: Uint8Array): number | undefined {
  try {
    return inflated(payload, z.object({ version: z.int() }), "header").version;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

function deflated(facts: unknown): Buffer {
  return deflateRawSync(JSON.stringify(facts));
}

function inflated<Facts>(payload: Uint8Array, schema: z.ZodType<Facts>, what: string): Facts {
  try {
    return schema.parse(JSON.parse(inflateRawSync(payload, { maxOutputLength: MAX_INFLATED_BYTES }).toString("utf8")));
  } catch (error) {
    throw new FormatError(`a ${what} cannot be read: ${reasonOf(error)}`);
  }
}

const reasonOf = (error: unknown): string =>
  error instanceof z.ZodError ? z.prettifyError(error).replace(/\s+/g, " ") : String(error);

/** How events' columns are deflated: in a random mix of decisions, more effort saves no more than 1 %. */
export const EVENT_DEFLATE = { level: constants.Z_BEST_SPEED } as const;

/**
 * A block's columns, not deflated yet: the payload of its frame is this, deflated (raw, RFC 1951). Throws a RangeError
 * for numbers that the format has no room for.
 */
export function encodeEvents({ firstFlow, flows, events }: EventBlock): Buffer {
  if (events.count > MAX_BLOCK_EVENTS) throw new RangeError(`a block holds at most ${MAX_BLOCK_EVENTS} events`);
  const whole = new VarintWriter();
  whole.unsigned(events.count);
  encodeFlows(whole, firstFlow, flows);
  for (const each of COLUMNS) {
    const column = new VarintWriter();
    each.write(column, events);
    whole.prefixed(column.bytes);
  }
  return Buffer.from(whole.bytes);
}

/** A block from its frame's payload. Throws a {@link FormatError}. */
export function decodeEvents(payload: Uint8Array): EventBlock {
  try {
    return decodeColumns(inflateRawSync(payload, { maxOutputLength: MAX_INFLATED_BYTES }));
  } catch (error) {
    throw new FormatError(`events cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** A block from what {@link encodeEvents} made. */
export function decodeColumns(bytes: Uint8Array): EventBlock {
  const whole = new VarintReader(bytes);
  const total = whole.unsigned();
  if (total > MAX_BLOCK_EVENTS) throw new FormatError(`a block of ${total} events is too long`);
  const [firstFlow, flows] = decodeFlows(whole);
  const events = newColumns(total);
  events.count = total;
  for (const each of COLUMNS) {
    const column = new VarintReader(whole.prefixed());
    each.read(column, events);
    if (!column.done) throw new FormatError("a column is longer than its events");
  }
  // Columns that a later version adds follow here; they are left alone.
  return { firstFlow, flows, events };
}

function encodeFlows(to: VarintWriter, firstFlow: number, flows: readonly FlowIdentity[]): void {
  to.unsigned(flows.length);
  if (flows.length > 0) to.unsigned(firstFlow);
  const key = Buffer.alloc(8);
  for (const flow of flows) {
    key.writeBigUInt64LE(flow.key);
    to.raw(key);
    to.prefixed(Buffer.from(flow.words, "utf8"));
  }
}

function decodeFlows(from: VarintReader): [firstFlow: number, flows: FlowIdentity[]] {
  const total = from.unsigned();
  if (total > MAX_BLOCK_EVENTS) throw new FormatError(`a block of ${total} flows is too long`);
  const firstFlow = total > 0 ? from.unsigned() : 0;
  const flows = Array.from({ length: total }, () => {
    const key = Buffer.from(from.raw(8)).readBigUInt64LE();
    return { key, words: Buffer.from(from.prefixed()).toString("utf8") };
  });
  return [firstFlow, flows];
}

interface Column {
  write(to: VarintWriter, events: EventColumns): void;
  read(from: VarintReader, events: EventColumns): void;
}

/** A column of numbers as they are. */
function plain(of: (events: EventColumns) => Uint16Array | Uint32Array | Float64Array, max: number): Column {
  return {
    write: (to, events) => {
      const values = of(events);
      for (let i = 0; i < events.count; i++) to.unsigned(values[i] ?? 0);
    },
    read: (from, events) => {
      const values = of(events);
      for (let i = 0; i < events.count; i++) values[i] = atMost(from.unsigned(), max);
    },
  };
}

/** A column of numbers that may be less than 0. */
function signed(of: (events: EventColumns) => Float64Array): Column {
  return {
    write: (to, events) => {
      const values = of(events);
      for (let i = 0; i < events.count; i++) to.signed(values[i] ?? 0);
    },
    read: (from, events) => {
      const values = of(events);
      for (let i = 0; i < events.count; i++) values[i] = from.signed();
    },
  };
}

/** A column of differences from the number before. */
function deltas(of: (events: EventColumns) => Uint32Array | Float64Array, max: number): Column {
  return {
    write: (to, events) => {
      const values = of(events);
      for (let i = 0, last = 0; i < events.count; i++) {
        const value = atMost(values[i] ?? 0, max);
        to.signed(value - last);
        last = value;
      }
    },
    read: (from, events) => {
      const values = of(events);
      for (let i = 0, last = 0; i < events.count; i++) {
        last = atMost(last + from.signed(), max);
        values[i] = last;
      }
    },
  };
}

/** What each op of the run was: op, direction and stage in a byte. */
const kinds: Column = {
  write: (to, { count: total, op, direction, stage }) => {
    const bytes = new Uint8Array(total);
    for (let i = 0; i < total; i++) {
      bytes[i] = atMost(op[i] ?? 0, 3) | (atMost(direction[i] ?? 0, 1) << 2) | (atMost(stage[i] ?? 0, 31) << 3);
    }
    to.raw(bytes);
  },
  read: (from, { count: total, op, direction, stage }) => {
    const bytes = from.raw(total);
    for (let i = 0; i < total; i++) {
      const packed = bytes[i] ?? 0;
      op[i] = packed & 3;
      direction[i] = (packed >> 2) & 1;
      stage[i] = packed >> 3;
    }
  },
};

/** What was decided: verdict and fault. */
const outcomes: Column = {
  write: (to, { count: total, verdict, fault }) => {
    for (let i = 0; i < total; i++) to.unsigned(atMost(verdict[i] ?? 0, 15) | ((fault[i] ?? 0) << 4));
  },
  read: (from, { count: total, verdict, fault }) => {
    for (let i = 0; i < total; i++) {
      const packed = atMost(from.unsigned(), 0xfff);
      verdict[i] = packed & 15;
      fault[i] = packed >> 4;
    }
  },
};

/** Units, as differences from the last of the same flow and direction in the block. */
const units: Column = {
  write: (to, { count: total, flow, direction, unit }) => {
    const last = new Map<number, number>();
    for (let i = 0; i < total; i++) {
      const way = 2 * (flow[i] ?? 0) + (direction[i] ?? 0);
      const value = atMost(unit[i] ?? 0, Number.MAX_SAFE_INTEGER);
      to.signed(value - (last.get(way) ?? 0));
      last.set(way, value);
    }
  },
  read: (from, { count: total, flow, direction, unit }) => {
    const last = new Map<number, number>();
    for (let i = 0; i < total; i++) {
      const way = 2 * (flow[i] ?? 0) + (direction[i] ?? 0);
      const value = atMost((last.get(way) ?? 0) + from.signed(), Number.MAX_SAFE_INTEGER);
      unit[i] = value;
      last.set(way, value);
    }
  },
};

/** In the order of the file; units are told by flow and direction, which therefore come before them. */
const COLUMNS: readonly Column[] = [
  deltas(({ flow }) => flow, 0xffffffff),
  kinds,
  outcomes,
  plain(({ policy }) => policy, 0xffff),
  units,
  signed(({ value }) => value),
  plain(({ bytes }) => bytes, 0xffffffff),
  deltas(({ at_ns }) => at_ns, Number.MAX_SAFE_INTEGER),
  plain(({ offset }) => offset, 0xffff),
];

function atMost(value: number, max: number): number {
  if (!(value >= 0 && value <= max)) throw new RangeError(`${value} is not within 0 to ${max}`);
  return value;
}
