/** What the rest of mishap uses of this folder. */

export { type Cut, cut } from "./cut.js";
export { type Difference, diffOf, type Outcome, outcomeOf, type RecordingDiff } from "./diff.js";
export {
  appendEvent,
  BlockBuilder,
  type EventBlock,
  type EventColumns,
  eventAt,
  type FlowIdentity,
  MAX_BLOCK_EVENTS,
  newColumns,
  placeNumber,
  type RecordedEvent,
} from "./events.js";
export { type EventFilter, selection } from "./filter.js";
export { FORMAT_VERSION, type RecordingEnd, type RecordingGap, type RecordingHeader } from "./format.js";
export { type Imported, importLines } from "./import.js";
export { flowKey } from "./key.js";
export { withoutPassingPort } from "./passing-ports.js";
export { type Carried, type CarriedOp, carriedBy } from "./payload.js";
export { isGap, openRecording, Recording, RecordingError, type RecordingPart, type Wholeness } from "./reader.js";
export { type DecisionStats, type FlowStats, type RecordingStats, statsOf } from "./stats.js";
export {
  ANSWERED,
  CONTINUE,
  DIRECTIONS,
  endsConversation,
  FAULT_WORDS,
  isByTheClock,
  isFaults,
  OPS,
  SKIPPED,
  STAGES,
  VERDICTS,
  wordFor,
} from "./words.js";
export { type EndFacts, RecordingWriter } from "./writer.js";
