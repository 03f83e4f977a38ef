/**
 * Records a run: what was drained from the ring goes into the recording's columns without an object an event, and from
 * there to its file several times a second, so that a run that is killed leaves what it decided up to its last moments.
 */

import { arch, cpus, release } from "node:os";
import type { Policy } from "../policy/index.js";
import { BlockBuilder } from "../recording/events.js";
import { FORMAT_VERSION, type RecordingHeader } from "../recording/format.js";
import { PayloadBuilder } from "../recording/payload.js";
import { CONTINUE, SKIPPED } from "../recording/words.js";
import { type EndFacts, RecordingWriter } from "../recording/writer.js";
import { AT, EVENT_BYTES, FLOW_OPENED, layout, PAYLOAD, signedAt, textAt, wideAt } from "../segment/index.js";
import type { EventSink } from "./journal.js";
import type { Session } from "./session.js";

/** What a recording begins with, but for what the session knows. */
export interface RecordingFacts {
  /** Of mishap. */
  readonly version: string;
  readonly command: readonly string[];
  /** Whether every op is recorded. */
  readonly all: boolean;
  /** Whether what ops carried is recorded. */
  readonly payload: boolean;
  /** Whether programs may set faults by setpriority(2). */
  readonly setpriority: boolean;
  /** What a script answered so far, by what events call it; undefined without one. */
  readonly answers?: (() => ReadonlyMap<number, Policy>) | undefined;
}

/** How old what is not written yet becomes. */
const WRITE_EVERY_MS = 200;
/** Blocks on their way to the file; with more, the ring is left alone until the disk has caught up. */
const MOST_UNDER_WAY = 8;

/** A recording of a session that is under way. */
export class Recorder implements EventSink {
  readonly #session: Session;
  readonly #writer: RecordingWriter;
  readonly #facts: RecordingFacts;
  readonly #block = new BlockBuilder();
  readonly #payload = new PayloadBuilder();
  /** CLOCK_MONOTONIC at the start, by halves, because a machine's may have outgrown what a number holds exactly. */
  readonly #start: readonly [low: number, high: number];
  readonly #timer: NodeJS.Timeout;
  readonly #started: string;
  #header: string;
  #generation: unknown;
  /** Answers in the header. */
  #answered = 0;
  #underWay = 0;
  #lost = 0;
  #failure: string | undefined;

  /** Begins a recording. Rejects when the file cannot be written. */
  static async create(path: string, session: Session, facts: RecordingFacts): Promise<Recorder> {
    const started = new Date().toISOString();
    const startNs = process.hrtime.bigint();
    const header = headerOf(session, facts, started);
    const writer = await RecordingWriter.create(path, header);
    return new Recorder(session, facts, writer, started, startNs, JSON.stringify(header));
  }

  private constructor(
    session: Session,
    facts: RecordingFacts,
    writer: RecordingWriter,
    started: string,
    startNs: bigint,
    header: string,
  ) {
    this.#session = session;
    this.#facts = facts;
    this.#writer = writer;
    this.#started = started;
    this.#start = [Number(startNs & 0xffffffffn), Number(startNs >> 32n)];
    this.#header = header;
    this.#generation = session.segment.header().generation;
    this.#timer = setInterval(() => this.#write(), WRITE_EVERY_MS);
    this.#timer.unref();
  }

  /** Events that are missing, as far as they were noticed. */
  get lost(): number {
    return this.#lost;
  }

  get behind(): boolean {
    return this.#underWay >= MOST_UNDER_WAY;
  }

