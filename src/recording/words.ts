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

/** The verdict of an op for which a script's answer decided, or by 0 none: its value says which. */
export const ANSWERED = VERDICTS.indexOf("answered");

/** Whether a verdict is a fault's. */
export function isFaults(verdict: number): boolean {
  return verdict !== CONTINUE && verdict !== SKIPPED && verdict !== ANSWERED;
}

const ENDING: ReadonlySet<number> = new Set([FAULTS.session_budget, FAULTS.half_open]);
const BY_THE_CLOCK: ReadonlySet<number> = new Set([FAULTS.rate, FAULTS.connect_timeout, FAULTS.recv_timeout]);

/** Whether a decision for this fault ended its conversation, so that every later op of it says so again. */
export function endsConversation(fault: number): boolean {
  return ENDING.has(fault);
}

/** Whether a fault is carried out from the policy, by the clock: what a recording has of it is no decision about a unit. */
export function isByTheClock(fault: number): boolean {
  return BY_THE_CLOCK.has(fault);
}

/** The word of a number; the number itself where a later version of mishap gave it one. */
export function wordFor(words: readonly string[], number: number): string {
  return words[number] ?? String(number);
}
