/**
 * Opens recordings, whole or not: whatever frame is whole is read, and what is not is counted. A recording of any size
 * takes the memory of one block.
 */

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { type EventBlock, eventAt, type FlowIdentity, type RecordedEvent } from "./events.js";
import {
  checksumOf,
  decodeEnd,
  decodeEvents,
  decodeFrameHead,
  decodeGap,
  decodeHeader,
  FORMAT_VERSION,
  FormatError,
  FRAME_HEAD_BYTES,
  FRAME_MARKER,
  FrameKind,
  MAGIC,
  type RecordingEnd,
  type RecordingGap,
  type RecordingHeader,
  versionOf,
} from "./format.js";
import { tellApartWithout } from "./passing-ports.js";
import { decodePayload, type PayloadPiece } from "./payload.js";

/** How much of a file is a recording. */
export interface Wholeness {
  /** Of the file. */
  readonly bytes: number;
  /** That are whole. */
  readonly frames: number;
  /** That belong to no whole frame. */
  readonly damaged_bytes: number;
  /** What these bytes seem to have been. */
  readonly damaged_frames: number;
  /** The file ends within a frame. */
  readonly truncated: boolean;
  /** It has an end: nothing was recorded after what is here. */
  readonly end: boolean;
}

/** The file is no recording, or not one that this version reads. The message is for people and names the file. */
export class RecordingError extends Error {
  override readonly name = "RecordingError";
}

/** Where a whole frame lies. */
interface Frame {
  readonly kind: number;
  /** Of its payload. */
  readonly at: number;
  readonly bytes: number;
}

/** Events, or a mark that some are missing at this place. */
export type RecordingPart = EventBlock | RecordingGap;

/** A recording that was opened. */
export class Recording {
  readonly path: string;
  readonly wholeness: Wholeness;
  /** The last one written; undefined where none is whole. */
  readonly header: RecordingHeader | undefined;
  /** Undefined where the run was killed, goes on, or the end is not whole. */
  readonly end: RecordingEnd | undefined;
  /** Events that were not recorded, by the gaps that are whole. */
  readonly lost: number;
  readonly #frames: readonly Frame[];
  readonly #flows = new Map<number, FlowIdentity>();

  /** Use {@link openRecording}. */
  constructor(path: string, scanned: Scanned) {
    this.path = path;
    this.#frames = scanned.frames;
    this.header = scanned.header;
    this.end = scanned.end;
    this.lost = scanned.lost;
    this.wholeness = { ...scanned.wholeness, end: scanned.end !== undefined };
  }

  /**
   * A flow by its number, once a block that has events of it was read; undefined where the block that named it is not
   * whole.
   */
  flow(number: number): FlowIdentity | undefined {
    return this.#flows.get(number);
  }

  /** A flow in words; by its hash or its number where they were not recorded. */
  flowWords(number: number): string {
    const flow = this.#flows.get(number);
    if (flow === undefined) return `flow ${number}`;
    return flow.words === "" ? `0x${flow.key.toString(16)}` : flow.words;
  }

  /** The name of the policy in a slot; the slot's number where the header does not say. */
  policyName(slot: number): string {
    return this.header?.policies.find((policy) => policy.slot === slot)?.name ?? String(slot);
  }

  /**
   * Blocks and gaps in the order of the file. Throws a {@link RecordingError} when the file was changed since it was
   * opened.
   */
  *parts(): Generator<RecordingPart> {
    for (const [kind, payload] of this.#payloads()) {
      if (kind === FrameKind.Events) yield this.#block(payload);
      if (kind === FrameKind.Gap) yield decodeGap(payload);
    }
  }

  /** What ops carried, in the order of the file; flows are known by then. Throws as {@link parts} does. */
  *payload(): Generator<PayloadPiece> {
    for (const [kind, payload] of this.#payloads()) {
      if (kind === FrameKind.Events) this.#block(payload);
      if (kind === FrameKind.Payload) yield* decodePayload(payload);
    }
  }

  *#payloads(): Generator<[kind: number, payload: Buffer]> {
    const file = new FileBytes(this.path);
    try {
      for (const frame of this.#frames) yield [frame.kind, payloadOf(file, frame)];
    } catch (error) {
      if (error instanceof FormatError) throw new RecordingError(`${this.path}: ${error.message}`);
      throw error;
    } finally {
      file.close();
    }
  }

