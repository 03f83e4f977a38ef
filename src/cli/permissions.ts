/** The flags that permit something to a script; every command that runs scripts has the same ones. */

import { openSync, readFileSync } from "node:fs";
import { ReadStream, WriteStream } from "node:tty";
import { type Command, Option } from "commander";
import type { PermissionLog } from "../script/audit.js";
import type { Permissions } from "../script/permissions.js";
import { EVERYTHING, KINDS, type Kind } from "../script/wish.js";
import {
  fromConfigFile,
  fromFlags,
  fromHeader,
  onlyDenied,
  PermissionsError,
  type WrittenPermissions,
} from "../script/written.js";
import { printError, UsageError } from "./errors.js";

const GROUP = "Permissions of the script:";

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
  for (const option of options()) command.addOption(option.helpGroup(GROUP));
}

function options(): Option[] {
  const collect = (given: string, earlier: string[] | undefined): string[] => [...(earlier ?? []), given];
  const listed = (flags: string, help: string): Option => new Option(flags, help).preset(EVERYTHING).argParser(collect);
  return [
    ...KINDS.flatMap((kind) => {
      const [values, help] = HELP[kind];
      return [listed(`--allow-${kind} [${values}]`, help), listed(`--deny-${kind} [${values}]`, "all but these")];
    }),
    new Option("--allow-sys", "know about this system: its name, memory, users and addresses"),
    new Option("--deny-sys", "not even with --allow-all"),
    new Option("-A, --allow-all", "everything that is not denied"),
    new Option("--script-config <file>", "grant and deny what this file says (permissions.yaml)"),
    new Option("--no-prompt", "never ask on the terminal: what was not granted is denied"),
    new Option("--permission-log <file>", "write every grant and denial as a line of JSON (permissions.jsonl)"),
  ];
}

/** The flags that have no value, or may have none. */
export function barePermissionFlags(): string[] {
  return options().flatMap((option) => (option.required ? [] : [option.long ?? ""]));
}

/** The first of the flags that was given; undefined where none was. */
export function givenPermissionFlag(values: Readonly<Record<string, unknown>>): string | undefined {
  return options().find((option) => {
    const value = values[option.attributeName()];
    return option.negate ? value === false : value !== undefined;
  })?.long;
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

/** What a script may do, and where what it asks for is logged. */
export interface PermittedScript {
  readonly permissions: Permissions;
  readonly permissionLog: PermissionLog;
}

/**
 * What a script may do: what the command line grants, without what the script itself gives up; for the rest that it
 * declares, the terminal is asked. Throws a UsageError.
 *
 * @param script - its path
 * @param name - as the command line named it, which is what people are told
 */
export async function permitScript(script: string, name: string, flags: PermissionFlags): Promise<PermittedScript> {
  const { grantsOf, missingPermissions, resolvePermissions } = await import("../script/permissions.js");
  const { grantDeclared } = await import("../script/prompt.js");
  const cwd = process.cwd();
  const where = { cwd, searchPath: process.env.PATH ?? "" };
  const header = declaredPermissions(readFileSync(script, "utf8"), name);
  const [granted, declared] = asUsage(() => [
    resolvePermissions([...flags.written, onlyDenied(header)], where),
    resolvePermissions([header], where),
  ]);
  const log = await openLog(flags.log);
  log.writeGrants(grantsOf(granted), name);
  const terminal = flags.prompt && missingPermissions(declared, granted).length > 0 ? openTerminal() : undefined;
  try {
    const options = { script: name, cwd, log, terminal, onDenied: printError };
    return { permissions: await grantDeclared(declared, granted, options), permissionLog: log };
  } finally {
    terminal?.input.destroy();
    terminal?.output.destroy();
  }
}

async function openLog(file: string | undefined): Promise<PermissionLog> {
  const { PermissionLog } = await import("../script/audit.js");
  try {
    return new PermissionLog(file);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "it failed";
    throw new UsageError(
      `--permission-log ${file}: cannot be written (${code}); a path such as ./permissions.jsonl can`,
    );
  }
}

/** The terminal, whatever stdin is; undefined where there is none. */
function openTerminal(): { input: ReadStream; output: WriteStream } | undefined {
  try {
    return { input: new ReadStream(openSync("/dev/tty", "r")), output: new WriteStream(openSync("/dev/tty", "w")) };
  } catch {
    return undefined;
  }
}

/** Calls what may throw a PermissionsError, which becomes one of the command line's. */
export function asUsage<Result>(call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    throw error instanceof PermissionsError ? new UsageError(error.message) : error;
  }
}
