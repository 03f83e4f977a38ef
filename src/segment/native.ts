/**
 * The native addon, loaded once and typed. This folder is the project's segment from TypeScript: it knows the
 * contract's structs by the layout that the addon exports, and no offset, size or enum number of its own. What a
 * fault means, and what is printed about it, belongs elsewhere.
 */

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { Layout } from "./layout.js";

/** Rows of each table of a segment. */
export interface Capacities {
  policies: number;
  bindings: number;
  processes: number;
  owners: number;
  flows: number;
  events: number;
  /** Times of a policy's fault in a direction, given out with the first time. */
  histograms: number;
  /** What was decided beforehand. */
  decided: number;
}

/** A policy's slot. */
export interface PolicySlot {
  index: number;
  /** As in its row, where a long name is cut. */
  name: string;
  /** By this process, by `mishap run`, by another process, or by nobody any more. */
  held: "here" | "run" | "elsewhere" | "free";
  /** Unregistered: kept for evidence, in nobody's force. */
  withdrawn: boolean;
}

/** Bytes, uplink and downlink. */
export type BothWays = [uplink: number, downlink: number];

/**
 * What is known of bytes between a program's calls and the kernel's, where the kernel watches. Uplink the kernel sent
 * called + adjusted - held; downlink it handed out called - adjusted + held.
 */
export interface FlowAccount {
  cookie: bigint;
  /** Who opened it. */
  pid: number;
  /** The slot of the policy it resolved to; -1 none. */
  policy: number;
  /** By the program's own calls, as they returned. */
  called: BothWays;
  /** Injected + duplicated - dropped - cut. */
  adjusted: BothWays;
  /** Sent by the program and still here, or received and not handed over yet. */
  held: BothWays;
}

/** The sums of a process's flows that have no row of their own any more. */
export interface ProcessAccount {
  pid: number;
  flows: number;
  called: BothWays;
  adjusted: BothWays;
}

/** A mapped segment, in bytes. `Segment` gives them meaning. */
export interface NativeSegment {
  readonly capacities: Capacities;
  readonly shrunk: boolean;
  publishRow(policy: number, row: Uint8Array, targets: Uint8Array): void;
  claimPolicy(from: number): number;
  releasePolicy(policy: number): void;
  withdrawPolicy(policy: number): void;
  restorePolicy(policy: number): void;
  readPolicies(): PolicySlot[];
  bindThread(tid: number, policy: number): void;
  unbindThread(tid: number): void;
  boundPolicy(tid: number): number | undefined;
  bindProject(policy: number): void;
  bindSocket(fd: number, policy: number): void;
  clearSocket(fd: number): void;
  readRow(policy: number): Buffer | undefined;
  readTargets(policy: number): Buffer | undefined;
  readStruct(region: number, index: number): Buffer;
  readHeader(): Buffer;
  readProcesses(): Buffer;
  readFlows(): Buffer;
  carried(): Float64Array;
  /** Eight numbers a flow: key, open, ops, connects, connects that carried nothing, resets, bytes up and down. */
  flowCounts(): Float64Array;
  totals(): { flows: number; ops: number };
  accounts(): { flows: FlowAccount[]; processes: ProcessAccount[] };
  drainJournal(max: number): Buffer;
  decide(entries: Uint8Array): void;
  activate(
    defaultPolicy: number,
    flags: number,
    runSeed: bigint,
    scriptPatienceNs: number,
    datesArrivals: boolean,
  ): void;
  pause(): boolean;
  resume(): boolean;
  retire(): void;
  inForce(): boolean;
  check(): string | undefined;
  close(unlink: boolean): void;
}

/** What `next` of a mailbox fills in: see native/addon/mailbox.cpp. */
export type GivenQuestion = Float64Array;

/** The worker's side of a mailbox that this process was handed; it has one, whatever the number of its threads. */
export interface NativeMailbox {
  /** Nobody serves the lane any more. */
  leave(lane: number): void;
  /** Takes the next question that somebody still waits for; blocks the thread until there is one, or the time is up. */
  next(lane: number, timeoutMs: number, given: GivenQuestion): boolean;
  /** That question, as the contract's ScriptQuestion. */
  question(): Buffer;
  /** Answers it: by a row and its generation, or by 0, the policy's own fields. */
  answer(lane: number, row: number, generation: number, standing: number, amount: number): void;
  /** Fills in a row of the table, packed as the contract's Row; its generation. */
  publish(index: number, row: Uint8Array): number;
  /** How long the lane's worker has been at its question; 0: at none. */
  servingForMs(lane: number): number;
}

