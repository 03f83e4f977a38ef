/**
 * The policies of this process, by name: registered here or in another of its threads, or brought by the run. Under the
 * interceptor each has a slot of the run's segment, which is what all threads share; elsewhere names are only kept.
 */

import { isDeepStrictEqual } from "node:util";
import { loadPolicyFile } from "../policy/files.js";
import {
  type CompiledPolicy,
  compile,
  decompile,
  nearest,
  type Policy,
  PolicyError,
  type PolicyFields,
  type PolicyInput,
  parseFields,
  toCamelKeys,
} from "../policy/index.js";
import type { PolicySlot, Segment } from "../segment/index.js";
import { compiledAt, publishAt } from "./compiled.js";
import { atThreadExit, runSegment } from "./inside.js";
import { UNNAMED } from "./published.js";

/** A slot that this thread claimed. At no users its policy is withdrawn, and the slot kept for the next. */
interface Slot {
  readonly index: number;
  users: number;
}

/** The bytes of the contract's `name`, without its NUL. */
const LONGEST_NAME = 63;
/** Names of inline policies begin so, those of registered ones never. */
const INLINE = "{";

/** What this thread registered, by name. */
const registered = new Map<string, Policy>();
/** By name or {@link inlineKey}; those let go longest ago come first among those without users. */
const slots = new Map<string, Slot>();
let runSeed: bigint | undefined;

/**
 * Registers a policy under a name, or gives the name other fields, which hold at once.
 *
 * @throws PolicyError for a bad name or field, or when the run has no slot left; nothing has changed then
 */
export function registerPolicy(name: string, fields: PolicyFields): void {
  register(new Map([[name, parseFields(fields)]]));
}

/**
 * Registers every policy of a file (`.json`, `.yaml`, `.yml`), all or none.
 *
 * @returns how many there were
 * @throws PolicyError that names file, line and column
 */
export function loadPolicies(path: string): number {
  const policies = loadPolicyFile(path);
  register(policies);
  return policies.size;
}

/** Takes a policy out of force and out of the registry; false when this process has registered none of this name. */
export function unregisterPolicy(name: string): boolean {
  const known = registered.delete(name);
  const segment = runSegment();
  if (segment === undefined) return known;
  const index = findHere(segment, name);
  if (index === undefined) return false;
  const own = slots.get(name);
  if (own?.index === index) letGo(segment, name, own, 0);
  else segment.withdrawPolicy(index);
  return true;
}

/**
 * The fields of a policy: as they were given where this thread gave them, else in their normal form. Undefined for a
 * name that nobody has registered.
 */
export function getPolicy(name: string): PolicyFields | undefined {
  const own = registered.get(name);
  const segment = runSegment();
  if (segment === undefined) return own && toCamelKeys(own.written);
  const index = findHere(segment, name) ?? findOfRun(segment, name);
  const inForce = index === undefined ? undefined : readBack(segment, index);
  if (own === undefined || inForce === undefined) return inForce && toCamelKeys(inForce);
  const given = asPublished(segment, compileFor(segment, name, own));
  return toCamelKeys(isDeepStrictEqual(given, inForce) ? own.written : inForce);
}

/** The names of all policies, sorted: this process's and those that the run brought from files. */
export function listPolicies(): string[] {
  const segment = runSegment();
  const names =
    segment === undefined
      ? registered.keys()
      : [...named(segment, "here"), ...named(segment, "run")].map(({ name }) => name);
  return [...new Set(names)].sort();
}

/** The index of a policy in force, this process's before the run's. */
export function policyIndex(segment: Segment, name: string): number | undefined {
  const own = slots.get(name);
  if (own !== undefined && own.users > 0) return own.index;
  return findHere(segment, name) ?? findOfRun(segment, name);
}

/** The same where there has to be one: throws a PolicyError that begins with `what`. */
export function requirePolicy(segment: Segment, name: string, what: string): number {
  const index = policyIndex(segment, name);
  if (index !== undefined) return index;
  const names = listPolicies();
  const help =
    names.length > 0 ? `the nearest is ${nearest(name, names)}` : "registerPolicy or loadPolicies brings one";
  throw new PolicyError(what, `no policy has this name; ${help}`, name);
}

/** The name of the policy at an index; undefined for an inline one. */
export function policyName(segment: Segment, index: number): string | undefined {
  const name = segment.readPolicies().find((policy) => policy.index === index && !policy.withdrawn)?.name;
  return name?.startsWith(INLINE) ? undefined : name;
}

/** What inline fields share a slot by: the fields as written. */
export function inlineKey(fields: PolicyFields): string {
  const text = JSON.stringify(fields, (_, value: unknown) =>
    typeof value === "object" || typeof value === "string" ? value : `${typeof value} ${String(value)}`,
  );
  return `${INLINE}${text}`;
}

/** Puts inline fields in force until {@link dropInline} was called as often; `policy` is asked only when they are new. */
export function holdInline(segment: Segment, key: string, policy: () => Policy): number {
  const known = slots.get(key);
  if (known !== undefined) {
    if (known.users++ === 0) segment.restorePolicy(known.index);
    return known.index;
  }
  const given = policy();
  const compiled = compileFor(segment, displayName(given), given);
  const index = claim(segment, key);
  publishAt(segment, index, compiled);
  slots.set(key, { index, users: 1 });
  return index;
}

export function dropInline(segment: Segment, key: string): void {
  const slot = slots.get(key);
  if (slot !== undefined) letGo(segment, key, slot, slot.users - 1);
}

