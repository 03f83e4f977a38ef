/**
 * Finds the flows of a run that the interceptor does not carry. Descendants of the program come from /proc; those that
 * did not register in the segment's process table within a moment are looked at, and their network sockets, found by
 * inode in the kernel's own listing (sock_diag, no rights needed), are the escaped flows.
 */

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { EscapedFlow } from "../report/schema.js";
import { native } from "../segment/native.js";
import { inspectImage } from "./program.js";

/** A process that carries the interceptor, by the segment's process table. */
export interface AttachedProcess {
  readonly pid: number;
  readonly startTicks: bigint;
}

interface Descendant {
  readonly pid: number;
  readonly startTicks: bigint;
  readonly firstSeenMs: number;
}

/** Longer than a dynamically linked program takes from exec to its registration. */
const REGISTRATION_MS = 100;
const FIRST_LOOK_MS = 60;
const LOOK_EVERY_MS = 250;
const SOCKET_PREFIX = "socket:[";

/** Watches the processes of one run. */
export class EscapeWatch {
  readonly #attached: () => readonly AttachedProcess[];
  /** Until the next look at escaped programs' sockets; where the kernel witnesses them too, there is no hurry. */
  readonly #soonMs: number;
  readonly #root: number;
  readonly #environmentMark: string;
  readonly #family = new Map<number, Descendant>();
  /** Start times of processes that are not of this run, so that each is looked at once. */
  readonly #strangers = new Map<number, bigint>();
  readonly #found = new Map<string, EscapedFlow>();
  readonly #programs = new Map<number, { startTicks: bigint; program: string; reason: string }>();
  readonly #hidden: string[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(rootPid: number, segmentPath: string, attached: () => readonly AttachedProcess[], witnessed: boolean) {
    this.#soonMs = witnessed ? LOOK_EVERY_MS : REGISTRATION_MS;
    this.#root = rootPid;
    this.#environmentMark = `MISHAP_SEGMENT=${segmentPath}\0`;
    this.#attached = attached;
    this.#schedule(FIRST_LOOK_MS);
  }

  /** Ends the watch; what was found, one entry a socket. */
  stop(): EscapedFlow[] {
    clearTimeout(this.#timer);
    return [...this.#found.values()];
  }

  /** The program of a process that does not carry the interceptor, and why; undefined for one that was not seen. */
  find(pid: number): { readonly program: string; readonly reason: string } | undefined {
    return this.#programs.get(pid);
  }

  /** What could not be looked into, one sentence each. */
  get notes(): string[] {
    return this.#hidden.map((process) => `${process} is not intercepted, and only root can see whether it has flows`);
  }

  #schedule(delayMs: number): void {
    this.#timer = setTimeout(() => {
      const lookAgainMs = this.#look();
      this.#schedule(lookAgainMs);
    }, delayMs);
    this.#timer.unref();
  }

  /** One look; answers when to look again. */
  #look(): number {
    this.#growFamily();
    const attached = new Map(this.#attached().map(({ pid, startTicks }) => [pid, startTicks]));
    const nowMs = performance.now();
    const missing = [...this.#family.values()].filter(({ pid, startTicks }) => attached.get(pid) !== startTicks);
    const late = missing.filter(({ firstSeenMs }) => nowMs - firstSeenMs >= REGISTRATION_MS);
    if (late.length > 0) this.#lookAtSockets(late);
    if (missing.length > late.length) return REGISTRATION_MS;
    return late.length > 0 ? this.#soonMs : LOOK_EVERY_MS;
  }

  #growFamily(): void {
    const living = new Set<number>();
    const fresh: { pid: number; parent: number; startTicks: bigint }[] = [];
    for (const entry of readdirSync("/proc")) {
      const pid = Number(entry);
      if (!Number.isInteger(pid) || pid === process.pid) continue;
      living.add(pid);
      if (this.#strangers.has(pid) || this.#family.has(pid)) continue;
      const stat = readStat(pid);
      if (stat !== undefined) fresh.push({ pid, ...stat });
    }
    for (const pid of this.#family.keys()) if (!living.has(pid)) this.#family.delete(pid);
    for (const pid of this.#strangers.keys()) if (!living.has(pid)) this.#strangers.delete(pid);

    // A child may be listed before its parent: go on until nothing is added.
    const nowMs = performance.now();
    for (let added = true; added; ) {
      added = false;
      for (const { pid, parent, startTicks } of fresh) {
        if (this.#family.has(pid)) continue;
        if (pid !== this.#root && !this.#family.has(parent) && !this.#isMarked(pid)) continue;
        this.#family.set(pid, { pid, startTicks, firstSeenMs: nowMs });
        added = true;
      }
    }
    for (const { pid, startTicks } of fresh) if (!this.#family.has(pid)) this.#strangers.set(pid, startTicks);
  }

  /** A child whose parent is gone is still known by the environment it was started with. */
  #isMarked(pid: number): boolean {
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").includes(this.#environmentMark);
    } catch {
      return false;
    }
  }

  #lookAtSockets(processes: readonly Descendant[]): void {
    const owners = new Map<number, number>();
    for (const { pid, startTicks } of processes) {
      if (readStat(pid)?.startTicks !== startTicks) continue;
      this.#nameProgram(pid, startTicks);
      for (const inode of socketInodes(pid)) owners.set(inode, pid);
    }
    if (owners.size === 0) return;
    for (const socket of native.listSockets()) {
      const pid = owners.get(socket.inode);
      if (pid === undefined || socket.state === "listen") continue;
      const known = this.#programs.get(pid);
      if (known === undefined) continue;
      const { address, port } = socket.peer;
      if (socket.protocol === "tcp" && port === 0) continue;
      const host = address.includes(":") ? `[${address}]` : address;
      const peer = port === 0 ? "*:*" : `${host}:${port}`;
      this.#found.set(`${socket.cookie}`, { peer, pid, program: known.program, reason: known.reason });
    }
  }

  #nameProgram(pid: number, startTicks: bigint): void {
    if (this.#programs.get(pid)?.startTicks === startTicks) return;
    const image = readLink(`/proc/${pid}/exe`);
    const program = image === "" ? nameOfHidden(pid) : basename(image).replace(/ \(deleted\)$/, "");
    const reason = image === "" ? gainedRights(pid) : inspectImage(`/proc/${pid}/exe`);
    this.#programs.set(pid, { startTicks, program, reason: reason ?? "not attached" });
    if (image === "") this.#hidden.push(`${program} (pid ${pid}, ${reason ?? "another user's"})`);
  }
}

/** Parent and start time of a process that lives (proc(5), stat fields 4 and 22). */
function readStat(pid: number): { parent: number; startTicks: bigint } | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    return { parent: Number(fields[1]), startTicks: BigInt(fields[19] ?? "0") };
  } catch {
    return undefined;
  }
}

/** The name of a process that /proc hides because it has rights that we do not. */
function nameOfHidden(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "latin1").trim();
  } catch {
    return "unknown";
  }
}

/** By what such a process got its rights (proc(5), status: effective ids are the second, capabilities in hexadecimal). */
function gainedRights(pid: number): string | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    if (Number(/^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1]) !== process.geteuid?.()) return "setuid";
    if (Number(/^Gid:\s+\d+\s+(\d+)/m.exec(status)?.[1]) !== process.getegid?.()) return "setgid";
    return /^CapPrm:\s+0+$/m.test(status) ? undefined : "capabilities";
  } catch {
    return undefined;
  }
}

function socketInodes(pid: number): number[] {
  const directory = `/proc/${pid}/fd`;
  const inodes: number[] = [];
  try {
    for (const fd of readdirSync(directory)) {
      const link = readLink(`${directory}/${fd}`);
      if (link.startsWith(SOCKET_PREFIX)) inodes.push(Number(link.slice(SOCKET_PREFIX.length, -1)));
    }
  } catch {
    // It ended, or it runs as another user.
  }
  return inodes;
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
