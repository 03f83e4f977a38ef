/**
 * What a run sets up around its programs: the segment in force, the policies in it, the courier and the janitor beside
 * it, and the environment that makes a program take part. It is all gone when the session is closed; should this process
 * be killed, the lease ends at once and the janitor cleans up.
 */

import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import type { Policy } from "../policy/index.js";
import { type Decisions, packDecisions } from "../replay/decisions.js";
import type { PolicyFacts } from "../report/evidence.js";
import { type Courier, layout, newSegmentPath, Segment, startCourier, startJanitor } from "../segment/index.js";
import { type PolicySource, SourceWatch } from "./live.js";
import { type Preload, preloadEnvironment, preparePreload } from "./preload.js";
import { defaultProject } from "./project.js";
import { PolicyTable, type RunPolicies } from "./published.js";
import { readPolicy, reportPolicies } from "./reported.js";

/** How a session is set up. */
export interface SessionOptions {
  /**
   * What its programs meet: a policy, from `parsePolicy` or `policyFromFlags`, several, or a file of them that may be
   * edited meanwhile.
   */
  readonly policy: Policy | PolicySource | RunPolicies;
  /** Which runs `mishap stop` stops together; default: {@link defaultProject}. */
  readonly project?: string;
  /** Whether decisions are written to the journal. */
  readonly journal?: boolean;
  /** What is recorded, if anything: decisions that were not to continue, or every op. */
  readonly recorded?: "decisions" | "all";
  /** Whether what ops carry is recorded, byte for byte. */
  readonly payload?: boolean;
  /** Whether programs may set faults by setpriority(2), as programs of old do. */
  readonly legacy?: boolean;
  /** What is to happen in place of chance. */
  readonly decisions?: Decisions;
  /** Of the run, where its policy has none. */
  readonly seed?: bigint;
  /** Where the segment has to be, because the kernel's witness is there already. */
  readonly witnessed?: { readonly segmentPath: string };
  /** Whether its programs carry the interceptor; default: they do. */
  readonly intercepted?: boolean;
  /** The script that the run's own policy asks, its mailbox beside where the segment has to be, under a janitor's eye. */
  readonly script?: { readonly segmentPath: string; readonly asks: number; readonly patienceNs: number } | undefined;
  /** Gets what should be known at once, a sentence each: edits of the policy file, and what is wrong with them. */
  readonly notice?: (sentence: string) => void;
}

const SEED_BYTES = 4;
/** Policies that a session has room for besides those it is given many of. */
const POLICY_ROOM = 256;

/** A segment in force, and what belongs to it. */
export class Session {
  readonly seed: bigint;
  readonly segment: Segment;
  readonly courier: Courier;
  /** What evidence should say besides. */
  readonly notes: string[] = [];
  readonly #table: PolicyTable;
  readonly #preload: Preload | undefined;
  readonly #edits: SourceWatch | undefined;
  readonly #scripted: boolean;
  readonly #cleanups: (() => void)[] = [];

  /** Sets everything up. What fails leaves nothing behind. */
  static async start(options: SessionOptions): Promise<Session> {
    const session = new Session(options);
    await session.courier.ready.catch((error: Error) => {
      session.notes.push(`the courier could not be started: ${error.message}`);
    });
    return session;
  }

