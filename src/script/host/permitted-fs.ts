/**
 * Files, as a script's permissions have them. The kernel decides; this says in PermissionDenied what it refused, and has
 * the broker open what was granted by name and did not exist when the jail was made.
 */

import fs from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isRefusal, type Questions } from "./questions.js";

type Access = "read" | "write";
type Call = (...args: unknown[]) => unknown;

/** What each path of each function of node:fs needs, whether it waits, calls back or promises. */
const PATHS: Readonly<Record<string, readonly Access[]>> = {
  access: ["read"],
  appendFile: ["write"],
  chmod: ["write"],
  chown: ["write"],
  copyFile: ["read", "write"],
  cp: ["read", "write"],
  lchown: ["write"],
  link: ["read", "write"],
  lstat: ["read"],
  lutimes: ["write"],
  mkdir: ["write"],
  mkdtemp: ["write"],
  open: ["read"],
  opendir: ["read"],
  readFile: ["read"],
  readdir: ["read"],
  readlink: ["read"],
  realpath: ["read"],
  rename: ["write", "write"],
  rm: ["write"],
  rmdir: ["write"],
  stat: ["read"],
  statfs: ["read"],
  truncate: ["write"],
  unlink: ["write"],
  utimes: ["write"],
  writeFile: ["write"],
};

/** How these open their file, where the broker can do it for them. */
const LATE: Readonly<Record<string, (args: readonly unknown[]) => unknown>> = {
  appendFile: ([, , options]) => flagOf(options) ?? "a",
  open: ([, flags]) => (typeof flags === "function" ? "r" : (flags ?? "r")),
  readFile: ([, options]) => flagOf(options) ?? "r",
  writeFile: ([, , options]) => flagOf(options) ?? "w",
};

/** Changes node:fs in this thread. Its ESM names follow when they are synchronised. */
export function permitFiles(questions: Questions): void {
  const calls = fs as unknown as Record<string, Call>;
  const promised = fs.promises as unknown as Record<string, Call>;
  const waiting = Object.fromEntries(Object.keys(LATE).map((name) => [name, calls[`${name}Sync`]]));
  const close = fs.closeSync;
  const { emitWarning } = process;
  // A worker warns of descriptors that it closes and did not open, as those from the broker.
  process.emitWarning = (warning: string | Error, ...rest: unknown[]) => {
    if (!/^File descriptor \d+ /.test(String(warning))) Reflect.apply(emitWarning, process, [warning, ...rest]);
  };

  /** The result that the broker's descriptor gives, or what a script should be told. */
  const recover = (name: string, args: readonly unknown[], error: unknown, givesHandle: boolean): unknown => {
    const [path] = args.map(pathOf);
    if (!isRefusal(error) || path === undefined) throw error;
    const how = LATE[name]?.(args);
    const flags = how === "r" || how === "w" || how === "a" ? how : undefined;
    if (flags !== undefined && !givesHandle) {
      const fd = questions.askForDescriptor({ ask: "open", path, flags }, error.code);
      if (name === "open") return fd;
      try {
        return waiting[name]?.(fd, ...args.slice(1).filter((each) => typeof each !== "function"));
      } finally {
        close(fd);
      }
    }
    throw explain(name, args, error, how);
  };

  const explain = (name: string, args: readonly unknown[], error: unknown, how: unknown): unknown => {
    let explained = error;
    (PATHS[name] ?? []).forEach((access, at) => {
      const path = pathOf(args[at]);
      const needs = name === "open" && how !== "r" && how !== fs.constants.O_RDONLY ? "write" : access;
      if (path !== undefined && explained === error) explained = questions.explain(error, needs, path);
    });
    return explained;
  };

  for (const name of Object.keys(PATHS)) {
    replace(
      calls,
      `${name}Sync`,
      (original) =>
        function (this: unknown, ...args) {
          try {
            return original.apply(this, args);
          } catch (error) {
            return recover(name, args, error, false);
          }
        },
    );
    replace(
      calls,
      name,
      (original) =>
        function (this: unknown, ...args) {
          const callback = args.at(-1);
          if (typeof callback !== "function") return original.apply(this, args);
          return original.call(this, ...args.slice(0, -1), (error: unknown, ...results: unknown[]) => {
            if (!(error instanceof Error)) return callback(error, ...results);
            let outcome: unknown[];
            try {
              outcome = [null, recover(name, args, error, false)];
            } catch (reason) {
              outcome = [reason];
            }
            callback(...outcome);
          });
        },
    );
    replace(
      promised,
      name,
      (original) =>
        async function (this: unknown, ...args) {
          try {
            return await original.apply(this, args);
          } catch (error) {
            // No descriptor becomes a FileHandle.
            return recover(name, args, error, name === "open");
          }
        },
    );
  }
}

function replace(owner: Record<string, Call>, name: string, wrap: (original: Call) => Call): void {
  const original = owner[name];
  if (original !== undefined) owner[name] = Object.assign(wrap(original), original); // realpath.native is one's own
}

function pathOf(value: unknown): string | undefined {
  try {
    if (typeof value === "string") return resolve(value);
    if (value instanceof Uint8Array) return resolve(Buffer.from(value).toString());
    if (value instanceof URL) return fileURLToPath(value);
  } catch {
    // Not a path then.
  }
  return undefined;
}

function flagOf(options: unknown): unknown {
  return typeof options === "object" && options !== null && "flag" in options ? options.flag : undefined;
}
