/**
 * What a script may do. The meanings are Deno's: what is not granted is denied, a denial beats a grant, paths hang on the
 * working directory. All values are resolved here, once: paths are real and absolute, programs are found, hosts have one
 * spelling.
 */

import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { isIPv4 } from "node:net";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { formatNetwork, parseNetwork } from "../policy/addresses.js";
import { EVERYTHING, escaped, KINDS, type Kind, type Permission, type Wish } from "./wish.js";
import { PermissionsError, type WrittenPermissions } from "./written.js";

/** Values of one kind, resolved; `only` is empty where `all` is true. */
export interface Grant {
  readonly all: boolean;
  readonly only: readonly string[];
}

/** What a script may do. */
export type Permissions = Readonly<Record<Kind, { readonly allow: Grant; readonly deny: Grant }>> & {
  readonly sys: boolean;
};

/** What written permissions are resolved against. */
export interface Surroundings {
  /** The folder that relative paths hang on, absolute. */
  readonly cwd: string;
  /** `PATH`, where programs are found by name. */
  readonly searchPath: string;
}

const NOTHING: Grant = { all: false, only: [] };
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
 * Everything that is written together: what any of them grants, without what any of them denies. A script's header comes
 * in by `onlyDenied` alone; resolved by itself it is what the script declares.
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

/** All that is granted, one thing each. */
export function grantsOf(permissions: Permissions): Wish[] {
  const wishes: Wish[] = KINDS.flatMap((kind) => {
    const { all, only } = permissions[kind].allow;
    return (all ? [EVERYTHING] : only).map((value) => ({ permission: kind, value }));
  });
  return permissions.sys ? [...wishes, { permission: "sys", value: EVERYTHING }] : wishes;
}

/** The variables that are granted, with what they are. */
export function variablesOf(
  permissions: Permissions,
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) =>
      value !== undefined && isPermitted(permissions, "env", name) ? [[name, value]] : [],
    ),
  );
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
