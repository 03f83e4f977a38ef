/**
 * The words of the numbers in a recording. They are the contract's (a test compares them with it) and part of the
 * format: a number never changes its meaning, new ones are added at the end.
 */

import { FAULTS } from "../policy/contract.js";

/** OpKind. */
export const OPS = ["connect", "send", "recv", "dns"] as const;
/** Direction. */
export const DIRECTIONS = ["uplink", "downlink"] as const;
/** Stage: R0 to R8. */
export const STAGES = [
  "resolve",
  "session_guard",
  "chaos_base",
  "flow_control",
  "timing",
  "transport",
  "resolver",
  "payload",
  "post_routing",
] as const;
/** Verdict. */
export const VERDICTS = [
  "continue",
  "delay",
  "drop",
  "timeout",
  "error",
  "nxdomain",
  "mutate",
  "reorder",
  "duplicate",
  "skipped",
] as const;
/** Fault. */
export const FAULT_WORDS: readonly string[] = Object.keys(FAULTS);

/** The verdict of an op that went on as it was. */
export const CONTINUE = VERDICTS.indexOf("continue");

/** The word of a number; the number itself where a later version of mishap gave it one. */
export function wordFor(words: readonly string[], number: number): string {
  return words[number] ?? String(number);
}
