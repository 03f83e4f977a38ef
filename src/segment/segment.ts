/**
 * The segment of a run: the shared memory through which the run tells interceptors what to do, and they tell it what
 * they did. Its creator owns it, puts it in force and removes it; anybody of the same user may open it to look, or to
 * retire it.
 */

import { findSegmentFiles, newSegmentPath, SEGMENT_DIRECTORY, sweep } from "./files.js";
import { TimeHistogram } from "./histogram.js";
import { Codec, type Layout, type StructValue } from "./layout.js";
import {
  type Capacities,
  type FlowAccount,
  type NativeSegment,
  native,
  type PolicySlot,
  type ProcessAccount,
} from "./native.js";

/** The contract, as it was compiled. */
export const layout: Layout = native.layout();
/** Encodes and decodes its structs. */
export const codec = new Codec(layout);

/** How a segment is made. */
export interface CreateOptions {
  project: string;
  /** The run's seed. */
  seed: bigint;
  /** Whether decisions are written to the journal. */
  journal?: boolean;
  /** Whether the journal is recorded: who writes to it then waits for room. */
  record?: boolean;
  /** Whether ops that continued are recorded too. */
  recordAll?: boolean;
  /** Whether what ops carried is recorded too. */
  recordPayload?: boolean;
  /** Whether programs may set faults by setpriority. */
  legacy?: boolean;
  /** Whether the kernel's witness is there. */
  kernel?: boolean;
  /** How long a program waits for a script's answer, where one is asked: its mailbox lies beside the segment. */
  scriptPatienceNs?: number | undefined;
  /** What is to happen in place of chance, packed as the contract's Decided. */
  decided?: Uint8Array;
  /** Whether flows are known without the ports that pass. */
  portless?: boolean;
  capacities?: Partial<Capacities>;
  /** Default: /dev/shm. */
  directory?: string;
  /** Where it goes, from `newSegmentPath`, when that has to be known beforehand. */
  path?: string;
}

/** What flows carried: uplink, downlink. */
export interface Carried {
  /** Units of chance. */
  units: [uplink: number, downlink: number];
  ops: [uplink: number, downlink: number];
  /** Of flows of datagrams. */
  datagramSends: number;
}

/** A segment that was found. */
export interface SegmentSummary {
  path: string;
  project: string;
  ownerPid: number;
  /** active, paused or retired. */
  state: string;
  /** Active, its owner alive, its lease renewed. */
  inForce: boolean;
}

export class Segment {
  readonly path: string;
  /** Rows of each table; fewer than asked for when {@link shrunk}. */
  readonly capacities: Capacities;
  /** True when the file system had no room for the capacities asked for. */
  readonly shrunk: boolean;
  readonly #native: NativeSegment;
  /** Of the header, from its start. */
  readonly #flags: number;
  readonly #seed: bigint;
  readonly #scriptPatienceNs: number;

  private constructor(path: string, opened: NativeSegment, flags: number, seed: bigint, scriptPatienceNs = 0) {
    this.path = path;
    this.#native = opened;
    this.capacities = opened.capacities;
    this.shrunk = opened.shrunk;
    this.#flags = flags;
    this.#seed = seed;
    this.#scriptPatienceNs = scriptPatienceNs;
  }

  /**
   * Makes a segment, paused, after removing what earlier runs of this user left behind. Shrinks to fit; throws an
   * Error with `code` ENOSPC when not even the smallest fits.
   */
  static create(options: CreateOptions): Segment {
    const directory = options.directory ?? SEGMENT_DIRECTORY;
    sweep(directory);
    const path = options.path ?? newSegmentPath(options.project, directory);
    const journal = options.journal || options.record;
    const capacities: Capacities = {
      policies: 256,
      bindings: 4096,
      processes: 1024,
      owners: 16384,
      flows: 16384,
      events: journal ? 65536 : 1024,
      histograms: 256,
      decided: Math.max(1, (options.decided?.length ?? 0) / codec.struct("Decided").size),
      ...options.capacities,
    };
    const opened = new native.NativeSegment(path, capacities);
    try {
      if (options.decided !== undefined) opened.decide(options.decided);
    } catch (error) {
      opened.close(true);
      throw error;
    }
    return new Segment(path, opened, headerFlags(options), options.seed, options.scriptPatienceNs);
  }

  /** Opens a segment of this user. Throws an Error that says what is wrong with it, in one sentence. */
  static open(path: string): Segment {
    return new Segment(path, new native.NativeSegment(path), 0, 0n);
  }