  /** Every flow in words, those without a name left out. */
  flowNames(): string[] {
    for (const _ of this.blocks()); // blocks name their flows
    return [...this.#flows.values()].map(({ words }) => words).filter((words) => words !== "");
  }

  /**
   * Whether its flows are told apart without the ports that pass, so that a replay may know them without; a part says
   * what the whole found.
   */
  get portless(): boolean {
    return this.header?.keep_ports !== true && tellApartWithout(this.flowNames());
  }

  /** Blocks of events by column, without an object an event. */
  *blocks(): Generator<EventBlock> {
    for (const part of this.parts()) if (!isGap(part)) yield part;
  }

  /** Every event. */
  *events(): Generator<RecordedEvent> {
    for (const { events } of this.blocks()) for (let i = 0; i < events.count; i++) yield eventAt(events, i);
  }

  #block(payload: Buffer): EventBlock {
    const block = decodeEvents(payload);
    block.flows.forEach((flow, i) => {
      this.#flows.set(block.firstFlow + i, flow);
    });
    return block;
  }
}

/** Whether events are missing here. */
export function isGap(part: RecordingPart): part is RecordingGap {
  return "lost" in part;
}

/**
 * Opens a recording as far as it is whole. Throws a {@link RecordingError} for a file that is no recording at all, or
 * one of a later version of the format, and the system's error for one that cannot be read.
 */
export function openRecording(path: string): Recording {
  const file = new FileBytes(path);
  try {
    const scanned = scan(file);
    if (scanned.version > FORMAT_VERSION) {
      throw new RecordingError(
        `${path}: was made by a later mishap, as version ${scanned.version} of the format; this one reads ${FORMAT_VERSION}`,
      );
    }
    if (!scanned.recognised && scanned.frames.length === 0) {
      throw new RecordingError(`${path}: is no recording; \`mishap run --record FILE\` makes one`);
    }
    return new Recording(path, scanned);
  } finally {
    file.close();
  }
}

interface Scanned {
  /** It begins as recordings do, as far as it goes. */
  readonly recognised: boolean;
  readonly version: number;
  readonly frames: readonly Frame[];
  readonly header: RecordingHeader | undefined;
  readonly end: RecordingEnd | undefined;
  readonly lost: number;
  readonly wholeness: Omit<Wholeness, "end">;
}

function scan(file: FileBytes): Scanned {
  const magic = file.read(0, MAGIC.length);
  const recognised = magic.equals(MAGIC.subarray(0, magic.length));
  const { frames, ...damage } = findFrames(file, recognised ? magic.length : 0);
  const facts: { version?: number; header?: RecordingHeader; end?: RecordingEnd; lost: number } = { lost: 0 };
  for (const frame of frames) readFacts(frame, file, facts);
  const truncated = damage.truncated || (recognised && magic.length < MAGIC.length);
  return {
    recognised,
    version: facts.version ?? laterVersion(magic) ?? FORMAT_VERSION,
    header: facts.header,
    end: facts.end,
    lost: facts.lost,
    frames,
    wholeness: { ...damage, truncated, bytes: file.size, frames: frames.length },
  };
}

/** The version of a file that begins as those of another version do. */
function laterVersion(magic: Buffer): number | undefined {
  const name = MAGIC.length - 1;
  return magic.length === MAGIC.length && magic.compare(MAGIC, 0, name, 0, name) === 0 ? magic.at(-1) : undefined;
}

function readFacts(
  frame: Frame,
  file: FileBytes,
  facts: { version?: number; header?: RecordingHeader; end?: RecordingEnd; lost: number },
): void {
  try {
    if (frame.kind === FrameKind.Header) {
      const payload = payloadOf(file, frame);
      facts.version = versionOf(payload) ?? FORMAT_VERSION;
      if (facts.version <= FORMAT_VERSION) facts.header = decodeHeader(payload);
    }
    if (frame.kind === FrameKind.End) facts.end = decodeEnd(payloadOf(file, frame));
    if (frame.kind === FrameKind.Gap) facts.lost += decodeGap(payloadOf(file, frame)).lost;
  } catch (error) {
    // Whole, and yet not what its kind says: something else wrote it, and its facts stay unknown.
    if (!(error instanceof FormatError)) throw error;
  }
}

