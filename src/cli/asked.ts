/** What is asked for on the command line: the flags of faults, and policies by name or from files. */

import { type Command, Option } from "commander";
import type { PolicySource } from "../api/live.js";
import {
  type FlagValues,
  type Policy,
  PolicyError,
  parseDuration,
  policyFlags,
  policyFromFlags,
} from "../policy/index.js";
import { UsageError } from "./errors.js";

/** A flag of a command's own. */
export interface Flag {
  readonly flags: string;
  readonly help: string;
  readonly example?: string;
}

/** Adds a command's own flags, in a group of their own where it has a name. */
export function ownOptions(command: Command, flags: readonly Flag[], group: string): void {
  for (const { flags: form, help, example } of flags) {
    const option = new Option(form, withExample(help, example)).helpGroup(group);
    if (form.startsWith("--script-option"))
      option.default([]).argParser((given: string, earlier: readonly string[]) => [...earlier, given]);
    command.addOption(option);
  }
}

/** Adds the flag of every fault. */
export function policyOptions(command: Command): void {
  for (const flag of policyFlags) {
    const value = flag.boolean ? "[true|false]" : `<${flag.valueName}>`;
    const option = new Option(`${flag.name} ${value}`, withExample(flag.help, flag.boolean ? undefined : flag.example));
    option.argParser((given: string, earlier: string[] | undefined) => [...(earlier ?? []), given]);
    command.addOption(option.helpGroup(`${flag.group}:`));
  }
}

function withExample(help: string, example: string | undefined): string {
  return example === undefined ? help : `${help} (${example})`;
}

/** A right value of a flag: of a fault's, or of the command's own. */
export function exampleAmong(own: readonly Flag[], flag: string): string | undefined {
  const policyFlag = policyFlags.find(({ name }) => name === flag);
  return policyFlag?.example ?? own.find(({ flags }) => flags.split(" ")[0] === flag)?.example;
}

/** Boolean fields may be written without a value; the parser would take the next word for it. */
export function prepareFlags(
  args: readonly string[],
  own: readonly Flag[],
  bareToo: readonly string[] = [],
  prepare: (word: string) => string[] = (word) => [word],
): string[] {
  const booleans = new Set(policyFlags.filter(({ boolean }) => boolean).map(({ name }) => name));
  const bare = new Set([...own.filter(({ flags }) => !flags.includes("<")).map(({ flags }) => flags), ...bareToo]);
  const prepared = args.slice(0, 1);
  for (let at = 1; at < args.length; at++) {
    const word = args[at] ?? "";
    if (word === "--" || !word.startsWith("-")) return [...prepared, ...args.slice(at)];
    if (booleans.has(word)) {
      // A program of that name would hardly be given a long flag.
      const [next = "", behind = ""] = args.slice(at + 1);
      const given = ["true", "false"].includes(next) && behind.startsWith("--");
      prepared.push(`${word}=${given ? next : "true"}`);
      if (given) at++;
      continue;
    }
    prepared.push(...prepare(word));
    const takesNext = word.startsWith("--") && !word.includes("=") && !bare.has(word);
    if (takesNext && word !== "--help" && at + 1 < args.length) prepared.push(args[++at] ?? "");
  }
  return prepared;
}

/** What to run under: the flags alone, a policy by name with the flags' fields in place of its own, or a file of them. */
export async function askedFor(
  flags: Policy,
  { policies, policy }: Readonly<Record<string, unknown>>,
): Promise<Policy | PolicySource> {
  if (policy === undefined && policies === undefined) return flags;
  const { choosePolicy, policySource, withFields } = await import("../api/live.js");
  const name = policy === undefined ? undefined : String(policy);
  try {
    if (policies === undefined) return withFields(choosePolicy(String(name)), flags);
    const source = policySource(String(policies), name, flags);
    source.read(); // what is wrong with it is said before anything starts
    return source;
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(error.message);
    throw error;
  }
}

/** The policy that the flags ask for. */
export function policyOf(command: Command, values: Readonly<Record<string, unknown>>): Policy {
  const given: Record<string, string | string[]> = {};
  const known = new Set(policyFlags.map(({ name }) => name));
  for (const option of command.options) {
    const value = values[option.attributeName()];
    if (Array.isArray(value) && option.long && known.has(option.long)) given[option.long] = value.map(String);
  }
  const result = policyFromFlags(given satisfies FlagValues);
  if ("error" in result) throw new UsageError(result.error.message);
  return result.ok;
}

/** The nanoseconds of a duration that was written; undefined where none was. */
export function durationOf(flag: string, written: unknown, example: string): number | undefined {
  if (written === undefined) return undefined;
  try {
    const durationNs = parseDuration(written);
    if (durationNs > 0) return durationNs;
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(`${flag} ${String(written)}: ${error.problem}`);
    throw error;
  }
  throw new UsageError(`${flag} ${String(written)}: must be longer than nothing, such as ${example}`);
}
