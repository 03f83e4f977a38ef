/**
 * What becomes of a run's decisions: a journal, a recording, and in a replay what holds them against those made
 * beforehand; all fed by the one reader of the ring.
 */

import type { Decisions } from "../replay/decisions.js";
import { ReplayWatch } from "../replay/watch.js";
import type { Evidence, Replay } from "../report/schema.js";
import { JournalLines, JournalReader } from "./journal.js";
import { Recorder, type RecordingFacts } from "./recorder.js";
import type { Session, SessionOptions } from "./session.js";

/** What is to be kept. */
export interface KeepOptions {
  /** A file descriptor that gets the decisions as JSON lines. */
  readonly journal?: number;
  /** A file that gets a recording: every decision that was not to continue. */
  readonly record?: string;
  /** Whether the recording has the ops that continued, too. */
  readonly recordAll?: boolean;
  /** Whether the recording has what ops carried, byte for byte, too. */
  readonly recordPayload?: boolean;
  /** What was decided beforehand, and what to do once the run is not as it was. */
  readonly replay?: ReplayOptions;
}

/** A run whose decisions were made beforehand. */
export interface ReplayOptions {
  readonly decisions: Decisions;
  /** Ends the program at the first thing that is not as it was decided. */
  readonly strict: boolean;
}

/** What the session has to know of that. */
export function asSession({
  journal,
  record,
  recordAll,
  recordPayload = false,
  replay,
}: KeepOptions): { journal: boolean } & Pick<SessionOptions, "recorded" | "payload" | "decisions"> {
  const recorded = recordAll === true || replay?.decisions.reached !== undefined ? "all" : "decisions";
  return {
    journal: journal !== undefined,
    ...(record === undefined && replay === undefined ? {} : { recorded }),
    payload: recordPayload,
    ...(replay === undefined ? {} : { decisions: replay.decisions }),
  };
}

/** What is being kept of a run. */
export class Kept {
  readonly #lines: JournalLines | undefined;
  readonly #recorder: Recorder | undefined;
  readonly #watch: ReplayWatch | undefined;
  readonly #ring: JournalReader | undefined;

  /** Begins, before the program does. Rejects when the recording cannot be written. */
  static async start(
    session: Session,
    options: KeepOptions,
    facts: Omit<RecordingFacts, "all" | "payload">,
    onDivergence: () => void,
  ): Promise<Kept> {
    const { journal, record, recordAll: all = false, recordPayload: payload = false, replay } = options;
    const recorder =
      record === undefined ? undefined : await Recorder.create(record, session, { ...facts, all, payload });
    const lines = journal === undefined ? undefined : new JournalLines(journal);
    const watch = replay === undefined ? undefined : new ReplayWatch(replay.decisions, onDivergence);
    return new Kept(session, lines, recorder, watch);
  }

  private constructor(
    session: Session,
    lines: JournalLines | undefined,
    recorder: Recorder | undefined,
    watch: ReplayWatch | undefined,
  ) {
    this.#lines = lines;
    this.#recorder = recorder;
    this.#watch = watch;
    const sinks = [lines, recorder, watch].filter((sink) => sink !== undefined);
    this.#ring = sinks.length === 0 ? undefined : new JournalReader(session.segment, sinks);
  }

  /** Whether lost events are the journal's. */
  get observed(): boolean {
    return this.#lines !== undefined;
  }

  /** Takes what is left of decisions, once no more are made. Answers what evidence should say of the journal. */
  async finish(): Promise<string[]> {
    await this.#ring?.finish();
    const failure = this.#lines?.failure;
    return failure === undefined ? [] : [`the journal is incomplete: ${failure}`];
  }

  /** What came of what was decided beforehand; after {@link finish}. */
  replayed(): Replay | undefined {
    return this.#watch?.finish();
  }

  /** Ends the recording with what evidence says, and says in evidence, before all else, what the recording lacks. */
  async end(evidence: Evidence): Promise<void> {
    if (this.#recorder === undefined) return;
    const { exit_code, duration_ms, flows, ops, determinism } = evidence;
    const failure = await this.#recorder.end({ exit_code, duration_ms, flows, ops, determinism });
    if (failure !== undefined) evidence.notes.unshift(`the recording is incomplete: ${failure}`);
    const { lost } = this.#recorder;
    if (lost > 0) evidence.notes.unshift(`the recording lacks ${lost} events: there was no room for them within 2 s`);
  }

  /** Keeps nothing more; without {@link end} the recording lacks its end. */
  async close(): Promise<void> {
    this.#ring?.stop();
    await this.#recorder?.close();
  }
}