  take(events: Buffer): void {
    const words = new Uint32Array(events.buffer, events.byteOffset, events.byteLength / 4);
    const keys = new BigUint64Array(events.buffer, events.byteOffset, events.byteLength / 8);
    for (let at = 0; at < events.byteLength; at += EVENT_BYTES) {
      const key = keys[(at + AT.key) / 8] ?? 0n;
      if (events[at + AT.kind] === FLOW_OPENED) {
        this.#block.flowNumber(key, textAt(events, at + AT.flow));
        continue;
      }
      if (events[at + AT.kind] === PAYLOAD) {
        this.#carried(events, words, at, key);
        continue;
      }
      if (!this.#facts.all && goesOn(events[at + AT.verdict])) continue;
      if (this.#block.full) this.#write();
      this.#append(events, words, at, key);
    }
  }

  /** Writes the end; after the last {@link take}. Answers what kept the recording from being whole, if anything did. */
  async end(facts: EndFacts): Promise<string | undefined> {
    clearInterval(this.#timer);
    this.#write();
    await this.#writer.end(facts).catch((error: unknown) => this.#fail(error));
    return this.#failure;
  }

  /** Closes the file; without {@link end}, readers say that the end is missing. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#writer.close().catch((error: unknown) => this.#fail(error));
  }

  #carried(events: Buffer, words: Uint32Array, at: number, key: bigint): void {
    if (this.#payload.full) this.#write();
    this.#payload.add({
      flow: this.#block.flowNumber(key),
      direction: events[at + AT.direction] ?? 0,
      begins: words[(at + AT.offset) / 4] === 0,
      atNs: this.#sinceStart(words, at + AT.at_ns),
      bytes: events.subarray(
        at + AT.flow,
        Math.min(at + AT.flow + (words[(at + AT.bytes) / 4] ?? 0), at + EVENT_BYTES),
      ),
    });
  }

  #append(events: Buffer, words: Uint32Array, at: number, key: bigint): void {
    const { events: columns } = this.#block;
    const to = columns.count;
    columns.flow[to] = this.#block.flowNumber(key);
    columns.op[to] = events[at + AT.op] ?? 0;
    columns.direction[to] = events[at + AT.direction] ?? 0;
    columns.stage[to] = events[at + AT.stage] ?? 0;
    columns.verdict[to] = events[at + AT.verdict] ?? 0;
    columns.fault[to] = events[at + AT.fault] ?? 0;
    columns.policy[to] = (events[at + AT.policy] ?? 0) | ((events[at + AT.policy + 1] ?? 0) << 8);
    columns.unit[to] = wideAt(words, at + AT.unit);
    columns.value[to] = signedAt(words, at + AT.value);
    columns.offset[to] = words[(at + AT.offset) / 4] ?? 0;
    columns.bytes[to] = words[(at + AT.bytes) / 4] ?? 0;
    columns.at_ns[to] = this.#sinceStart(words, at + AT.at_ns);
    columns.count = to + 1;
  }

  #sinceStart(words: Uint32Array, at: number): number {
    const [low, high] = this.#start;
    return Math.max(0, ((words[at / 4 + 1] ?? 0) - high) * 2 ** 32 + (words[at / 4] ?? 0) - low);
  }

  /** Hands what was gathered to the writer, with the policies as they are by now and a gap where events were lost. */
  #write(): void {
    const { generation, journal_dropped } = this.#session.segment.header();
    const answered = this.#facts.answers?.().size ?? 0;
    if (generation !== this.#generation || answered !== this.#answered) this.#writeHeader(generation, answered);
    const block = this.#block.block();
    if (block !== undefined) {
      this.#follow(this.#writer.write(block));
      this.#block.clear();
    }
    const carried = this.#payload.take(); // after the block, which names its flows
    if (carried !== undefined) this.#follow(this.#writer.payload(carried));
    const lost = Number(journal_dropped) - this.#lost;
    if (lost > 0) this.#follow(this.#writer.gap(lost));
    this.#lost += lost;
  }

  #writeHeader(generation: unknown, answered: number): void {
    this.#generation = generation;
    this.#answered = answered;
    const header = headerOf(this.#session, this.#facts, this.#started);
    const text = JSON.stringify(header);
    if (text !== this.#header) this.#follow(this.#writer.header(header));
    this.#header = text;
  }

  #follow(written: Promise<void>): void {
    this.#underWay++;
    written
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#underWay--;
      });
  }

  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error.message : String(error);
  }
}

function headerOf(session: Session, facts: RecordingFacts, started: string): RecordingHeader {
  return {
    version: FORMAT_VERSION,
    mishap: facts.version,
    command: [...facts.command],
    seed: `0x${session.seed.toString(16)}`,
    policies: session.slots().map(({ slot, name, policy, byProgram }) => ({
      ...{ slot, name, policy: { ...policy.written } },
      ...(byProgram && { by_program: true }),
    })),
    layout_hash: layout.layoutHash,
    machine: { kernel: release(), arch: arch(), cpus: cpus().length, node: process.version },
    started,
    record_all: facts.all,
    ...(facts.payload && { record_payload: true }),
    setpriority: facts.setpriority,
    ...(facts.answers !== undefined && { answers: [...facts.answers()].map(answerOf) }),
  };
}

function answerOf([value, { written }]: [number, Policy]): { value: number; fields: Record<string, unknown> } {
  return { value, fields: { ...written } };
}

function goesOn(verdict: number | undefined): boolean {
  return verdict === CONTINUE || verdict === SKIPPED;
}
