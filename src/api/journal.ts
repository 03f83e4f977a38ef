/**
 * The journal of a run: one reader drains the ring that programs write their decisions to, and hands them to whoever
 * asked for them; here as JSON lines, in the order they were made. A line holds nothing that differs between two runs of
 * one seed (no pid, fd or time), so that sorted journals can be compared byte for byte.
 */

import { writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { codec, nameOf, type Segment } from "../segment/index.js";

/** Gets what was drained. */
export interface EventSink {
  /** Events in order, packed as the contract's Event. */
  take(events: Buffer): void;
  /** It cannot keep up: nothing is drained until it can, so that programs wait where the ring is recorded. */
  readonly behind: boolean;
}

const DRAIN_EVERY_MS = 20;
const DRAIN_AT_ONCE = 8192;
/** Drains in a row, before other work of this process has its turn. */
const MOST_IN_A_ROW = 8;
/** A slot whose writer died is passed over after a hundred looks at it. */
const LAST_LOOKS = 300;

/** Drains a segment's ring while a run lasts; a ring has one reader. */
export class JournalReader {
  readonly #segment: Segment;
  readonly #sinks: readonly EventSink[];
  readonly #timer: NodeJS.Timeout;

  constructor(segment: Segment, sinks: readonly EventSink[]) {
    this.#segment = segment;
    this.#sinks = sinks;
    this.#timer = setInterval(() => this.#drain(), DRAIN_EVERY_MS);
    this.#timer.unref();
  }

  /** Drains what is left, to the last event. */
  async finish(): Promise<void> {
    this.stop();
    for (let looks = 0; looks < LAST_LOOKS; ) {
      if (!this.#behind) looks++;
      this.#drain();
      const { journal_head, journal_tail } = this.#segment.header();
      if (journal_head === journal_tail) return;
      await sleep(1);
    }
  }

  /** Drains nothing more. */
  stop(): void {
    clearInterval(this.#timer);
  }

  get #behind(): boolean {
    return this.#sinks.some(({ behind }) => behind);
  }

  #drain(): void {
    for (let times = 0; times < MOST_IN_A_ROW && !this.#behind; times++) {
      const events = this.#segment.drainJournal(DRAIN_AT_ONCE);
      if (events.length === 0) return;
      for (const sink of this.#sinks) sink.take(events);
    }
  }
}

/** Writes decisions as JSON lines. */
export class JournalLines implements EventSink {
  readonly behind = false;
  readonly #file: number;
  readonly #flows = new Map<unknown, string>();
  #failure: string | undefined;

  constructor(file: number) {
    this.#file = file;
  }

  /** What kept lines from being written, if anything did. */
  get failure(): string | undefined {
    return this.#failure;
  }

  take(events: Buffer): void {
    let lines = "";
    for (const event of codec.decodeAll("Event", events)) {
      const kind = nameOf("EventKind", event.kind);
      if (kind === "flow_opened") this.#flows.set(event.key, String(event.flow));
      if (kind !== "decision") continue;
      const verdict = nameOf("Verdict", event.verdict);
      if (verdict === "continue" || verdict === "skipped") continue; // there where every op is recorded
      const line = {
        flow: this.#flows.get(event.key) ?? `0x${BigInt(event.key as bigint).toString(16)}`,
        direction: nameOf("Direction", event.direction),
        op: nameOf("OpKind", event.op),
        unit: Number(event.unit),
        stage: nameOf("Stage", event.stage),
        verdict,
        fault: nameOf("Fault", event.fault),
        value: Number(event.value),
      };
      lines += `${JSON.stringify(line)}\n`;
    }
    this.#write(lines);
  }

  #write(lines: string): void {
    if (lines === "" || this.#failure !== undefined) return;
    try {
      const bytes = Buffer.from(lines);
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
    } catch (error) {
      this.#failure = error instanceof Error ? error.message : String(error);
    }
  }
}
