/**
 * What a script may do, and how that is written: as flags of the command line, in a script's header and in a file. The
 * meanings are Deno's: what is not granted is denied, a denial beats a grant, paths hang on the working directory. All
 * values are resolved here, once: paths are real and absolute, programs are found, hosts have one spelling.
 */

import { accessSync, constants, readFileSync, realpathSync, statSync } from "node:fs";
import { isIPv4 } from "node:net";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { formatNetwork, parseNetwork } from "../policy/addresses.js";
import { nearest, quote } from "../policy/errors.js";
import { readSource } from "../policy/source.js";
import { EVERYTHING, escaped, KINDS, type Kind, PERMISSIONS, type Permission, type Wish } from "./wish.js";

/** Values of one kind, resolved; `only` is empty where `all` is true. */
export interface Grant {
  readonly all: boolean;
  readonly only: readonly string[];
}

/** What a script may do. */
export type Permissions = Readonly<Record<Kind, { readonly allow: Grant; readonly deny: Grant }>> & {
  readonly sys: boolean;
};

type Values = Readonly<Partial<Record<Permission, readonly string[]>>>;

/** Permissions as somebody wrote them, not resolved yet. */
export interface WrittenPermissions {
  readonly allow: Values;
  readonly deny: Values;
}

/** What written permissions are resolved against. */
export interface Surroundings {
  /** The folder that relative paths hang on, absolute. */
  readonly cwd: string;
  /** `PATH`, where programs are found by name. */
  readonly searchPath: string;
}

/** Says in one sentence what is wrong with written permissions. */
export class PermissionsError extends Error {
  override readonly name = "PermissionsError";
}

const EXAMPLES: Readonly<Record<Kind, string>> = {
  read: "./traces",
  write: "./out",
  net: "api.local:443",
  env: "HOME",
  run: "git",
};
const NOTHING: Grant = { all: false, only: [] };
const MAX_CONFIG_BYTES = 100_000;
const HEADER_EXAMPLE = "// @permissions read=./traces net=api.local:443";

/** Nothing is permitted. */
export const NO_PERMISSIONS: Permissions = {
  read: { allow: NOTHING, deny: NOTHING },
  write: { allow: NOTHING, deny: NOTHING },
  net: { allow: NOTHING, deny: NOTHING },
  env: { allow: NOTHING, deny: NOTHING },
  run: { allow: NOTHING, deny: NOTHING },
  sys: false,
};

/**
 * Permissions from flags such as `--allow-read`, `--allow-net=api.local:443,[::1]`, `--deny-run=git` and `-A`. A comma
 * within a value is written twice.
 * @throws PermissionsError for any other flag and for an empty value.
 */
export function fromFlags(flags: readonly string[]): WrittenPermissions {
  return written(
    flags.flatMap((flag): Word[] => {
      if (flag === "-A" || flag === "--allow-all") return PERMISSIONS.map((each) => ["allow", each, [EVERYTHING]]);
      const [, sense, word] = /^--(allow|deny)-(.*)$/s.exec(flag) ?? [];
      if (word === undefined || (sense !== "allow" && sense !== "deny")) {
        throw new PermissionsError(`${quote(flag)}: is no permission; write such as --allow-read=./traces`);
      }
      return [parseWord(sense, word, flag)];
    }),
  );
}

/**
 * What a script declares in the comments before its first code, such as `// @permissions read=./traces net=api.local:443`:
 * the words of the flags without `--allow-`, with spaces between; `deny-…` gives something up.
 *
 * @param text - the script
 * @param file - what errors call it
 * @throws PermissionsError with the file and line.
 */
