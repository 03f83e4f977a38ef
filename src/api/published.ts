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
  readonly #others = new Map<string, Published>();
  #own: Published | undefined;
  /** The slot of the run's own policy. */
  readonly ownSlot: number;

  constructor(segment: Segment, runSeed: bigint) {
    this.#segment = segment;
    this.#runSeed = runSeed;
    this.ownSlot = segment.claimPolicy();
  }

  /** All that was published, the run's own policy first; those taken back since are left out. */
  get published(): Published[] {
    return [...(this.#own === undefined ? [] : [this.#own]), ...this.#others.values()];
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
    publishAt(this.#segment, slot, compile(name ?? UNNAMED, policy, { runSeed: this.#runSeed }));
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
