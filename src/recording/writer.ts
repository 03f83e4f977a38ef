/**
 * Writes a recording while a run lasts: a frame with each write, so that a file that is cut anywhere loses at most the
 * last. Blocks are deflated in libuv's pool, beside each other, and written in the order in which they were given.
 */

import { type FileHandle, open } from "node:fs/promises";
import { promisify } from "node:util";
import { deflateRaw } from "node:zlib";
import type { EventBlock } from "./events.js";
import {
  EVENT_DEFLATE,
  encodeEnd,
  encodeEvents,
  encodeFrame,
  encodeGap,
  encodeHeader,
  FrameKind,
  MAGIC,
  type RecordingEnd,
  type RecordingHeader,
} from "./format.js";

const deflate = promisify(deflateRaw);

/** What is known at a run's end, but for what the writer counts itself. */
export type EndFacts = Omit<RecordingEnd, "events" | "lost">;

/** A recording that is being written. Once a write has failed, it and every later one reject with the same error. */
export class RecordingWriter {
  readonly #file: FileHandle;
  #written: Promise<void> = Promise.resolve();
  #events = 0;
  #lost = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /**
   * Begins a recording; what the file held is replaced. Only its owner may read it: a command line can hold secrets.
   * Rejects when the file cannot be written.
   */
  static async create(path: string, header: RecordingHeader): Promise<RecordingWriter> {
    const start = Buffer.concat([MAGIC, encodeFrame(FrameKind.Header, encodeHeader(header))]);
    const file = await open(path, "w", 0o600);
    const writer = new RecordingWriter(file);
    try {
      await writer.#append(start);
    } catch (error) {
      await file.close();
      throw error;
    }
    return writer;
  }

  /**
   * Writes the header once more, in the place of the one before: for what was not known at the start, such as policies
   * that were registered since.
   */
  header(header: RecordingHeader): Promise<void> {
    return this.#append(encodeFrame(FrameKind.Header, encodeHeader(header)));
  }

  /** Writes events; the block is not needed any more once the call returns. Settles when they are in the file. */
  write(block: EventBlock): Promise<void> {
    this.#events += block.events.count;
    const deflated = deflate(encodeEvents(block), EVENT_DEFLATE);
    return this.#append(deflated.then((payload) => encodeFrame(FrameKind.Events, payload)));
  }

  /** Writes what ops carried, as a {@link PayloadBuilder} gathered it. Settles when it is in the file. */
  payload(pieces: Uint8Array): Promise<void> {
    return this.#append(deflate(pieces, EVENT_DEFLATE).then((payload) => encodeFrame(FrameKind.Payload, payload)));
  }

  /** Marks that so many events are missing here. */
  gap(lost: number): Promise<void> {
    this.#lost += lost;
    return this.#append(encodeFrame(FrameKind.Gap, encodeGap({ lost })));
  }

  /** Writes the end, and closes the file. */
  async end(facts: EndFacts): Promise<void> {
    const payload = encodeEnd({ ...facts, events: this.#events, lost: this.#lost });
    try {
      await this.#append(encodeFrame(FrameKind.End, payload));
    } finally {
      await this.close();
    }
  }

  /** Closes the file once all is written that was given; without an end, readers say that it is missing. */
  async close(): Promise<void> {
    await this.#written.catch(() => {});
    await this.#file.close();
  }

  #append(frame: Buffer | Promise<Buffer>): Promise<void> {
    const turn = Promise.all([frame, this.#written]).then(([bytes]) => this.#writeAll(bytes));
    this.#written = turn;
    turn.catch(() => {}); // whoever asked is told; the next write is told again
    return turn;
  }

  async #writeAll(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) at += (await this.#file.write(bytes, at)).bytesWritten;
  }
}
