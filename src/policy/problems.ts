/** What the schema found wrong, in this folder's words: one entry a problem, each with its place. */

import type { z } from "zod";
import { joinPath, PolicyError } from "./errors.js";

/** One thing that is wrong with a policy. */
export interface PolicyProblem {
  /** Where, as keys and indices: `["targets", 0, "port"]`; empty for the policy as a whole. */
  readonly parts: readonly PropertyKey[];
  /** The key that does not exist there, where that is what is wrong. */
  readonly unknownKey?: string;
  /** What is wrong and what would be right. */
  readonly problem: string;
  /** The value as written. */
  readonly value: unknown;
}

/** Every problem of a failed parse, in the schema's order. */
export function problemsOf({ issues }: z.ZodError, written: unknown): PolicyProblem[] {
  return issues.flatMap((issue): PolicyProblem[] => {
    const parts = placeOf(issue.path, written);
    const value = valueAt(written, parts);
    if (issue.code !== "unrecognized_keys") return [{ parts, problem: issue.message, value }];
    // A block has one line for each unknown key (fields.ts), because zod has one issue for all of them.
    const lines = issue.message.split("\n");
    return issue.keys.map((unknownKey, at) => ({ parts, unknownKey, problem: lines[at] ?? issue.message, value }));
  });
}

/** The first problem as an error. */
export function firstError([first]: readonly PolicyProblem[]): PolicyError {
  if (first === undefined) return new PolicyError("", "not a policy, such as {latency: 50ms}");
  return new PolicyError(joinPath(first.parts), first.problem, first.value);
}

/** A rule written as text is checked as its `target` field; its place is the rule's. */
function placeOf(path: readonly PropertyKey[], written: unknown): PropertyKey[] {
  const isTextRule = path[0] === "targets" && typeof valueAt(written, path.slice(0, 2)) === "string";
  return isTextRule ? path.slice(0, 2) : [...path];
}

function valueAt(written: unknown, parts: readonly PropertyKey[]): unknown {
  return parts.reduce<unknown>((value, part) => {
    return typeof value === "object" && value !== null ? (value as Record<PropertyKey, unknown>)[part] : undefined;
  }, written);
}
