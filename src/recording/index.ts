/** What the rest of mishap uses of this folder. */

export {
  appendEvent,
  BlockBuilder,
  type EventBlock,
  type EventColumns,
  eventAt,
  type FlowIdentity,
  MAX_BLOCK_EVENTS,
  newColumns,
  type RecordedEvent,
} from "./events.js";
export type { RecordingEnd, RecordingGap, RecordingHeader } from "./format.js";
export { isGap, openRecording, Recording, RecordingError, type RecordingPart, type Wholeness } from "./reader.js";
export { type EndFacts, RecordingWriter } from "./writer.js";