function register(policies: ReadonlyMap<string, Policy>): void {
  for (const name of policies.keys()) checkName(name);
  const segment = runSegment();
  if (segment !== undefined) publishAll(segment, policies);
  for (const [name, policy] of policies) registered.set(name, policy);
}

function checkName(name: unknown): void {
  const problem = (says: string): PolicyError =>
    new PolicyError("", `a policy's name ${says}, such as slow_link`, typeof name === "string" ? name : String(name));
  if (typeof name !== "string") throw problem("is text");
  if (Buffer.byteLength(name) > LONGEST_NAME) throw problem(`has at most ${LONGEST_NAME} bytes`);
  if (name.startsWith(INLINE)) throw problem(`does not begin with ${INLINE}, as those of inline policies do`);
  if (name === "auto") throw problem("is not auto, which means the policy of the context");
}

/** Compiles all, then claims all, then publishes, so that a failure leaves everything as it was. */
function publishAll(segment: Segment, policies: ReadonlyMap<string, Policy>): void {
  const compiled = [...policies].map(([name, policy]) => ({ name, policy: compileFor(segment, name, policy) }));
  const places = claimAll(segment, [...policies.keys()]);
  for (const { name, policy } of compiled) {
    const place = places.get(name);
    if (place === undefined) continue;
    publishAt(segment, place.index, policy);
    if (place.own) slots.set(name, { index: place.index, users: 1 });
  }
}

/** Where policies of these names belong: in the slot they have, be it another thread's or withdrawn, or in a free one. */
function claimAll(segment: Segment, names: readonly string[]): Map<string, { index: number; own: boolean }> {
  const here = new Map(
    segment.readPolicies().flatMap(({ held, name, index }) => (held === "here" ? [[name, index]] : [])),
  );
  const places = new Map<string, { index: number; own: boolean }>();
  for (const name of names) {
    const own = slots.get(name);
    const index = own?.index ?? here.get(name);
    if (index !== undefined) places.set(name, { index, own: own !== undefined });
  }
  const kept = new Set([...places.values()].map(({ index }) => index));
  const claimed: number[] = [];
  try {
    for (const name of names.filter((each) => !places.has(each))) {
      const index = claim(segment, name, kept);
      claimed.push(index);
      places.set(name, { index, own: true });
    }
  } catch (error) {
    for (const index of claimed) segment.releasePolicy(index);
    throw error;
  }
  return places;
}

/** A free slot; when there is none, the one whose policy was let go longest ago, unless it is kept. */
function claim(segment: Segment, name: string, kept: ReadonlySet<number> = new Set()): number {
  if (slots.size === 0) atThreadExit(() => giveBack(segment));
  for (;;) {
    const index = segment.claimPolicy();
    if (index >= 0) return index;
    const idle = [...slots].find(([, slot]) => slot.users === 0 && !kept.has(slot.index));
    if (idle === undefined) {
      const count = segment.readPolicies().filter(({ held }) => held !== "free").length;
      throw new PolicyError(
        "",
        `the run has no room for another policy, ${count} are registered; unregister some`,
        name,
      );
    }
    slots.delete(idle[0]);
    segment.releasePolicy(idle[1].index);
  }
}

/** A worker that ends leaves what it registered by name to the process. */
function giveBack(segment: Segment): void {
  for (const [key, { index, users }] of slots) {
    if (users === 0 || key.startsWith(INLINE)) segment.releasePolicy(index);
  }
}

function letGo(segment: Segment, key: string, slot: Slot, users: number): void {
  slot.users = users;
  if (users > 0) return;
  segment.withdrawPolicy(slot.index);
  slots.delete(key);
  slots.set(key, slot);
}

function seedOf(segment: Segment): bigint {
  if (runSeed === undefined) {
    const seed = segment.header().run_seed;
    runSeed = typeof seed === "bigint" ? seed : 0n;
  }
  return runSeed;
}

function compileFor(segment: Segment, name: string, policy: Policy): CompiledPolicy {
  if (policy.fields.decisions !== undefined) {
    throw new PolicyError("decisions", "hold for a whole run; give them to `mishap run --policy`");
  }
  return compile(name, policy, { runSeed: seedOf(segment) });
}

/** The normal form of what is published at an index. */
function readBack(segment: Segment, index: number): PolicyInput | undefined {
  const compiled = compiledAt(segment, index);
  return compiled && asPublished(segment, compiled);
}

/** A row always has a seed; the run's own is nothing that the policy says. */
function asPublished(segment: Segment, { row, targets }: CompiledPolicy): PolicyInput {
  const { seed, ...fields } = decompile(row, targets);
  return row.seed === seedOf(segment) ? fields : { ...fields, ...(seed !== undefined && { seed }) };
}

const findHere = (segment: Segment, name: string): number | undefined =>
  named(segment, "here").find((policy) => policy.name === name)?.index;
const findOfRun = (segment: Segment, name: string): number | undefined =>
  named(segment, "run").find((policy) => policy.name === name)?.index;

/** What this process or the run has in force under a name of its own. */
function named(segment: Segment, held: "here" | "run"): PolicySlot[] {
  const unnamed = (name: string): boolean => (held === "here" ? name.startsWith(INLINE) : name === UNNAMED);
  return segment.readPolicies().filter((policy) => policy.held === held && !policy.withdrawn && !unnamed(policy.name));
}

/** How evidence names inline fields: `{latency:50ms}`. */
export function displayName(policy: Policy): string {
  return JSON.stringify(toCamelKeys(policy.written)).replaceAll('"', "");
}
