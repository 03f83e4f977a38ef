/** What the interceptor says of the bytes of a run's network flows, read from its segment. */

import { type FlowAccount, layout, nameOf, type ProcessAccount, type Segment } from "../segment/index.js";
import type { Adjustments } from "./coverage.js";

/** The accounts of a run. */
export interface RunAccounts {
  readonly flows: readonly FlowAccount[];
  /** Of flows whose rows were given to others, by process. */
  readonly folded: readonly ProcessAccount[];
}

/** Reads the accounts of flows that the kernel's witness sees as well: those of the network. */
export function readAccounts(segment: Segment): RunAccounts {
  const elsewhere = new Set(
    segment
      .flows()
      .filter(({ protocol }) => !NETWORK.includes(nameOf("Protocol", protocol)))
      .map(({ cookie }) => cookie),
  );
  const { flows, processes } = segment.accounts();
  return { flows: flows.filter(({ cookie }) => !elsewhere.has(cookie)), folded: processes };
}

const NETWORK = ["tcp", "udp"];
/** As native/contract/stats.h orders them: each in both directions. */
const ADJUSTMENTS = ["dropped", "cut", "injected", "duplicated"] as const;

/** What the faults of all policies did to bytes, in one direction. */
export function readAdjustments(segment: Segment, direction: 0 | 1): Adjustments {
  const { directions = 2 } = layout.constants;
  // The last slot counts what policies did whose slots were given to others.
  const slots = new Set([...segment.readPolicies().map(({ index }) => index), segment.capacities.policies - 1]);
  const sums: Record<keyof Adjustments, number> = { dropped: 0, cut: 0, injected: 0, duplicated: 0 };
  for (const slot of slots) {
    const { accounts } = segment.stats(slot);
    if (!Array.isArray(accounts)) continue;
    ADJUSTMENTS.forEach((name, at) => {
      sums[name] += Number(accounts[at * directions + direction] ?? 0);
    });
  }
  return sums;
}
