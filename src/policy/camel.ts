/**
 * Policies as TypeScript writes them. Files have snake_case keys, the API camelCase, by one rule that goes both ways:
 * `_x` is `X`, and an underscore that stands in a camelCase key is doubled, so that no two keys become one. Keys only;
 * values (`corrupt_bytes`, `uplink_only`) are the same in both.
 */

import { BUDGET_ACTIONS } from "./contract.js";
import { joinPath, PolicyError } from "./errors.js";
import { policyFlags } from "./flags.js";
import type { PolicyProblem } from "./problems.js";
import { type Policy, type PolicyInput, readPolicy } from "./schema.js";

type CamelKey<Key extends string> = Key extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelKey<Tail>>}`
  : Key;

/** A type with its keys in camelCase, at every depth. */
export type Camelized<T> = T extends readonly (infer Item)[]
  ? Camelized<Item>[]
  : T extends object
    ? { [Key in keyof T as Key extends string ? CamelKey<Key> : Key]: Camelized<T[Key]> }
    : T;

/** A policy as the TypeScript API takes it. */
export type PolicyFields = Camelized<PolicyInput>;

/** Objects in objects that a policy has at most (`targets[0].port`); what lies deeper is none of a policy's. */
const MAX_DEPTH = 4;

/** `packet_loss` → `packetLoss`, in a key or in a path such as `uplink.packet_loss`. */
export function camelPath(path: string): string {
  return path.replace(/__|_([a-z])/g, (_, letter?: string) => letter?.toUpperCase() ?? "_");
}

function snakeKey(key: string): string {
  return key.replace(/_|([A-Z])/g, (_, letter?: string) => (letter === undefined ? "__" : `_${letter.toLowerCase()}`));
}

/** A value with the keys of its objects in snake_case; it is left as it is. */
export function toSnakeKeys(fields: unknown): unknown {
  return withKeys(fields, snakeKey, MAX_DEPTH);
}

/** A value with the keys of its objects in camelCase; it is left as it is. */
export function toCamelKeys<T>(fields: T): Camelized<T>;
export function toCamelKeys(fields: unknown): unknown {
  return withKeys(fields, camelPath, MAX_DEPTH);
}

function withKeys(value: unknown, rename: (key: string) => string, depth: number): unknown {
  if (typeof value !== "object" || value === null || depth === 0) return value;
  if (Array.isArray(value)) return value.map((item) => withKeys(item, rename, depth - 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [rename(key), withKeys(each, rename, depth - 1)]),
  );
}

/** Checks a policy as the TypeScript API takes it. Throws a PolicyError that speaks camelCase. */
export function parseFields(fields: PolicyFields): Policy {
  const result = readPolicy(toSnakeKeys(fields));
  if ("ok" in result) return result.ok;
  const [first] = result.problems;
  throw new PolicyError(
    camelPath(joinPath(first?.parts ?? [])),
    first ? camelProblem(first) : "not a policy",
    first?.value,
  );
}

/** Keys that sentences mention; a word that is a value too (an action of a budget) is left alone. */
const KEYS = new Set(policyFlags.flatMap(({ path }) => path.split(".")).filter((key) => !(key in BUDGET_ACTIONS)));

function camelProblem({ problem, unknownKey }: PolicyProblem): string {
  // The sentence about an unknown key has nothing but keys in it.
  if (unknownKey !== undefined) return camelPath(problem);
  return problem.replace(/\w+/g, (word) => (KEYS.has(word) ? camelPath(word) : word));
}
