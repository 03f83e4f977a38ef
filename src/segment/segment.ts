/**
 * The segment of a run: the shared memory through which the run tells interceptors what to do, and they tell it what
 * they did. Its creator owns it, puts it in force and removes it; anybody of the same user may open it to look, or to
 * retire it.
 */

import { findSegmentFiles, newSegmentPath, SEGMENT_DIRECTORY, sweep } from "./files.js";
import { TimeHistogram } from "./histogram.js";
import { Codec, type Layout, type StructValue } from "./layout.js";
import { type ByDirection, type Capacities, type NativeSegment, native } from "./native.js";

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
  capacities?: Partial<Capacities>;
  /** Default: /dev/shm. */
  directory?: string;
}

/** How a segment is put in force. */
export interface ActivateOptions {
  /** The project's binding: a policy index, or -1 for none. */
  defaultPolicy: number;
  /** Some target says `unix://`. */
  unix: boolean;
  /** Some target needs host names. */
  names: boolean;
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

const DEFAULT_DRAIN = 4096;

export class Segment {
  readonly path: string;
  /** Rows of each table; fewer than asked for when {@link shrunk}. */
  readonly capacities: Capacities;
  /** True when the file system had no room for the capacities asked for. */
  readonly shrunk: boolean;
  readonly #native: NativeSegment;
  readonly #journal: boolean;
  readonly #seed: bigint;

  private constructor(path: string, opened: NativeSegment, journal: boolean, seed: bigint) {
    this.path = path;
    this.#native = opened;
    this.capacities = opened.capacities;
    this.shrunk = opened.shrunk;
    this.#journal = journal;
    this.#seed = seed;
  }

  /**
   * Makes a segment, paused, after removing what earlier runs of this user left behind. Shrinks to fit; throws an
   * Error with `code` ENOSPC when not even the smallest fits.
   */
  static create(options: CreateOptions): Segment {
    const directory = options.directory ?? SEGMENT_DIRECTORY;
    sweep(directory);
    const path = newSegmentPath(options.project, directory);
    const journal = options.journal ?? false;
    const capacities: Capacities = {
      policies: 8,
      bindings: 4096,
      processes: 1024,
      owners: 16384,
      flows: 16384,
      events: journal ? 65536 : 1024,
      ...options.capacities,
    };
    return new Segment(path, new native.NativeSegment(path, capacities), journal, options.seed);
  }

  /** Opens a segment of this user. Throws an Error that says what is wrong with it, in one sentence. */
  static open(path: string): Segment {
    return new Segment(path, new native.NativeSegment(path), false, 0n);
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
   * is the number of rules; a name too long for its row is cut.
   */
  publish(policy: number, row: StructValue, targets: readonly StructValue[]): void {
    const name = codec.struct("Row").fields.find((field) => field.name === "name");
    const fitted = { ...row, target_count: targets.length };
    if (name !== undefined && typeof row.name === "string") {
      Object.assign(fitted, { name: cutToBytes(row.name, name.size - 1) });
    }
    this.#native.publishRow(policy, codec.encode("Row", fitted), codec.encodeAll("Target", targets));
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

  /** Puts the segment in force until {@link close}, {@link retire} or the death of this process. */
  activate(options: ActivateOptions): void {
    const { headerJournal = 0, headerUnix = 0, headerNames = 0 } = layout.constants;
    const flags =
      (this.#journal ? headerJournal : 0) | (options.unix ? headerUnix : 0) | (options.names ? headerNames : 0);
    this.#native.activate(options.defaultPolicy, flags, this.#seed);
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
   * Delivered times of a fault, by its name in the contract's Fault or its number.
   *
   * @param direction - `uplink`, `downlink`, or `both` merged
   */
  histogram(policy: number, fault: string | number, direction: string): TimeHistogram {
    const { timedFaults = 0, directions = 0 } = layout.constants;
    const number = typeof fault === "number" ? fault : numberOf("Fault", fault);
    if (number >= timedFaults) throw new RangeError(`${nameOf("Fault", number)} takes no time and has no histogram`);
    const wanted =
      direction === "both" ? Array.from({ length: directions }, (_, i) => i) : [numberOf("Direction", direction)];
    const region = numberOf("Region", "histograms");
    const first = (policy * timedFaults + number) * directions;
    return new TimeHistogram(
      codec,
      wanted.map((side) => this.#native.readStruct(region, first + side)),
    );
  }

  /** Units of chance and ops that flows of this policy carried, by direction. */
  flowTotals(policy: number): { units: ByDirection; ops: ByDirection } {
    return this.#native.flowTotals(policy);
  }

  /** All flows seen and all ops they made, faulted or not. */
  totals(): { flows: number; ops: number } {
    return this.#native.totals();
  }

  /** The next journal events in order, each once; for the owner alone. */
  drainJournal(max = DEFAULT_DRAIN): StructValue[] {
    return codec.decodeAll("Event", this.#native.drainJournal(max));
  }

  /** Undefined, or what has become wrong with the segment or its file, such as `it is not there`. */
  check(): string | undefined {
    return this.#native.check();
  }
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