  /** This user's valid segments. */
  static list(directory = SEGMENT_DIRECTORY): SegmentSummary[] {
    return findSegmentFiles(directory).flatMap(({ path, project }) => {
      let segment: Segment;
      try {
        segment = Segment.open(path);
      } catch {
        return []; // gone meanwhile, or another version's
      }
      const header = segment.header();
      const inForce = segment.inForce();
      segment.close({ unlink: false });
      return [{ path, project, ownerPid: Number(header.owner_pid), state: nameOf("State", header.state), inForce }];
    });
  }

  /**
   * Publishes a policy's row and its target rules, highest priority first; flows look again at once. `target_count`
   * is the number of rules; a name too long for its row is cut. A withdrawn policy is in force again.
   */
  publish(policy: number, row: StructValue, targets: readonly StructValue[]): void {
    const name = codec.struct("Row").fields.find((field) => field.name === "name");
    const fitted = { ...row, target_count: targets.length };
    if (name !== undefined && typeof row.name === "string") {
      Object.assign(fitted, { name: cutToBytes(row.name, name.size - 1) });
    }
    this.#native.publishRow(policy, codec.encode("Row", fitted), codec.encodeAll("Target", targets));
  }

  /**
   * Holds a policy's slot for this process, from `from` on: one never used, else one that nobody holds any more.
   * Answers -1 when all are held.
   */
  claimPolicy(from = 0): number {
    return this.#native.claimPolicy(from);
  }

  /** Gives a slot back. What its policy did stays readable until somebody else holds it. */
  releasePolicy(policy: number): void {
    this.#native.releasePolicy(policy);
  }

  /** Takes a policy out of force: what is bound to it falls back to its next binding. */
  withdrawPolicy(policy: number): void {
    this.#native.withdrawPolicy(policy);
  }

  /** Puts a withdrawn policy back in force. */
  restorePolicy(policy: number): void {
    this.#native.restorePolicy(policy);
  }

  /** Every policy ever published, withdrawn ones included. */
  readPolicies(): PolicySlot[] {
    return this.#native.readPolicies();
  }

  /** Binds a thread of this process, or with 0 the whole process, to a policy, or with -1 explicitly to none. */
  bindThread(tid: number, policy: number): void {
    this.#native.bindThread(tid, policy);
  }

  unbindThread(tid: number): void {
    this.#native.unbindThread(tid);
  }

  /** What {@link bindThread} set; -1 for none, undefined where nothing is bound or its policy was withdrawn. */
  boundPolicy(tid: number): number | undefined {
    return this.#native.boundPolicy(tid);
  }

  /** The policy of everything that nothing else is bound to; -1 none. */
  bindProject(policy: number): void {
    this.#native.bindProject(policy);
  }

  /** Binds a socket to a policy, whoever uses it; throws an Error with `code` for what is no socket. */
  bindSocket(fd: number, policy: number): void {
    this.#native.bindSocket(fd, policy);
  }

  /** From now on a socket follows whichever thread uses it. */
  clearSocket(fd: number): void {
    this.#native.clearSocket(fd);
  }

  /** The row of a policy; undefined when it was never published. */
  readRow(policy: number): StructValue | undefined {
    const bytes = this.#native.readRow(policy);
    return bytes === undefined ? undefined : codec.decode("Row", bytes);
  }

  /** The rules of a policy, or its first `n`. */
  readTargets(policy: number, n?: number): StructValue[] {
    const bytes = this.#native.readTargets(policy);
    return bytes === undefined ? [] : codec.decodeAll("Target", bytes).slice(0, n);
  }

  /**
   * Puts the segment in force until {@link close}, {@link retire} or the death of this process.
   *
   * @param defaultPolicy - the project's binding: a policy's slot, or -1 for none
   * @param options - `intercepted`: programs carry the interceptor, to which the kernel has to date what arrives
   */
  activate(defaultPolicy: number, { intercepted = true } = {}): void {
    this.#native.activate(defaultPolicy, this.#flags, this.#seed, this.#scriptPatienceNs, intercepted);
  }

  /** Ends all faults until {@link resume}. */
  pause(): void {
    this.#native.pause();
  }

  resume(): void {
    this.#native.resume();
  }

  /** Ends all faults for good and wakes every wait of theirs; for any process of this user. */
  retire(): void {
    this.#native.retire();
  }

  /** Whether faults are applied at this moment. */
  inForce(): boolean {
    return this.#native.inForce();
  }

  /** Lets go of the segment; its owner also retires it. A second call does nothing. */
  close(options: { unlink: boolean }): void {
    this.#native.close(options.unlink);
  }