export function fromHeader(text: string, file: string): WrittenPermissions {
  const header = /^(?:\uFEFF)?(?:#![^\n]*\n)?(?:\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/.exec(text)?.[0] ?? "";
  return written(
    header.split("\n").flatMap((line, at): Word[] => {
      const declared = /^\s*(?:\/\/|\/?\*+)\s*@permissions(?=\s|$)(.*?)(?:\*\/)?\s*$/.exec(line)?.[1];
      if (declared === undefined) return [];
      const place = `${file}:${at + 1}`;
      const words = declared.split(/\s+/).filter((word) => word !== "");
      if (words.length === 0) throw new PermissionsError(`${place}: declares nothing; write such as ${HEADER_EXAMPLE}`);
      return words.map((word) => {
        const [, deny, rest = ""] = /^(deny-)?(.*)$/s.exec(word) ?? [];
        return parseWord(deny === undefined ? "allow" : "deny", rest, `${place}: ${quote(word)}`);
      });
    }),
  );
}

const listed = z.union([z.literal(true), z.string(), z.array(z.string())]);
const side = z.strictObject({
  read: listed.optional(),
  write: listed.optional(),
  net: listed.optional(),
  env: listed.optional(),
  run: listed.optional(),
  sys: z.literal(true).optional(),
});
const configSchema = z.strictObject({ allow: side.optional(), deny: side.optional() });

/**
 * Permissions from a YAML file: `allow: { read: [./traces], sys: true }` and `deny: …`; `true` is all of a kind.
 * @throws PermissionsError with the file, line and column.
 */
export function fromConfigFile(file: string): WrittenPermissions {
  let text: string;
  try {
    if (statSync(file).size > MAX_CONFIG_BYTES) {
      throw new PermissionsError(`${file}: is too large; permissions have at most ${MAX_CONFIG_BYTES} bytes`);
    }
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof PermissionsError || !(error instanceof Error)) throw error;
    const reason = "code" in error ? String(error.code) : error.message;
    throw new PermissionsError(`${file}: cannot be read (${reason}); give a file that can`);
  }
  const read = readSource(text, "yaml");
  if ("problems" in read) {
    const [first] = read.problems;
    throw new PermissionsError(`${file}:${first?.place.line}:${first?.place.column}: ${first?.problem}`);
  }
  const parsed = configSchema.safeParse(read.ok.value);
  if (!parsed.success) {
    const path = parsed.error.issues[0]?.path ?? [];
    const { line, column } = read.ok.placeOf(path);
    const example = "allow: { read: [./traces], net: [api.local:443] }";
    throw new PermissionsError(`${file}:${line}:${column}: permissions are written such as ${example}, deny: alike`);
  }
  return written(
    (["allow", "deny"] as const).flatMap((sense) =>
      Object.entries(parsed.data[sense] ?? {}).map(([permission, values]): Word => {
        const list = values === true ? [EVERYTHING] : typeof values === "string" ? [values] : values;
        const known = PERMISSIONS.find((each) => each === permission) ?? "sys";
        const { line, column } = read.ok.placeOf([sense, permission]);
        return [sense, known, checkValues(known, list ?? [], `${file}:${line}:${column}: ${permission}`)];
      }),
    ),
  );
}

/**
 * Everything that is written together: what any of them grants, and without what any of them denies.
 * @throws PermissionsError for a value that is none, such as a program that is not found.
 */
export function resolvePermissions(all: readonly WrittenPermissions[], where: Surroundings): Permissions {
  const grantOf = (kind: Kind, sense: "allow" | "deny"): Grant =>
    grant(all.flatMap((each) => each[sense][kind] ?? []).map((value) => resolveValue(kind, value, sense, where)));
  const ruleOf = (kind: Kind) => ({ allow: grantOf(kind, "allow"), deny: grantOf(kind, "deny") });
  return {
    read: ruleOf("read"),
    write: ruleOf("write"),
    net: ruleOf("net"),
    env: ruleOf("env"),
    run: ruleOf("run"),
    sys: all.some(({ allow }) => allow.sys !== undefined) && !all.some(({ deny }) => deny.sys !== undefined),
  };
}

