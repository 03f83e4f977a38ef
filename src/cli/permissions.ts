/** The flags that permit something to a script; every command that runs scripts has the same ones. */

import { type Command, Option } from "commander";
import { EVERYTHING, KINDS, type Kind } from "../script/wish.js";
import { fromConfigFile, fromFlags, fromHeader, PermissionsError, type WrittenPermissions } from "../script/written.js";
import { UsageError } from "./errors.js";

const GROUP = "What scripts may do:";

const HELP: Readonly<Record<Kind, readonly [values: string, help: string]>> = {
  read: ["paths", "read these files and folders (--allow-read=./traces)"],
  write: ["paths", "write these files and folders (--allow-write=./out)"],
  net: ["hosts", "reach and listen at these hosts (--allow-net=api.local:443,[::1])"],
  env: ["names", "know these variables (--allow-env=HOME,AWS_*)"],
  run: ["programs", "run these programs (--allow-run=git)"],
};
/** Flags whose value may be left out: then they mean all of their kind. */
const BARE = new Set(["allow", "deny"].flatMap((sense) => KINDS.map((kind) => `--${sense}-${kind}`)));

/** What a command line says about the permissions of its scripts. */
export interface PermissionFlags {
  /** What the flags and the config file grant and deny, as written. */
  readonly written: readonly WrittenPermissions[];
  /** Whether somebody may be asked. */
  readonly prompt: boolean;
  /** Where grants and denials are logged. */
  readonly log?: string;
}

/** Adds the flags to a command, whose arguments go through {@link preparePermissionArguments} before. */
export function permissionOptions(command: Command): void {
  const add = (option: Option): Command => command.addOption(option.helpGroup(GROUP));
  const collect = (given: string, earlier: string[] | undefined): string[] => [...(earlier ?? []), given];
  for (const kind of KINDS) {
    const [values, help] = HELP[kind];
    add(new Option(`--allow-${kind} [${values}]`, help).preset(EVERYTHING).argParser(collect));
    add(new Option(`--deny-${kind} [${values}]`, "all but these").preset(EVERYTHING).argParser(collect));
  }
  add(new Option("--allow-sys", "know about this system: its name, memory, users and addresses"));
  add(new Option("--deny-sys", "not even with --allow-all"));
  add(new Option("-A, --allow-all", "everything that is not denied"));
  add(new Option("--script-config <file>", "grant and deny what this file says (permissions.yaml)"));
  add(new Option("--no-prompt", "never ask on the terminal: what was not granted is denied"));
  add(new Option("--permission-log <file>", "write every grant and denial as a line of JSON (permissions.jsonl)"));
}

/** Values are written with `=`; without one, the next word is a word of its own, which the parser would take otherwise. */
export function preparePermissionArguments(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  return args.map((word, at) => (BARE.has(word) && (end < 0 || at < end) ? `${word}=${EVERYTHING}` : word));
}

/**
 * What the command line says, from the parser's values.
 * @throws UsageError for a value that is none.
 */
export function permissionFlags(values: Readonly<Record<string, unknown>>): PermissionFlags {
  const flags = ["allow", "deny"].flatMap((sense) =>
    KINDS.flatMap((kind) => {
      const given = values[`${sense}${kind[0]?.toUpperCase()}${kind.slice(1)}`];
      return Array.isArray(given) ? given.map((value) => `--${sense}-${kind}=${value}`) : [];
    }),
  );
  if (values.allowSys === true) flags.push("--allow-sys");
  if (values.denySys === true) flags.push("--deny-sys");
  if (values.allowAll === true) flags.push("--allow-all");
  const { scriptConfig: config, permissionLog: log } = values;
  return asUsage(() => ({
    written: [fromFlags(flags), ...(typeof config === "string" ? [fromConfigFile(config)] : [])],
    prompt: values.prompt !== false,
    ...(typeof log === "string" ? { log } : {}),
  }));
}

/** What a script's header declares; throws a UsageError. */
export function declaredPermissions(text: string, file: string): WrittenPermissions {
  return asUsage(() => fromHeader(text, file));
}

/** Calls what may throw a PermissionsError, which becomes one of the command line's. */
export function asUsage<Result>(call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    throw error instanceof PermissionsError ? new UsageError(error.message) : error;
  }
}
