/**
 * The kernel's witness of one run: the loader beside it, the program born into its cgroup, and at the end what the
 * kernel saw, put together with what the interceptor says.
 */

import type { Policy } from "../policy/index.js";
import type { KernelFacts } from "../report/evidence.js";
import type { Accounts } from "../report/schema.js";
import { native, newSegmentPath, type Segment } from "../segment/index.js";
import { readAccounts, readAdjustments } from "./accounts.js";
import { treatmentOf } from "./before.js";
import { addUp, buildCoverage, type Coverage, type Known } from "./coverage.js";
import { WITHOUT } from "./hooks.js";
import type { Invoker } from "./invoker.js";
import { KernelError, type KernelReading, type Loader, startLoader } from "./loader.js";
import { witnessFault } from "./witnessed.js";
import type { KernelFlow, Treated } from "./words.js";

/** What the kernel's witness says of a run, and the flows that escaped. */
export interface Testimony {
  readonly facts: KernelFacts;
  readonly escaped: Coverage["escaped"];
  /** Every flow that it saw. */
  readonly flows: readonly KernelFlow[];
}

/** What runs already: a process, or all of a cgroup. */
export type Subject = { readonly pid: number } | { readonly cgroup: string };

/**
 * What carries faults out: the interceptor, inside the programs; the relay, which the kernel hands their connections to;
 * or the interceptor where it is, and the relay elsewhere.
 */
export type ExecutorChoice = "interceptor" | "relay" | "auto";

/** How a witness is started. */
export interface WitnessOptions {
  /** Whose the run is going to be; default: this process's user. */
  readonly owner?: Invoker | undefined;
  /** Who is to carry faults out; default: the interceptor. Others get a relay, from {@link Witness.relay} on. */
  readonly executor?: ExecutorChoice;
}

const GONE_WITHIN_MS = 2000;

/** A witness at work. */
export class Witness {
  /** Where the run's segment has to be: the interceptor finds the loader beside it. */
  readonly segmentPath: string;
  /** What evidence should say besides. */
  readonly notes: string[] = [];
  readonly #loader: Loader;
  readonly #startedMs = performance.now();
  #lost: string | undefined;

  /**
   * Starts the witness of what runs already, whose connections are to go to a relay. It needs root, or sudo.
   *
   * @param policy - of which it does what can be done to connections that are there
   * @throws KernelError with one sentence when it is not to be had
   */
  static async attach(project: string, subject: Subject, policy: Policy, owner?: Invoker): Promise<Witness> {
    const [flag, value] = "pid" in subject ? ["--pid", String(subject.pid)] : ["--cgroup", subject.cgroup];
    try {
      return await Witness.#begin("attach", project, owner, [flag, value, ...treatmentOf(policy).flags]);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      throw new KernelError(`${flag} ${value} cannot be attached to: ${error.message}`);
    }
  }

  /**
   * Starts the witness of this process's run. It needs root, or sudo.
   *
   * @param project - of the run
   * @throws KernelError with one sentence when it is not to be had
   */
  static async start(project: string, { owner, executor = "interceptor" }: WitnessOptions = {}): Promise<Witness> {
    try {
      // Arrivals are dated for the interceptor, and every program of the host pays for that.
      const parts = { interceptor: ["--arrivals"], relay: ["--relay"], auto: ["--arrivals", "--relay"] };
      const which = ["--for", String(process.pid), ...parts[executor]];
      return await Witness.#begin("run", project, owner, which);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      throw new KernelError(`the kernel's witness is not to be had: ${error.message}`);
    }
  }