/** The flags that say just this, in a fixed order. */
export function toFlags(permissions: Permissions): string[] {
  return [
    ...KINDS.flatMap((kind) =>
      (["allow", "deny"] as const).flatMap((sense) => {
        const { all, only } = permissions[kind][sense];
        if (all) return [`--${sense}-${kind}`];
        return only.length === 0 ? [] : [`--${sense}-${kind}=${only.map(escaped).join(",")}`];
      }),
    ),
    ...(permissions.sys ? ["--allow-sys"] : []),
  ];
}

/**
 * Whether something is permitted.
 * @param value - resolved as a grant is: {@link realPathOf}, {@link netValue}, a variable's name; {@link EVERYTHING}
 */
export function isPermitted(permissions: Permissions, permission: Permission, value: string): boolean {
  if (permission === "sys") return permissions.sys;
  return covers(permission, permissions[permission].allow, value) && !isDenied(permissions, permission, value);
}

/** Whether something is denied whatever is granted. */
export function isDenied(permissions: Permissions, kind: Kind, value: string): boolean {
  return covers(kind, permissions[kind].deny, value);
}

/** What is declared and neither granted nor denied yet. */
export function missingPermissions(declared: Permissions, granted: Permissions): Wish[] {
  const wishes: Wish[] = KINDS.flatMap((kind) => {
    const { all, only } = declared[kind].allow;
    return (all ? [EVERYTHING] : only)
      .filter((value) => !covers(kind, granted[kind].allow, value) && !covers(kind, granted[kind].deny, value))
      .map((value) => ({ permission: kind, value }));
  });
  return declared.sys && !granted.sys ? [...wishes, { permission: "sys", value: EVERYTHING }] : wishes;
}

/** The same permissions with more granted. What is denied stays denied. */
export function withGranted(permissions: Permissions, { permission, value }: Wish): Permissions {
  if (permission === "sys") return { ...permissions, sys: true };
  const { allow, deny } = permissions[permission];
  return { ...permissions, [permission]: { allow: grant([...(allow.all ? [EVERYTHING] : allow.only), value]), deny } };
}

/** What a script gives up in its header: that holds without anybody's leave, what it asks for does not. */
export function onlyDenied({ deny }: WrittenPermissions): WrittenPermissions {
  return { allow: {}, deny };
}

/** All that is granted, one thing each. */
export function grantsOf(permissions: Permissions): Wish[] {
  const wishes: Wish[] = KINDS.flatMap((kind) => {
    const { all, only } = permissions[kind].allow;
    return (all ? [EVERYTHING] : only).map((value) => ({ permission: kind, value }));
  });
  return permissions.sys ? [...wishes, { permission: "sys", value: EVERYTHING }] : wishes;
}

/** The absolute path without symlinks; of what does not exist, the path that it would have. */
export function realPathOf(path: string): string {
  const absolute = resolve(path);
  try {
    return realpathSync.native(absolute);
  } catch {
    const parent = dirname(absolute);
    return parent === absolute ? absolute : join(realPathOf(parent), basename(absolute));
  }
}

