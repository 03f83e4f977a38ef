/**
 * The jail of a script's host: the launcher's command line (docs/script-jail.md), with what the host itself has to read and
 * the files that the script is made of. Everything else is refused by the kernel.
 */

import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Grant, isBeneath, isPermitted, type Permissions } from "./permissions.js";
import { BROKER_FD, CONTROL_FD, MAILBOX_FD } from "./questions.js";

const pathOf = (fromHere: string): string => fileURLToPath(new URL(fromHere, import.meta.url));
const LAUNCHER = pathOf("../../build/Release/mishap-jail");
const ADDON = pathOf("../../build/Release/mishap.node");
/** Private memory of the whole process, beyond which allocations fail: array buffers are in no other limit. */
const MEMORY_BYTES = 2 ** 30;
/** What the host's own modules import. */
const PACKAGES = ["amaro", "piscina", "yaml", "zod"];

/** What a script's jail is made of. */
export interface JailOptions {
  /** The files that the script is made of. */
  readonly files: readonly string[];
  readonly permissions: Permissions;
  /** Whether the host maps a mailbox. */
  readonly mailbox: boolean;
  /** Goes on where the kernel has no Landlock, without what that stops. */
  readonly unsafe: boolean;
}

/** The command that the host's own follows. */
export function jailLaunch({ files, permissions, mailbox, unsafe }: JailOptions): string[] {
  const descriptors = [CONTROL_FD, BROKER_FD, ...(mailbox ? [MAILBOX_FD] : [])];
  const own = [pathOf("../"), pathOf("../../package.json"), ADDON, ...packageFolders(), ...files];
  const { net } = permissions;
  return [
    LAUNCHER,
    ...descriptors.flatMap((fd) => ["--keep-fd", String(fd)]),
    ...["--memory", String(MEMORY_BYTES)],
    ...[...own, ...readable(permissions)].flatMap((path) => ["--read", path]),
    ...writable(permissions).flatMap((path) => ["--write", path]),
    ...runnable(permissions).flatMap((path) => ["--run", path]),
    ...(isPermitted(permissions, "read", "/proc") ? ["--proc"] : []),
    ...(net.allow.all || net.allow.only.length > 0 ? ["--accept"] : []),
    ...(unsafe ? ["--unsafe-no-jail"] : []),
    "--",
  ];
}

/** Where the kernel and mishap keep what is nobody's to grant as a whole; `--proc` is what a process may know of itself. */
const KEPT = ["/proc", "/sys", "/dev/shm"];

function readable({ read }: Permissions): string[] {
  return pathsOf(read.allow).flatMap((path) => {
    const isNamed = isBeneath(path, "/proc/") || isBeneath(path, "/sys/");
    return rulesFor(path, [...pathsOf(read.deny), ...(isNamed ? [] : KEPT)], []);
  });
}

/**
 * A name that may be read, or may not, must go on standing for its file: who may write a folder may rename what is in it,
 * and the broker goes by names. So the folders that such names are in are not given as a whole.
 */
function writable({ read, write }: Permissions): string[] {
  return pathsOf(write.allow).flatMap((path) => {
    const isReadable = pathsOf(read.allow).some((folder) => isBeneath(path, folder));
    const names = [...pathsOf(read.deny), ...(isReadable ? [] : pathsOf(read.allow))];
    return rulesFor(path, [...pathsOf(write.deny), ...KEPT], names);
  });
}

/** All programs are those in the folders of PATH: to run a file means to read it, which is another permission. */
function runnable({ run }: Permissions): string[] {
  const { all, only } = run.allow;
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder.startsWith("/"));
  const found = all ? folders.filter((folder) => existsSync(folder)).map((folder) => realpathSync(folder)) : only;
  return [...new Set(found)].flatMap((path) => rulesFor(path, pathsOf(run.deny), []));
}

function pathsOf({ all, only }: Grant): readonly string[] {
  return all ? ["/"] : only;
}

/**
 * What has to be granted so that a path is, what is denied is not, and `apart` is by itself alone. The kernel's rules take
 * nothing back: a folder with such a path beneath it is granted by what is in it now, and the broker does the rest.
 */
function rulesFor(path: string, denied: readonly string[], apart: readonly string[]): string[] {
  if (denied.some((each) => isBeneath(path, each)) || !existsSync(path)) return [];
  if (![...denied, ...apart].some((each) => each !== path && isBeneath(each, path))) return [path];
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => !entry.isSymbolicLink()) // whose target has, or has not, a rule of its own
      .flatMap((entry) => rulesFor(join(path, entry.name), denied, apart));
  } catch {
    return []; // nobody can read that folder
  }
}

/** Where those packages and all that they need are, and nothing else of the folders that they are in. */
function packageFolders(): string[] {
  const folders = new Set<string>();
  const visit = (name: string, from: string): void => {
    const found = createRequire(from)
      .resolve.paths(name)
      ?.find((folder) => existsSync(join(folder, name, "package.json")));
    if (found === undefined) return; // an optional one
    const folder = realpathSync(join(found, name));
    if (folders.has(folder)) return;
    folders.add(folder);
    const file = join(folder, "package.json");
    const { dependencies, optionalDependencies } = JSON.parse(readFileSync(file, "utf8"));
    for (const each of Object.keys({ ...dependencies, ...optionalDependencies })) visit(each, file);
  };
  for (const name of PACKAGES) visit(name, import.meta.url);
  return [...folders];
}
