/**
 * The policies that a run publishes itself: its own, which is the project's binding, and those it knows by name, for
 * programs that ask for them. All of them may be given anew while the run lasts, at once or not at all.
 */

import { compile, type Policy } from "../policy/index.js";
import type { Segment } from "../segment/index.js";
import { publishAt } from "./compiled.js";

/** What a run does: its own policy, and others by name. */
export interface RunPolicies {
  readonly own: Policy;
  /** The own policy's name where it has one. */
  readonly name?: string | undefined;
  readonly others: ReadonlyMap<string, Policy>;
}

/** A policy in its slot. */
export interface Published {
  readonly slot: number;
  readonly name: string | undefined;
  readonly policy: Policy;
}

/** What rows call a policy that the command line's flags made. */
export const UNNAMED = "run";

/** Puts a run's policies into its segment, and keeps track of where. */
export class PolicyTable {
  readonly #segment: Segment;
  readonly #runSeed: bigint;
  #scriptAsks: number;
  readonly #others = new Map<string, Published>();
  #own: Published | undefined;
  /** The slot of the run's own policy. */
  readonly ownSlot: number;

  /**
   * @param scriptAsks - what the run's own policy asks a script about, as the contract's Row has it
   */
  constructor(segment: Segment, runSeed: bigint, scriptAsks = 0) {
    this.#segment = segment;
    this.#runSeed = runSeed;
    this.#scriptAsks = scriptAsks;
    this.ownSlot = segment.claimPolicy();
  }

  /** All that was published, the run's own policy first; those taken back since are left out. */
  get published(): Published[] {
    return [...(this.#own === undefined ? [] : [this.#own]), ...this.#others.values()];
  }

  /** What the run's own policy asks a script about, from now on. */
  ask(asks: number): void {
    if (asks === this.#scriptAsks) return;
    this.#scriptAsks = asks;
    this.publish(this.policies);
  }

  /** What is in force, as {@link publish} takes it. */
  get policies(): RunPolicies {
    if (this.#own === undefined) throw new Error("no policy was published yet");
    const { policy: own, name } = this.#own;
    return { own, name, others: new Map([...this.#others].map(([other, { policy }]) => [other, policy])) };
  }

  /** Puts these in force, and takes back those of before that are not among them. Throws, with nothing changed, when there is no room. */
  publish({ own, name, others }: RunPolicies): void {
    const slots = this.#claim([...others.keys()].filter((other) => !this.#others.has(other)));
    for (const [other, { slot }] of this.#others) {
      if (others.has(other)) continue;
      this.#segment.releasePolicy(slot);
      this.#others.delete(other);
    }
    for (const [other, policy] of others) {
      const slot = this.#others.get(other)?.slot ?? slots.get(other) ?? -1;
      this.#others.set(other, this.#put(slot, other, policy));
    }
    this.#own = this.#put(this.ownSlot, name, own);
  }

  #put(slot: number, name: string | undefined, policy: Policy): Published {
    const scriptAsks = slot === this.ownSlot ? this.#scriptAsks : 0;
    publishAt(this.#segment, slot, compile(name ?? UNNAMED, policy, { runSeed: this.#runSeed }), scriptAsks);
    return { slot, name, policy };
  }

  #claim(names: readonly string[]): Map<string, number> {
    const slots = new Map<string, number>();
    for (const name of names) {
      const slot = this.#segment.claimPolicy();
      if (slot < 0) {
        for (const claimed of slots.values()) this.#segment.releasePolicy(claimed);
        const room = this.#segment.capacities.policies - 2;
        throw new Error(`there is room for ${room} policies beside the run's own, and more were given`);
      }
      slots.set(name, slot);
    }
    return slots;
  }
}
