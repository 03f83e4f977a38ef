/**
 * Looks for a smallest subset of a recording's faults with which a command still fails. How a command is tried is said
 * from outside.
 */

import type { Atom } from "./atoms.js";
import { type Fails, minimiseByLevels } from "./ddmin.js";
import type { Tries } from "./tries.js";

/** What came of it. */
export type Found =
  /** With all faults the command does not fail. */
  | { readonly kind: "passes" }
  /** It fails without any. */
  | { readonly kind: "fails" }
  /** Of what is left, none can be left out. `confirmed`: in the end it was tried once more, and failed again. */
  | { readonly kind: "found"; readonly left: readonly Atom[]; readonly confirmed: boolean };

/** How a search goes on. */
export interface ShrinkEvents {
  /** How many subsets were tried so far, and how many faults are left. */
  onProgress(tries: number, left: number): void;
}

/**
 * Shrinks: first by policy and fault, then by flow, and last by single decisions. `tries` answers for subsets that were
 * tried before, and takes down the others.
 */
export async function shrink(
  all: readonly Atom[],
  fails: Fails<Atom>,
  tries: Tries,
  { onProgress }: ShrinkEvents,
): Promise<Found> {
  let left = all.length;
  const isFailing: Fails<Atom> = async (atoms) => {
    const keys = atoms.map(({ key }) => key);
    const answer = tries.outcome(keys) ?? (await fails(atoms));
    tries.add(keys, answer);
    onProgress(tries.asked, left);
    return answer;
  };
  onProgress(0, left);
  if (!(await isFailing(all))) return { kind: "passes" };
  if (await isFailing([])) return { kind: "fails" };
  const levels = [({ group }: Atom) => group, ({ flow }: Atom) => flow];
  const found = await minimiseByLevels(all, levels, isFailing, (fewer) => {
    left = fewer.length;
    onProgress(tries.asked, left);
  });
  return { kind: "found", left: found, confirmed: await fails(found) };
}