interface Found {
  readonly frames: Frame[];
  readonly damaged_bytes: number;
  readonly damaged_frames: number;
  readonly truncated: boolean;
}

/** Every whole frame. Behind one that is not, the next marker is looked for, whatever length that frame claims. */
function findFrames(file: FileBytes, from: number): Found {
  const frames: Frame[] = [];
  let [damagedBytes, damagedFrames, truncated] = [0, 0, false];
  for (let at = from; at < file.size; ) {
    const frame = wholeFrameAt(file, at);
    if (frame !== undefined) {
      frames.push(frame);
      at = frame.at + frame.bytes;
      continue;
    }
    const next = file.find(FRAME_MARKER, at + 1) ?? file.size;
    damagedBytes += next - at;
    damagedFrames++;
    truncated = next === file.size && endsWithin(file, at);
    at = next;
  }
  return { frames, damaged_bytes: damagedBytes, damaged_frames: damagedFrames, truncated };
}

function wholeFrameAt(file: FileBytes, at: number): Frame | undefined {
  const head = decodeFrameHead(file.read(at, FRAME_HEAD_BYTES), 0);
  if (head === undefined) return undefined;
  const payload = file.read(at + FRAME_HEAD_BYTES, head.payloadBytes);
  if (payload.length < head.payloadBytes || checksumOf(head.kind, payload) !== head.checksum) return undefined;
  return { kind: head.kind, at: at + FRAME_HEAD_BYTES, bytes: head.payloadBytes };
}

/** Whether the file ends before the frame that begins here, as far as its head can be believed. */
function endsWithin(file: FileBytes, at: number): boolean {
  const bytes = file.read(at, FRAME_HEAD_BYTES);
  const head = decodeFrameHead(bytes, 0);
  return head === undefined ? bytes.length < FRAME_HEAD_BYTES : at + FRAME_HEAD_BYTES + head.payloadBytes > file.size;
}

function payloadOf(file: FileBytes, { kind, at, bytes }: Frame): Buffer {
  const frame = wholeFrameAt(file, at - FRAME_HEAD_BYTES);
  if (frame?.kind !== kind || frame.bytes !== bytes) {
    throw new RecordingError(`${file.path}: was changed while it was read; read it again`);
  }
  return Buffer.from(file.read(at, bytes));
}

const WINDOW_BYTES = 1 << 20;

/** A file's bytes as of when it was opened, read a window at a time. */
class FileBytes {
  readonly path: string;
  readonly size: number;
  readonly #fd: number;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, "r");
    const status = fstatSync(this.#fd);
    this.size = status.size;
    if (!status.isFile()) {
      this.close();
      throw new RecordingError(`${path}: is not a file, as a recording is`);
    }
  }

  /** So many bytes, or as many as there are; valid until the next read. */
  read(at: number, length: number): Buffer {
    const wanted = Math.max(0, Math.min(length, this.size - at));
    const from = at - this.#windowAt;
    if (from < 0 || from + wanted > this.#window.length) this.#load(at, Math.max(wanted, WINDOW_BYTES));
    return this.#window.subarray(at - this.#windowAt, at - this.#windowAt + wanted);
  }

  /** Where bytes begin, at a place or behind it. */
  find(bytes: Buffer, from: number): number | undefined {
    for (let at = from; at + bytes.length <= this.size; at += WINDOW_BYTES - bytes.length + 1) {
      const found = this.read(at, WINDOW_BYTES).indexOf(bytes);
      if (found >= 0) return at + found;
    }
    return undefined;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #load(at: number, length: number): void {
    const window = Buffer.alloc(Math.max(0, Math.min(length, this.size - at)));
    let filled = 0;
    while (filled < window.length) {
      const read = readSync(this.#fd, window, filled, window.length - filled, at + filled);
      if (read === 0) break; // it was cut meanwhile
      filled += read;
    }
    this.#window = window.subarray(0, filled);
    this.#windowAt = at;
  }
}
