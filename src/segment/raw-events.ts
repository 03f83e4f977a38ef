/** The contract's Event in the bytes that were drained from the ring: read in place, because there may be millions. */

import { codec, numberOf } from "./segment.js";

/** Of one. */
export const EVENT_BYTES = codec.struct("Event").size;
/** The kind that names a flow. */
export const FLOW_OPENED = numberOf("EventKind", "flow_opened");
/** The kind that holds what an op carried. */
export const PAYLOAD = numberOf("EventKind", "payload");

/** Where an event's fields lie. */
export const AT = {
  key: offsetOf("key"),
  unit: offsetOf("unit"),
  value: offsetOf("value"),
  offset: offsetOf("offset"),
  at_ns: offsetOf("at_ns"),
  bytes: offsetOf("bytes"),
  kind: offsetOf("kind"),
  op: offsetOf("op"),
  direction: offsetOf("direction"),
  stage: offsetOf("stage"),
  verdict: offsetOf("verdict"),
  fault: offsetOf("fault"),
  policy: offsetOf("policy"),
  flow: offsetOf("flow"),
};

function offsetOf(name: string): number {
  const field = codec.struct("Event").fields.find((each) => each.name === name);
  if (field === undefined) throw new Error(`the contract's Event has no ${name}`);
  return field.offset;
}

/** A number of 64 bits, exact up to 2^53. */
export function wideAt(words: Uint32Array, at: number): number {
  return (words[at / 4 + 1] ?? 0) * 2 ** 32 + (words[at / 4] ?? 0);
}

/** The same with a sign. */
export function signedAt(words: Uint32Array, at: number): number {
  return ((words[at / 4 + 1] ?? 0) | 0) * 2 ** 32 + (words[at / 4] ?? 0);
}

/** A text that ends with NUL. */
export function textAt(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString("utf8", at, end < 0 ? bytes.length : end);
}
