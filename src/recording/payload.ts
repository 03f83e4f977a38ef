/**
 * What ops carried, as a recording's frames of payload hold it (docs/recording.md): apart from the decisions, because
 * most recordings have none, and in the order in which it was carried.
 */

import { inflateRawSync } from "node:zlib";
import { FormatError, MAX_INFLATED_BYTES } from "./format.js";
import type { Recording } from "./reader.js";
import { VarintReader, VarintWriter } from "./varint.js";

/** A piece of what an op carried. */
export interface PayloadPiece {
  /** The flow's number in the recording. */
  readonly flow: number;
  /** 0 uplink, 1 downlink. */
  readonly direction: number;
  /** Whether an op begins with it; else it goes on. */
  readonly begins: boolean;
  /** When the op had carried it, in nanoseconds since the recording's start. */
  readonly atNs: number;
  readonly bytes: Uint8Array;
}

/** A frame is written before it holds more. */
const MOST_BYTES = 1 << 20;

/** Gathers pieces into frames. */
export class PayloadBuilder {
  #writer = new VarintWriter();
  #lastNs = 0;

  /** Whether the frame has to be taken before the next piece. */
  get full(): boolean {
    return this.#writer.bytes.length >= MOST_BYTES;
  }

  add({ flow, direction, begins, atNs, bytes }: PayloadPiece): void {
    this.#writer.unsigned(flow);
    this.#writer.unsigned(direction | (begins ? 2 : 0));
    this.#writer.signed(atNs - this.#lastNs);
    this.#writer.prefixed(bytes);
    this.#lastNs = atNs;
  }

  /** What was gathered since the last time, not deflated yet; undefined when nothing was. */
  take(): Uint8Array | undefined {
    const { bytes } = this.#writer;
    if (bytes.length === 0) return undefined;
    this.#writer = new VarintWriter();
    this.#lastNs = 0;
    return bytes;
  }
}

/** The pieces in a frame's payload. Throws a {@link FormatError}. */
export function decodePayload(payload: Uint8Array): PayloadPiece[] {
  try {
    const from = new VarintReader(inflateRawSync(payload, { maxOutputLength: MAX_INFLATED_BYTES }));
    const pieces: PayloadPiece[] = [];
    for (let atNs = 0; !from.done; ) {
      const [flow, packed] = [from.unsigned(), from.unsigned()];
      atNs += from.signed();
      pieces.push({ flow, direction: packed & 1, begins: (packed & 2) !== 0, atNs, bytes: from.prefixed() });
    }
    return pieces;
  } catch (error) {
    throw new FormatError(`payload cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What an op carried. */
export interface CarriedOp {
  readonly atNs: number;
  readonly bytes: Buffer;
}

/** What a flow's ops carried in one direction, in their order. */
export interface Carried {
  /** The flow's identity. */
  readonly words: string;
  readonly direction: number;
  readonly ops: readonly CarriedOp[];
}

/** What the flows whose identity contains some words carried, by flow and direction; all of it is held in memory. */
export function carriedBy(recording: Recording, words: string, direction?: number): Carried[] {
  const found = new Map<string, { words: string; direction: number; ops: { atNs: number; pieces: Uint8Array[] }[] }>();
  for (const piece of recording.payload()) {
    const flow = recording.flowWords(piece.flow);
    if (!flow.includes(words) || (direction !== undefined && piece.direction !== direction)) continue;
    const key = `${piece.direction} ${flow}`;
    const way = found.get(key) ?? { words: flow, direction: piece.direction, ops: [] };
    found.set(key, way);
    const last = way.ops.at(-1);
    if (last === undefined || piece.begins) way.ops.push({ atNs: piece.atNs, pieces: [piece.bytes] });
    else last.pieces.push(piece.bytes);
  }
  return [...found.values()].map((way) => ({
    ...way,
    ops: way.ops.map(({ atNs, pieces }) => ({ atNs, bytes: Buffer.concat(pieces) })),
  }));
}