  private constructor(options: SessionOptions) {
    const {
      policy,
      project,
      journal = false,
      recorded,
      payload = false,
      legacy = false,
      decisions,
      witnessed,
      intercepted = true,
      script,
      notice = () => {},
    } = options;
    this.#scripted = script !== undefined || decisions?.answers !== undefined;
    const source = "read" in policy ? policy : undefined;
    const policies = policiesOf(policy);
    this.seed = policies.own.fields.seed ?? options.seed ?? drawSeed();
    if (intercepted && (script !== undefined || delaysArrivals(policies))) this.notes.push(...windowNotes());
    const named = project ?? defaultProject();
    const path = witnessed?.segmentPath ?? script?.segmentPath ?? newSegmentPath(named);
    try {
      // Before there is anything that it could have to remove; a script's files are there already, and so is its janitor.
      if (script === undefined) {
        startJanitor(path, (error) => this.notes.push(`the janitor could not be started: ${error.message}`));
      }
      this.segment = Segment.create({
        project: named,
        path,
        seed: this.seed,
        journal,
        record: recorded !== undefined,
        recordAll: recorded === "all",
        recordPayload: payload,
        legacy,
        ...(decisions !== undefined && { decided: packDecisions(decisions), portless: decisions.portless }),
        ...(witnessed !== undefined && { kernel: true }),
        ...(script !== undefined && { scriptPatienceNs: script.patienceNs }),
        capacities: { policies: roomFor(policies) },
      });
      this.#cleanups.push(() => this.segment.close({ unlink: true }));
      this.courier = startCourier(this.segment.path);
      this.#cleanups.push(() => this.courier.dismiss());
      this.#table = new PolicyTable(this.segment, this.seed, script?.asks ?? askedBefore(decisions));
      this.#table.publish(policies);
      this.#edits = source === undefined ? undefined : follow(source, this.#table, notice);
      this.#cleanups.push(() => this.#edits?.close());
      this.#preload = intercepted ? preparePreload(this.segment.path) : undefined;
      this.#cleanups.push(() => this.#preload?.remove());
      this.segment.activate(this.#table.ownSlot, { intercepted });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The environment of a program that takes part. */
  environment(base: NodeJS.ProcessEnv = process.env): Record<string, string> {
    return preloadEnvironment(base, this.#preload?.path, this.segment.path);
  }

  /** What each policy did so far, the session's own first. */
  policies(): PolicyFacts[] {
    return reportPolicies(this.segment, this.#table.published, { scripted: this.#scripted });
  }

  /** Every policy in a slot: the session's own as written, those that programs registered in their normal form. */
  slots(): { slot: number; name: string; policy: Policy; byProgram: boolean }[] {
    const known = new Map(this.#table.published.map((each) => [each.slot, each]));
    return this.segment.readPolicies().flatMap(({ index, name }) => {
      const own = known.get(index);
      const policy = own?.policy ?? readPolicy(this.segment, index);
      return policy === undefined
        ? []
        : [{ slot: index, name: own?.name ?? name, policy, byProgram: own === undefined }];
    });
  }

  /** Changes some of the policies that are in force: the run's own, and others by name. */
  change({ own, others }: { own?: Policy; others: ReadonlyMap<string, Policy> }): void {
    const before = this.#table.policies;
    this.#table.publish({
      ...before,
      ...(own !== undefined && { own }),
      others: new Map([...before.others, ...others]),
    });
  }

  /** From now on the run's own policy asks its script this. */
  ask(asks: number): void {
    this.#table.ask(asks);
  }

  /** The policy file is no longer followed; the note on its edits is written. */
  stopFollowing(): void {
    if (this.#edits === undefined) return;
    const { count, path } = this.#edits;
    this.#edits.close();
    if (count === 0) return;
    const often = count === 1 ? "once" : `${count} times`;
    this.notes.push(`${path} was edited ${often} during the run: what was asked is as it was at the end`);
  }

  /** Ends all faults and leaves nothing behind. A second call does nothing. */
  close(): void {
    for (const cleanup of this.#cleanups.splice(0).reverse()) cleanup();
  }
}

/** What was asked where a replay has the answers: anything. */
function askedBefore(decisions: Decisions | undefined): number {
  const { asksFlow = 0, asksOps = 0 } = layout.constants;
  return decisions?.answers === undefined ? 0 : asksFlow | asksOps;
}

/** A seed that nobody chose. */
export function drawSeed(): bigint {
  return BigInt(`0x${randomBytes(SEED_BYTES).toString("hex")}`);
}

/** What a session begins with, of whatever it is given. */
export function policiesOf(policy: SessionOptions["policy"]): RunPolicies {
  if ("read" in policy) return policy.read();
  return "own" in policy ? policy : { own: policy, others: new Map() };
}

/** Follows the edits of a policy file. */
function follow(source: PolicySource, table: PolicyTable, notice: (sentence: string) => void): SourceWatch {
  return new SourceWatch(source, {
    changed: (policies) => {
      table.publish(policies);
      notice(`${source.path} was edited: its policies are in force`);
    },
    refused: (problem) => notice(`${problem}; the faults stay as they were`),
  });
}

/** Slots: for the policies given, and for what programs register. */
function roomFor({ others }: RunPolicies): number {
  const { maxPolicies = 0 } = layout.constants;
  return Math.min(maxPolicies, Math.max(POLICY_ROOM, others.size + POLICY_ROOM / 2));
}

function delaysArrivals({ own, others }: RunPolicies): boolean {
  return [own, ...others.values()].some(({ fields }) => (fields.downlink?.latency ?? fields.latency ?? 0) > 0);
}

/** What the interceptor withholds from a program lies in its receive buffers, which the kernel bounds. */
function windowNotes(): string[] {
  const wanted = 4 << 20;
  const limit = "/proc/sys/net/core/rmem_max"; // not there in every network namespace
  const allowed = existsSync(limit) ? Number(readFileSync(limit, "utf8")) : wanted;
  if (!(allowed < wanted)) return [];
  return [
    `net.core.rmem_max is ${allowed}, so bulk data towards the program may flow at about that many bytes per delay (${wanted} is what mishap would use)`,
  ];
}
