/**
 * The words of the numbers in a recording. They are the contract's (a test compares them with it) and part of the
 * format: a number never changes its meaning, new ones are added at the end.
 */

import { FAULTS, VERDICTS } from "../policy/contract.js";

export { DIRECTIONS, OPS, STAGES, VERDICTS } from "../policy/contract.js";

/** Fault. */
export const FAULT_WORDS: readonly string[] = Object.keys(FAULTS);

/** The verdict of an op that went on as it was. */
export const CONTINUE = VERDICTS.indexOf("continue");

/** The verdict of an op that a schedule, or the other end, kept from all stages. */
export const SKIPPED = VERDICTS.indexOf("skipped");

/** The word of a number; the number itself where a later version of mishap gave it one. */
export function wordFor(words: readonly string[], number: number): string {
  return words[number] ?? String(number);
}