/** One end of a socket. */
export interface SocketEnd {
  address: string;
  port: number;
}

/** A TCP or UDP socket as the kernel lists it. */
export interface SocketInfo {
  protocol: "tcp" | "udp";
  family: "ipv4" | "ipv6";
  local: SocketEnd;
  peer: SocketEnd;
  /** `established`, `listen`, `syn_sent` and so on; UDP sockets are `established` or `close`. */
  state: string;
  /** As in `/proc/PID/fd`: `socket:[inode]`; 0 once no process holds it. */
  inode: number;
  cookie: bigint;
}

/** How {@link NativeAddon.spawnTarget} starts the program. */
export interface TargetOptions {
  cwd?: string;
  /** Descriptors beside 0, 1 and 2 that the program inherits. */
  keepFds?: readonly number[];
}

/** What build/Release/mishap.node exports. */
export interface NativeAddon {
  layout(): Layout;
  /** The lowest value of each histogram bucket in nanoseconds, and where the last one ends. */
  histogramBucketFloors(): Float64Array;
  NativeSegment: new (path: string, create?: Capacities) => NativeSegment;
  /** `new Mailbox(fd)` maps the mailbox for this process and closes the descriptor; `new Mailbox()` is what it mapped. */
  Mailbox: new (
    fd?: number,
  ) => NativeMailbox;
  /** Makes a mailbox with so many lanes; a descriptor of it, which is the caller's to close. */
  createMailbox(path: string, lanes: number): number;
  /** True for a segment file of this user that no living process needs any more. */
  isAbandoned(path: string): boolean;
  /**
   * Starts a program in our process group, with our terminal, default signal dispositions and exactly this environment.
   * When it stops, we stop. Throws an Error with `code` (ENOENT, EACCES, …) and `syscall` when it cannot be executed.
   *
   * @param file - path of the program; no search is made
   * @param argv - its arguments, from argv[0] on
   * @param env - its environment, each `NAME=value`
   * @param onExit - called once with the raw wait status
   * @returns the pid
   */
  spawnTarget(
    file: string,
    argv: readonly string[],
    env: readonly string[],
    options: TargetOptions,
    onExit: (status: number) => void,
  ): number;
  /** Two ends of a stream socket; each has to be closed, and no program that is started inherits them by itself. */
  socketPair(): [number, number];
  /**
   * Sends one line over a stream socket and blocks this thread until one comes back, with at most one descriptor, which
   * is the caller's to close. One at a time in a process, whichever thread asks. A line has at most 65535 bytes and no
   * line end in it. Throws an Error with `code`: EPIPE when nobody is at the other end any more.
   */
  request(fd: number, text: string): { text: string; descriptor: number | undefined };
  /**
   * Sends one line, and a copy of a descriptor with it. Never waits: throws an Error with `code` EAGAIN when the other
   * end has too many lines to read already.
   */
  reply(fd: number, text: string, descriptor?: number): void;
  /** Every TCP and UDP socket of this network namespace. */
  listSockets(): SocketInfo[];
  /**
   * The path of the segment that the interceptor in this process serves; undefined without one. From then on the flags
   * of getaddrinfo may name the policy of a look-up, 1 + its index, from bit 16 on.
   */
  intercepted(): string | undefined;
  /** Sockets that this thread opens from now on, and names that it looks up, are bound to a policy; -1: to none. */
  enterPolicy(policy: number): void;
  /** From now on no other process of this user can look into this one, take its descriptors or trace it. */
  hideProcess(): void;
  /** This thread, as the kernel numbers it. */
  threadId(): number;
}

/** The folder that holds what was built natively: the addon, the interceptor and the janitor. */
export const nativeFolder = fileURLToPath(new URL("../../build/Release/", import.meta.url));

function loadAddon(): NativeAddon {
  const path = `${nativeFolder}mishap.node`;
  try {
    return createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new Error(`mishap's native part could not be loaded (${reason}); build it with: npm run build`);
  }
}

/** The addon; loading it is the first thing that needs the native build. */
export const native: NativeAddon = loadAddon();
