/**
 * The journal of a run: its decisions as JSON lines, in the order they were made. A line holds nothing that differs
 * between two runs of one seed (no pid, fd or time), so that sorted journals can be compared byte for byte.
 */

import { writeSync } from "node:fs";
import { nameOf, type Segment } from "../segment/index.js";

const DRAIN_EVERY_MS = 20;
const DRAIN_AT_ONCE = 8192;

/** Drains a segment's ring into a file while a run lasts. */
export class JournalWriter {
  readonly #segment: Segment;
  readonly #file: number;
  readonly #flows = new Map<unknown, string>();
  readonly #timer: NodeJS.Timeout;
  #failure: string | undefined;

  constructor(segment: Segment, file: number) {
    this.#segment = segment;
    this.#file = file;
    this.#timer = setInterval(() => this.#drain(), DRAIN_EVERY_MS);
    this.#timer.unref();
  }

  /** Drains what is left. Answers what kept lines from being written, if anything did. */
  finish(): string | undefined {
    clearInterval(this.#timer);
    this.#drain();
    return this.#failure;
  }

  #drain(): void {
    for (;;) {
      const events = this.#segment.drainJournal(DRAIN_AT_ONCE);
      let lines = "";
      for (const event of events) {
        if (nameOf("EventKind", event.kind) === "flow_opened") {
          this.#flows.set(event.key, String(event.flow));
          continue;
        }
        const line = {
          flow: this.#flows.get(event.key) ?? `0x${BigInt(event.key as bigint).toString(16)}`,
          direction: nameOf("Direction", event.direction),
          op: nameOf("OpKind", event.op),
          unit: Number(event.unit),
          stage: nameOf("Stage", event.stage),
          verdict: nameOf("Verdict", event.verdict),
          fault: nameOf("Fault", event.fault),
          value: Number(event.value),
        };
        lines += `${JSON.stringify(line)}\n`;
      }
      this.#write(lines);
      if (events.length < DRAIN_AT_ONCE) return;
    }
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
