/**
 * Holds a run whose decisions were made beforehand against them: what was met again, what was not, and the first thing
 * that is not as it was. A decision is known by its flow's identity, its op, its stage and its unit, whatever threads and
 * clocks do.
 */

import {
  ANSWERED,
  CONTINUE,
  DIRECTIONS,
  endsConversation,
  eventAt,
  isByTheClock,
  OPS,
  outcomeOf,
  placeNumber,
  SKIPPED,
  wordFor,
} from "../recording/index.js";
import { outcomeText } from "../recording/text.js";
import type { Divergence, Replay } from "../report/schema.js";
import { AT, EVENT_BYTES, FLOW_OPENED, PAYLOAD, signedAt, textAt, wideAt } from "../segment/index.js";
import { type Decisions, opNumber } from "./decisions.js";

interface FlowState {
  readonly number: number;
  opened: boolean;
  /** Decisions by {@link placeOf}. */
  readonly places: Map<number, number>;
}

/** Watches the decisions of a run. */
export class ReplayWatch {
  readonly behind = false;
  readonly #decisions: Decisions;
  readonly #flows = new Map<bigint, FlowState>();
  readonly #met: Uint8Array;
  readonly #onDivergence: () => void;
  #metCount = 0;
  #unknown = 0;
  #first: Divergence | undefined;

  /** `onDivergence` is called once, at the first. */
  constructor(decisions: Decisions, onDivergence: () => void) {
    this.#decisions = decisions;
    this.#onDivergence = onDivergence;
    this.#met = new Uint8Array(decisions.events.count);
    decisions.flows.forEach(({ key }, number) => {
      if (!this.#flows.has(key)) this.#flows.set(key, { number, opened: false, places: new Map() });
    });
    for (let i = 0; i < decisions.events.count; i++) {
      const key = decisions.flows[decisions.events.flow[i] ?? 0]?.key ?? 0n;
      this.#flows.get(key)?.places.set(placeOf(eventAt(decisions.events, i)), i);
    }
  }

  take(events: Buffer): void {
    const words = new Uint32Array(events.buffer, events.byteOffset, events.byteLength / 4);
    const keys = new BigUint64Array(events.buffer, events.byteOffset, events.byteLength / 8);
    for (let at = 0; at < events.byteLength; at += EVENT_BYTES) {
      const key = keys[(at + AT.key) / 8] ?? 0n;
      if (events[at + AT.kind] === FLOW_OPENED) this.#open(key, textAt(events, at + AT.flow));
      else if (events[at + AT.kind] !== PAYLOAD) this.#hold(key, readEvent(events, words, at));
    }
  }

  /** What came of it; once no more decisions are made. */
  finish(): Replay {
    const { events, source } = this.#decisions;
    const unmet = events.count - this.#metCount;
    if (unmet > 0) this.#diverge(this.#firstUnmet());
    return {
      source,
      decisions: events.count,
      met: this.#metCount,
      unmet,
      unknown: this.#unknown,
      ...(this.#first !== undefined && { divergence: this.#first }),
    };
  }

  #open(key: bigint, words: string): void {
    const known = this.#flows.get(key);
    if (known !== undefined) known.opened = true;
    if (known !== undefined || !this.#decisions.whole) return;
    this.#unknown++;
    this.#diverge({ flow: words, recorded: this.#likeOf(words), seen: "it was opened" });
  }

  /** Holds an event against what was decided. */
  #hold(key: bigint, event: SeenEvent): void {
    const flow = this.#flows.get(key);
    if (flow === undefined || event.verdict === ANSWERED) return; // its opening was told; an answer is no decision about a unit
    if (event.verdict === CONTINUE || event.verdict === SKIPPED) this.#holdOp(flow, event);
    else this.#holdDecision(flow, event);
  }

  #holdDecision(flow: FlowState, event: SeenEvent): void {
    if (isByTheClock(event.fault)) return;
    const at = flow.places.get(placeOf(event));
    if (at === undefined) {
      this.#unknown++;
      this.#diverge({ ...this.#where(flow, event), recorded: "nothing", seen: outcomeText(outcomeOf(event)) });
      return;
    }
    const decided = eventAt(this.#decisions.events, at);
    if (this.#met[at] === 1) return; // asked again, as a call that met its end is
    this.#met[at] = 1;
    this.#metCount++;
    const same = decided.verdict === event.verdict && decided.value === event.value;
    if (same || endsConversation(decided.fault)) return;
    const recorded = outcomeText(outcomeOf(decided));
    this.#diverge({ ...this.#where(flow, event), recorded, seen: outcomeText(outcomeOf(event)) });
  }

  /** An op that went on, where all were recorded. */
  #holdOp(flow: FlowState, event: SeenEvent): void {
    const { reached, whole } = this.#decisions;
    if (reached === undefined || !whole) return;
    const last = reached.get(opNumber(flow.number, event.op));
    if (last !== undefined && event.unit <= last) return;
    this.#unknown++;
    const op = wordFor(OPS, event.op);
    const recorded = last === undefined ? `no ${op}` : `no ${op} beyond unit ${last}`;
    this.#diverge({ ...this.#where(flow, event), recorded, seen: `a ${op}` });
  }

  #where(flow: FlowState, { op, direction, unit }: SeenEvent): Pick<Divergence, "flow" | "op" | "direction" | "unit"> {
    return {
      flow: this.#decisions.flows[flow.number]?.words ?? "",
      op: wordFor(OPS, op),
      direction: wordFor(DIRECTIONS, direction),
      unit,
    };
  }