  header(): StructValue {
    return codec.decode("Header", this.#native.readHeader());
  }

  /** Every process that took part, those gone included. */
  processes(): StructValue[] {
    return codec.decodeAll("Process", this.#native.readProcesses());
  }

  /** The counters of a policy. */
  stats(policy: number): StructValue {
    return codec.decode("Stats", this.#native.readStruct(numberOf("Region", "stats"), policy));
  }

  /**
   * Delivered times of a fault, by its name in the contract's Fault or its number, of some policies and directions
   * (`uplink`, `downlink`) together.
   */
  histogram(policies: readonly number[], fault: string | number, directions: readonly string[]): TimeHistogram {
    const { timedFaults = 0, directions: sides = 0 } = layout.constants;
    const number = typeof fault === "number" ? fault : numberOf("Fault", fault);
    if (number >= timedFaults) throw new RangeError(`${nameOf("Fault", number)} takes no time and has no histogram`);
    // Rows are given to faults that were asked for; the others have no times.
    const rows = policies.flatMap((policy) => {
      const { histograms: given } = this.stats(policy);
      const at = directions.map((direction) => number * sides + numberOf("Direction", direction));
      return at.map((place) => (Array.isArray(given) ? Number(given[place] ?? 0) : 0)).filter((row) => row > 0);
    });
    const region = numberOf("Region", "histograms");
    return new TimeHistogram(
      codec,
      rows.map((row) => this.#native.readStruct(region, row - 1)),
    );
  }

  /** Every flow that has a row, those that ended included until their row is needed. */
  flows(): StructValue[] {
    return codec.decodeAll("Flow", this.#native.readFlows());
  }

  /** What the flows of each policy carried, by slot. */
  carried(): Carried[] {
    const numbers = this.#native.carried();
    return Array.from({ length: this.capacities.policies }, (_, slot) => {
      const [unitsUp = 0, unitsDown = 0, opsUp = 0, opsDown = 0, datagramSends = 0] = numbers.subarray(5 * slot);
      return { units: [unitsUp, unitsDown], ops: [opsUp, opsDown], datagramSends };
    });
  }

  /** What programs called and what faults made of it, by flow, and by process for flows without a row of their own. */
  accounts(): { flows: FlowAccount[]; processes: ProcessAccount[] } {
    return this.#native.accounts();
  }

  /** Each flow of a policy in numbers, as a script's worker takes them: see {@link NativeSegment.flowCounts}. */
  flowCounts(): Float64Array {
    return this.#native.flowCounts();
  }

  /** All flows seen and all ops they made, faulted or not. */
  totals(): { flows: number; ops: number } {
    return this.#native.totals();
  }

  /** The next journal events in order, each once, packed as the contract's Event; for the owner alone. */
  drainJournal(max: number): Buffer {
    return this.#native.drainJournal(max);
  }

  /** Undefined, or what has become wrong with the segment or its file, such as `it is not there`. */
  check(): string | undefined {
    return this.#native.check();
  }
}

/** What the header says of how the segment is used. */
function headerFlags({
  journal,
  record,
  recordAll,
  recordPayload,
  legacy,
  kernel,
  decided,
  portless,
  scriptPatienceNs,
}: CreateOptions): number {
  const asked = {
    headerJournal: journal || record,
    headerRecord: record,
    headerRecordAll: record && recordAll,
    headerRecordPayload: record && recordPayload,
    headerLegacy: legacy,
    headerKernel: kernel,
    headerDecided: decided !== undefined,
    headerPortless: portless,
    headerScript: scriptPatienceNs !== undefined,
  };
  return Object.entries(asked).reduce((flags, [name, on]) => (on ? flags | (layout.constants[name] ?? 0) : flags), 0);
}

/** The number of an enum's word; throws for a word it does not have. */
export function numberOf(enumName: string, word: string): number {
  const value = layout.enums[enumName]?.[word];
  if (value === undefined) {
    const words = Object.keys(layout.enums[enumName] ?? {}).join(", ");
    throw new RangeError(`${enumName} has no ${JSON.stringify(word)}; it has ${words}`);
  }
  return value;
}

/** The word of an enum's number; `unknown` for a number it does not have. */
export function nameOf(enumName: string, value: unknown): string {
  const found = Object.entries(layout.enums[enumName] ?? {}).find(([, number]) => number === Number(value));
  return found?.[0] ?? "unknown";
}

/** The longest start of a text that takes at most `bytes` in UTF-8. */
function cutToBytes(text: string, bytes: number): string {
  let cut = text;
  while (Buffer.byteLength(cut, "utf8") > bytes) cut = [...cut].slice(0, -1).join("");
  return cut;
}
