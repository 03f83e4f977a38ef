/**
 * Finds the program a run will start, the way a shell would (PATH, `#!` lines), and says before it starts whether
 * the dynamic loader will take the interceptor into it. Reads files only; starts nothing.
 */

import { execFileSync } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { basename, join } from "node:path";

/** Why the interceptor cannot enter a program, in one word as evidence writes it. */
export type Unreachable = "static" | "setuid" | "setgid" | "capabilities" | "32-bit" | "libc" | "architecture";

/** A program that was found, and what is known of it before it starts. */
export interface Program {
  /** The file the kernel is asked to execute. */
  readonly path: string;
  /** The file that is really loaded: the interpreter at the end of the `#!` lines, else `path`. */
  readonly image: string;
  /** Why the interceptor cannot be preloaded, or undefined when it can. */
  readonly unreachable: Unreachable | undefined;
}

/** A program that cannot be started; `exitCode` is 126 or 127, as a shell has it. */
export class ProgramError extends Error {
  override readonly name = "ProgramError";
  readonly exitCode: 126 | 127;

  constructor(message: string, exitCode: 126 | 127) {
    super(message);
    this.exitCode = exitCode;
  }
}

const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";
const LONGEST_SHEBANG = 256;
const SHEBANG_CHAIN = 4;

/** Finds `command` as execvp(3) does and looks at what would be loaded. Throws {@link ProgramError}. */
export function findProgram(command: string, searchPath = process.env.PATH ?? DEFAULT_PATH): Program {
  const path = command.includes("/") ? checkExecutable(command) : searchInPath(command, searchPath);
  let image = path;
  for (let depth = 0; depth < SHEBANG_CHAIN; depth++) {
    const interpreter = readShebang(image);
    if (interpreter === undefined) break;
    try {
      image = checkExecutable(interpreter);
    } catch {
      throw new ProgramError(`cannot execute ${path}: its interpreter ${interpreter} cannot be executed`, 126);
    }
  }
  return { path, image, unreachable: inspectImage(image) };
}

function checkExecutable(path: string): string {
  const stats = statOf(path);
  if (stats === undefined) throw new ProgramError(`${path}: not found`, 127);
  if (stats.isDirectory()) throw new ProgramError(`cannot execute ${path}: it is a directory`, 126);
  if (!mayExecute(path)) throw new ProgramError(`cannot execute ${path}: permission denied`, 126);
  return path;
}

