/** What the rest of mishap uses of this folder. */

export { type Courier, startCourier } from "./courier.js";
export { contractDocument } from "./document.js";
export { newSegmentPath, projectId, SEGMENT_DIRECTORY, sweep } from "./files.js";
export type { TimeHistogram } from "./histogram.js";
export { startJanitor } from "./janitor.js";
export {
  Codec,
  type FieldLayout,
  type FieldValue,
  type Layout,
  type StructLayout,
  type StructValue,
} from "./layout.js";
export {
  type BothWays,
  type Capacities,
  type FlowAccount,
  type GivenQuestion,
  type NativeMailbox,
  native,
  nativeFolder,
  type PolicySlot,
  type ProcessAccount,
  type SocketEnd,
  type SocketInfo,
  type TargetOptions,
} from "./native.js";
export { AT, EVENT_BYTES, FLOW_OPENED, PAYLOAD, signedAt, textAt, wideAt } from "./raw-events.js";
export {
  type Carried,
  type CreateOptions,
  codec,
  layout,
  nameOf,
  numberOf,
  Segment,
  type SegmentSummary,
} from "./segment.js";