  static async #begin(mode: string, project: string, owner: Invoker | undefined, which: string[]): Promise<Witness> {
    const uid = owner?.uid ?? process.getuid?.() ?? 0;
    const gid = owner?.gid ?? process.getgid?.() ?? 0;
    const path = newSegmentPath(project, undefined, uid);
    const whose = ["--uid", String(uid), "--gid", String(gid)];
    return new Witness(path, await startLoader([mode, "--segment", path, ...whose, ...which]));
  }

  private constructor(segmentPath: string, loader: Loader) {
    this.segmentPath = segmentPath;
    this.#loader = loader;
    native.hideProcess(); // the program runs as the same user and must not get at the loader's pipes
    for (const { name, for: purpose, ok, reason } of loader.ready.hooks) {
      const why = reason ?? "the kernel would not take it";
      if (!ok) this.notes.push(`the kernel's witness goes without ${name} (${why}): ${WITHOUT[purpose]}`);
    }
    void loader.ended.then((reason) => {
      if (reason !== undefined) this.#lose(reason);
    });
  }

  /** Resolves once the process that was attached to has ended, or the witness was lost. */
  async over(): Promise<"process" | "lost"> {
    const gone = this.#loader.subjectGone.then(() => "process" as const);
    return await Promise.race([gone, this.#loader.ended.then(() => "lost" as const)]);
  }

  /**
   * From now on the run's connections go to the relay, which needs its segment. Throws a {@link KernelError}. Of an attach,
   * answers what came of the connections that were there before; nothing that was seen so far is told later.
   */
  async relay(): Promise<Treated | undefined> {
    try {
      const before = await this.#loader.relay();
      if (before !== undefined) await this.#loader.flows();
      return before;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      throw new KernelError(`the relay is not to be had: ${error.message}`);
    }
  }

  /** Resolves once all that the relay was given has gone its way; it takes no connection any more. */
  async drained(): Promise<void> {
    await this.#loader.drain().catch(() => {
      // It was lost, and says so itself.
    });
  }

  /** Does what starts the program in the run's cgroup, so that the program is born there; we ourselves are not of it. */
  async within<Result>(start: () => Result): Promise<Result> {
    await this.#loader.join(process.pid);
    try {
      return start();
    } finally {
      await this.#loader.leave(process.pid).catch(() => {
        // It was lost just now, and says so itself; the program runs.
      });
    }
  }

  /**
   * What the kernel saw, and whether that is what the interceptor says; undefined where the witness was lost.
   *
   * @param throughout - whether the faults were in force until the program's end
   * @param untilNs - where the program goes on: what it opened from then on is not told (CLOCK_MONOTONIC)
   */
  async testify(
    segment: Segment,
    programs: Pick<Known, "programOf" | "carries">,
    throughout: boolean,
    untilNs?: bigint,
  ): Promise<Testimony | undefined> {
    const earlier = readAccounts(segment).flows;
    let reading: KernelReading;
    try {
      reading = await this.#loader.flows();
    } catch (error) {
      this.#lose(error instanceof Error ? error.message : String(error));
      return undefined;
    }
    this.#noteLosses(reading);
    const accounts = readAccounts(segment);
    const known: Known = {
      flows: [...new Map(reading.flows.map((flow) => [flow.cookie, flow])).values()].filter(
        ({ relayed, created_ns }) => relayed || untilNs === undefined || created_ns < untilNs,
      ),
      older: reading.summary.older,
      accounts: accounts.flows,
      earlier,
      folded: accounts.folded,
      lost: reading.summary.lost_events + reading.summary.without_row > 0,
      programOf: (flow) => programs.programOf(flow),
      carries: (process) => programs.carries(process),
    };
    const { rows, escaped, disagreements } = buildCoverage(known);
    const sums = (direction: 0 | 1): Accounts => addUp(known, direction, readAdjustments(segment, direction));
    const seen = {
      reading,
      accounts: accounts.flows,
      floors: native.histogramBucketFloors(),
      throughout,
    };
    return {
      escaped,
      flows: known.flows,
      facts: {
        coverage: rows,
        accounts: { uplink: sums(0), downlink: sums(1) },
        disagreements,
        witnessed: (asked, policy) => witnessFault(seen, asked, policy),
      },
    };
  }

  /** Ends it; resolves once nothing of it is left, or after two seconds. */
  async close(): Promise<void> {
    this.#loader.close();
    const late = new Promise<void>((resolve) => setTimeout(resolve, GONE_WITHIN_MS).unref());
    await Promise.race([this.#loader.ended, late]);
  }

  #lose(reason: string): void {
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    this.notes.push(`the kernel's witness was lost after ${seconds} s, and says nothing of this run: ${reason}`);
  }

  #noteLosses({ summary }: KernelReading): void {
    const { lost_events, without_row, lost_bytes_up, lost_bytes_down, relay_lost } = summary;
    if (relay_lost) {
      this.notes.push(
        "the relay was lost: its connections ended in a reset, and those made later went direct, unfaulted",
      );
    }
    if (lost_events > 0) {
      const bytes = lost_bytes_up + lost_bytes_down;
      this.notes.push(
        `the kernel's witness lost ${lost_events} events, and ${bytes} bytes with them are not in coverage`,
      );
    }
    if (without_row > 0)
      this.notes.push(`${without_row} sockets found no room in the kernel's table and are not in coverage`);
  }
}