function searchInPath(command: string, searchPath: string): string {
  let denied: string | undefined;
  for (const directory of command === "" ? [] : searchPath.split(":")) {
    const candidate = join(directory === "" ? "." : directory, command);
    const found = candidate.includes("/") ? candidate : `./${candidate}`;
    const stats = statOf(found);
    if (stats === undefined || stats.isDirectory()) continue;
    if (mayExecute(found)) return found;
    denied ??= found;
  }
  if (denied !== undefined) throw new ProgramError(`cannot execute ${denied}: permission denied`, 126);
  throw new ProgramError(`${command === "" ? "an empty name" : command}: not found in PATH`, 127);
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

function mayExecute(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function readStart(path: string, size: number): Buffer {
  const file = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(size);
    return buffer.subarray(0, readSync(file, buffer, 0, size, 0));
  } finally {
    closeSync(file);
  }
}

/** The interpreter of a `#!` line; undefined where there is none or the file cannot be read. */
function readShebang(path: string): string | undefined {
  let start: Buffer;
  try {
    start = readStart(path, LONGEST_SHEBANG);
  } catch {
    return undefined;
  }
  return /^#![ \t]*([^\s]+)/.exec(start.toString("latin1"))?.[1];
}

/** Why the loader would not take the interceptor into this ELF file; undefined when it would, or it cannot be told. */
export function inspectImage(path: string): Unreachable | undefined {
  const stats = statOf(path);
  if (stats === undefined) return undefined;
  const elf = readElf(path);
  if (elf === "32-bit" || elf === "architecture") return elf;
  const privileged = inspectPrivilege(path, stats);
  if (privileged !== undefined || elf === undefined) return privileged;
  // The loader run by hand has no interpreter of its own and honours LD_PRELOAD all the same.
  if (elf.interpreter === undefined) return /^ld(64|-linux.*)?\.so/.test(basename(path)) ? undefined : "static";
  return /^ld(64|-linux.*)?\.so/.test(basename(elf.interpreter)) ? undefined : "libc";
}

/** ld.so(8), secure-execution mode: LD_PRELOAD is ignored where executing the file changes rights. */
function inspectPrivilege(path: string, stats: Stats): Unreachable | undefined {
  const setuid = (stats.mode & 0o4000) !== 0 && stats.uid !== process.getuid?.();
  const setgid = (stats.mode & 0o2010) === 0o2010 && stats.gid !== process.getgid?.();
  if (setuid || setgid) {
    if (/^NoNewPrivs:\s*1/m.test(readFileSync("/proc/self/status", "latin1"))) return undefined;
    return setuid ? "setuid" : "setgid";
  }
  // Root gains nothing by a file's capabilities, so that executing it is not "secure".
  return process.getuid?.() !== 0 && hasCapabilities(path) ? "capabilities" : undefined;
}

/** Node cannot read extended attributes; getcap(8) can, and where it is missing the run finds out once it started. */
function hasCapabilities(path: string): boolean {
  const getcap = ["/usr/sbin/getcap", "/sbin/getcap"].find((file) => existsSync(file));
  if (getcap === undefined) return false;
  try {
    return execFileSync(getcap, [path], { stdio: ["ignore", "pipe", "ignore"] }).length > 0;
  } catch {
    return false;
  }
}

const ELF_MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };
const PT_INTERP = 3;
const MOST_PROGRAM_HEADERS = 512;

/** The part of an ELF file that decides; undefined when it is not a (readable, whole) ELF file. */
function readElf(path: string): { interpreter: string | undefined } | "32-bit" | "architecture" | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    const read = (offset: number, size: number): Buffer => {
      const buffer = Buffer.alloc(size);
      return buffer.subarray(0, readSync(file, buffer, 0, size, offset));
    };
    const header = read(0, 64);
    if (header.length < 52 || header.toString("latin1", 0, 4) !== "\x7fELF") return undefined;
    if (header[4] === 1) return "32-bit";
    const littleEndian = header[5] === 1;
    if (header.length < 64 || !littleEndian || header.readUInt16LE(18) !== ELF_MACHINES[process.arch]) {
      return "architecture";
    }
    const tableOffset = Number(header.readBigUInt64LE(32));
    const entrySize = header.readUInt16LE(54);
    const entries = Math.min(header.readUInt16LE(56), MOST_PROGRAM_HEADERS);
    const table = read(tableOffset, entrySize * entries);
    for (let entry = 0; entrySize >= 56 && (entry + 1) * entrySize <= table.length; entry++) {
      const at = entry * entrySize;
      if (table.readUInt32LE(at) !== PT_INTERP) continue;
      const size = Math.min(Number(table.readBigUInt64LE(at + 32)), 4096);
      const text = read(Number(table.readBigUInt64LE(at + 8)), size).toString("latin1");
      return { interpreter: text.replace(/\0.*$/s, "") };
    }
    return { interpreter: undefined };
  } catch {
    return undefined;
  } finally {
    closeSync(file);
  }
}

/** A sentence's words for why a program is not intercepted. */
export function describeUnreachable(reason: Unreachable): string {
  switch (reason) {
    case "static":
      return "it is statically linked, so that no loader takes the interceptor in";
    case "setuid":
      return "it is setuid, and the loader ignores LD_PRELOAD there";
    case "setgid":
      return "it is setgid, and the loader ignores LD_PRELOAD there";
    case "capabilities":
      return "its file has capabilities, and the loader ignores LD_PRELOAD there";
    case "32-bit":
      return "it is a 32-bit program and the interceptor is 64-bit";
    case "libc":
      return "it is not linked with glibc, which the interceptor needs";
    case "architecture":
      return "it is made for another processor";
  }
}