  /** The earliest decision that was not met, and how far its flow came. */
  #firstUnmet(): Divergence {
    const { events } = this.#decisions;
    let first = -1;
    for (let i = 0; i < events.count; i++) {
      if (this.#met[i] === 0 && (first < 0 || (events.at_ns[i] ?? 0) < (events.at_ns[first] ?? 0))) first = i;
    }
    const decided = eventAt(events, first);
    const flow = this.#flows.get(this.#decisions.flows[decided.flow]?.key ?? 0n);
    const seen = flow?.opened === true ? "the flow never came to it" : "the flow was never opened";
    const where = this.#where({ number: decided.flow, opened: true, places: new Map() }, decided);
    return { ...where, recorded: outcomeText(outcomeOf(decided)), seen };
  }

  /** What the recording has in a flow's place: none, or the one that differs in nothing but its port. */
  #likeOf(words: string): string {
    const shape = withAnyPort(words);
    const like = this.#decisions.flows.find((flow) => withAnyPort(flow.words) === shape);
    if (like === undefined) return "no such flow";
    return `no such flow, but ${like.words}: a flow is known by its peer's port too`;
  }

  #diverge(divergence: Divergence): void {
    if (this.#first !== undefined) return;
    this.#first = divergence;
    this.#onDivergence();
  }
}

/** What a decision hangs on, within its flow; of a conversation's end that it ended by this op. */
function placeOf(event: SeenEvent): number {
  const unit = endsConversation(event.fault) ? 0 : event.unit;
  return placeNumber({ ...event, unit }) * 32 + event.fault;
}

/** A peer without its port: `tcp:127.0.0.1:*#1@0`. */
function withAnyPort(words: string): string {
  return words.replace(/:\d+#/, ":*#");
}

interface SeenEvent {
  readonly op: number;
  readonly direction: number;
  readonly stage: number;
  readonly verdict: number;
  readonly fault: number;
  readonly unit: number;
  readonly value: number;
}

function readEvent(events: Buffer, words: Uint32Array, at: number): SeenEvent {
  return {
    op: events[at + AT.op] ?? 0,
    direction: events[at + AT.direction] ?? 0,
    stage: events[at + AT.stage] ?? 0,
    verdict: events[at + AT.verdict] ?? 0,
    fault: events[at + AT.fault] ?? 0,
    unit: wideAt(words, at + AT.unit),
    value: signedAt(words, at + AT.value),
  };
}
