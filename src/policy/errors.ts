/**
 * The one error of this folder, and how its sentence is put together. A person reads it, so it says what was
 * wrong, where, and what would be right; nothing here ever shows a stack trace.
 */

const LONGEST_VALUE_SHOWN = 80;

/** Says what is wrong with a policy, in one sentence. */
export class PolicyError extends Error {
  override readonly name: string = "PolicyError";
  /** Where it is wrong, such as `uplink.rate` or `targets[0].port`; empty for the policy as a whole. */
  readonly path: string;
  /** What is wrong and what would be right, without the place and the value. */
  readonly problem: string;
  /** The value as written, where it is one that can be shown. */
  readonly value: unknown;

  constructor(path: string, problem: string, value?: unknown) {
    super(sentence(path, problem, value));
    this.path = path;
    this.problem = problem;
    this.value = value;
  }
}

function sentence(path: string, problem: string, value: unknown): string {
  const shown = showValue(value);
  const where = [path, shown].filter((part) => part !== "").join(" ");
  return `${where === "" ? "the policy" : where}: ${problem}`;
}

/** The value as a sentence quotes it; empty for what is too large to quote (objects, lists) and for nothing at all. */
export function showValue(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number" || typeof value === "boolean" || value === null) return String(value);
  if (typeof value === "bigint") return clip(String(value));
  return "";
}

/** A text in double quotes, cut to what one line can carry, with nothing in it that a terminal would act on. */
export function quote(text: string): string {
  const unseen = /[\u007f-\u009f\u2028\u2029]/g;
  return JSON.stringify(clip(text)).replace(unseen, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Cuts a text to what one line can carry. */
export function clip(text: string): string {
  return text.length <= LONGEST_VALUE_SHOWN ? text : `${text.slice(0, LONGEST_VALUE_SHOWN)}…`;
}

/** Turns path parts into what a person reads: `["targets", 0, "port"]` becomes `targets[0].port`. */
export function joinPath(parts: readonly PropertyKey[]): string {
  return parts.reduce<string>((path, part) => {
    if (typeof part === "number") return `${path}[${part}]`;
    return path === "" ? String(part) : `${path}.${String(part)}`;
  }, "");
}

/** The sentence for a key that is not there. */
export function unknownField(key: string, known: readonly string[]): string {
  return `unknown field ${quote(key)}; the nearest is ${nearest(key, known)}`;
}

/** The candidate with the smallest Levenshtein distance to `word`. */
export function nearest(word: string, candidates: readonly string[]): string {
  const typed = word.slice(0, LONGEST_VALUE_SHOWN);
  let best = "";
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const distance = levenshtein(typed, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function levenshtein(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const shorter = Math.min((previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1);
      current.push(Math.min(replaced, shorter));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