/** A path is another one or lies beneath it. Both are real and absolute. */
export function isBeneath(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

/** A host in its one spelling: lower case, no dot at its end, IPv6 in brackets and shortest; nothing where it is none. */
export function hostOf(text: string): string | undefined {
  const bare = text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text;
  if (bare.includes(":")) {
    const network = bare.includes("/") ? undefined : parseNetwork(bare);
    if (network === undefined) return undefined;
    const host = formatNetwork(network);
    return isIPv4(host) ? host : `[${host}]`;
  }
  if (bare === "" || /[\s/?#@\\%*[\]]/.test(bare)) return undefined;
  try {
    return new URL(`http://${bare}/`).hostname.replace(/\.$/, "") || undefined;
  } catch {
    return undefined;
  }
}

/** How `net` names a host and its port; nothing where the host is none. */
export function netValue(host: string, port: number): string | undefined {
  const known = hostOf(host);
  return known === undefined ? undefined : `${known}:${port}`;
}

type Word = readonly [sense: "allow" | "deny", permission: Permission, values: readonly string[]];

function written(words: readonly Word[]): WrittenPermissions {
  const sum: Record<"allow" | "deny", Partial<Record<Permission, string[]>>> = { allow: {}, deny: {} };
  for (const [sense, permission, values] of words) {
    sum[sense][permission] = [...(sum[sense][permission] ?? []), ...values];
  }
  return sum;
}

/** `read`, or `read=./a,./b`. */
function parseWord(sense: "allow" | "deny", word: string, shown: string): Word {
  const at = word.indexOf("=");
  const name = at < 0 ? word : word.slice(0, at);
  const permission = PERMISSIONS.find((each) => each === name);
  if (permission === undefined) {
    const close = nearest(name, PERMISSIONS);
    throw new PermissionsError(`${shown}: there is no permission ${quote(name)}; the nearest is ${close}`);
  }
  if (at < 0) return [sense, permission, [EVERYTHING]];
  // A comma that belongs to a value is written twice.
  const values = word
    .slice(at + 1)
    .replaceAll(",,", "\0")
    .split(",")
    .map((value) => value.replaceAll("\0", ","));
  return [sense, permission, checkValues(permission, values, shown)];
}

function checkValues(permission: Permission, values: readonly string[], shown: string): readonly string[] {
  if (permission === "sys") {
    if (values.some((value) => value !== EVERYTHING)) {
      throw new PermissionsError(`${shown}: sys has no values; write --allow-sys`);
    }
  } else if (values.length === 0 || values.some((value) => value === "" || value.includes("\0"))) {
    throw new PermissionsError(`${shown}: has an empty value; write such as ${permission}=${EXAMPLES[permission]}`);
  }
  return values;
}

function grant(values: readonly string[]): Grant {
  if (values.includes(EVERYTHING)) return { all: true, only: [] };
  return { all: false, only: [...new Set(values)].sort() };
}

function resolveValue(kind: Kind, value: string, sense: "allow" | "deny", where: Surroundings): string {
  if (value === EVERYTHING) return value;
  const refuse = (problem: string): never => {
    throw new PermissionsError(`--${sense}-${kind}=${value}: ${problem}`);
  };
  switch (kind) {
    case "read":
    case "write":
      return realPathOf(resolve(where.cwd, value));
    case "net":
      return resolveNet(value) ?? refuse("is no host or host:port, such as api.local:443 or [::1]:80");
    case "env":
      if (/^[A-Za-z_][A-Za-z0-9_]*\*?$/.test(value)) return value;
      return refuse("is no name of a variable, such as HOME or AWS_*");
    case "run":
      return findProgram(value, where) ?? refuse("there is no such program; write a path, or a name found in PATH");
  }
}

function resolveNet(value: string): string | undefined {
  const [, bracketed, plain, digits] = /^(?:(\[[^\]]*\])|([^:[\]]*))(?::(\d{1,5}))?$/.exec(value) ?? [];
  const host = hostOf(bracketed ?? plain ?? value);
  if (host === undefined || digits === undefined) return host;
  return Number(digits) > 65535 ? undefined : `${host}:${Number(digits)}`;
}

/** The real path of a program, by its path or by its name in `PATH`; nothing where there is none. */
export function findProgram(name: string, { cwd, searchPath }: Surroundings): string | undefined {
  const places = name.includes("/") ? [name] : searchPath.split(delimiter).map((folder) => join(folder, name));
  for (const place of places) {
    const path = resolve(cwd, place);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return realpathSync.native(path);
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** Whether values of a kind hold one, which may itself stand for many: a folder, a host, a prefix. */
function covers(kind: Kind, { all, only }: Grant, value: string): boolean {
  if (all) return true;
  if (value === EVERYTHING) return false;
  switch (kind) {
    case "read":
    case "write":
      return only.some((folder) => isBeneath(value, folder));
    case "net":
      return only.includes(value) || only.includes(value.replace(/:\d+$/, ""));
    case "env":
      return only.some((name) => value === name || (name.endsWith("*") && value.startsWith(name.slice(0, -1))));
    case "run":
      return only.includes(value);
  }
}
