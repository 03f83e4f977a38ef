/**
 * Two recordings side by side, by flow identity and unit: what a decision hangs on, whatever threads and clocks did. Not
 * compared are times, sizes, the policies' slots, and how long a rate made something wait, which depends on the clock.
 */

import { FAULTS } from "../policy/contract.js";
import { eventAt, placeNumber, type RecordedEvent } from "./events.js";
import { tellApartWithout, withoutPassingPort } from "./passing-ports.js";
import type { Recording } from "./reader.js";
import { ANSWERED, CONTINUE, DIRECTIONS, FAULT_WORDS, OPS, STAGES, VERDICTS, wordFor } from "./words.js";

/** What was decided. */
export interface Outcome {
  verdict: string;
  fault: string;
  value: number;
}

/** A decision that only one recording has, or that the two have differently. */
export interface Difference {
  flow: string;
  direction: string;
  op: string;
  stage: string;
  unit: number;
  /** When, in nanoseconds since the start of the recording that has it; of the second where both do. */
  at_ns: number;
  /** Absent where only the second recording has it. */
  a?: Outcome;
  /** Absent where only the first recording has it. */
  b?: Outcome;
}

/** How two recordings differ. */
export interface RecordingDiff {
  /** Decisions that are the same in both. */
  same: number;
  only_a: number;
  only_b: number;
  /** In both, but differently. */
  different: number;
  /** By time. */
  differences: Difference[];
}

/** Decisions not met yet in the other recording: by flow, and by what else they hang on, in a number. */
type Open = Map<string, Map<number, RecordedEvent[]>>;

/** Compares two recordings. Ops that went on are compared where both recorded all. */
export function diffOf(a: Recording, b: Recording): RecordingDiff {
  const all = a.header?.record_all === true && b.header?.record_all === true;
  const open: Open = new Map();
  for (const event of decisions(a, all)) add(open, a.flowWords(event.flow), event);
  const flowOf = sameFlows([...open.keys()]);
  const diff: RecordingDiff = { same: 0, only_a: 0, only_b: 0, different: 0, differences: [] };
  for (const event of decisions(b, all)) {
    const match = open
      .get(flowOf(b.flowWords(event.flow)))
      ?.get(placeNumber(event))
      ?.shift();
    if (match === undefined) diff.only_b++;
    else if (isSame(match, event)) diff.same++;
    else diff.different++;
    if (match === undefined || !isSame(match, event)) {
      const before = match === undefined ? {} : { a: outcomeOf(match) };
      diff.differences.push({ ...placeOf(b, event), ...before, b: outcomeOf(event) });
    }
  }
  for (const ofFlow of open.values()) {
    for (const event of [...ofFlow.values()].flat()) {
      diff.only_a++;
      diff.differences.push({ ...placeOf(a, event), a: outcomeOf(event) });
    }
  }
  diff.differences.sort((x, y) => x.at_ns - y.at_ns);
  return diff;
}

/** The first recording's words for a flow of the second, which may differ in a port that passes. */
function sameFlows(known: readonly string[]): (words: string) => string {
  const exact = new Set(known);
  const passing = new Map<string, string>();
  if (tellApartWithout(known)) {
    for (const words of known) passing.set(withoutPassingPort(words), words);
  }
  return (words) => (exact.has(words) ? words : (passing.get(withoutPassingPort(words)) ?? words));
}

function* decisions(recording: Recording, all: boolean): Generator<RecordedEvent> {
  for (const { events } of recording.blocks()) {
    for (let i = 0; i < events.count; i++) if (all || events.verdict[i] !== CONTINUE) yield eventAt(events, i);
  }
}

function add(open: Open, flow: string, event: RecordedEvent): void {
  const ofFlow = open.get(flow) ?? new Map<number, RecordedEvent[]>();
  open.set(flow, ofFlow);
  const place = placeNumber(event);
  const queue = ofFlow.get(place);
  if (queue === undefined) ofFlow.set(place, [event]);
  else queue.push(event);
}

function isSame(a: RecordedEvent, b: RecordedEvent): boolean {
  if (a.verdict !== b.verdict) return false;
  if (a.verdict === CONTINUE || a.verdict === ANSWERED) return true; // rows are numbered as they come
  return a.fault === b.fault && (a.fault === FAULTS.rate || a.value === b.value);
}

function placeOf(recording: Recording, { flow, direction, op, stage, unit, at_ns }: RecordedEvent) {
  return {
    flow: recording.flowWords(flow),
    direction: wordFor(DIRECTIONS, direction),
    op: wordFor(OPS, op),
    stage: wordFor(STAGES, stage),
    unit,
    at_ns,
  };
}

/** What was decided, in words. */
export function outcomeOf({ verdict, fault, value }: Pick<RecordedEvent, "verdict" | "fault" | "value">): Outcome {
  return { verdict: wordFor(VERDICTS, verdict), fault: wordFor(FAULT_WORDS, fault), value };
}
