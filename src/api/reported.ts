/**
 * Which policies a run answers for at its end: its own, and every other that met traffic, whoever registered it.
 * Policies alike in name and content, such as those of several worker processes, answer together.
 */

import { type AskedFault, decompile, describeFaults, everyFault, type Policy, parsePolicy } from "../policy/index.js";
import { type PolicyCounters, readPolicyCounters } from "../report/counters.js";
import type { PolicyFacts } from "../report/evidence.js";
import type { Segment } from "../segment/index.js";
import { compiledAt } from "./compiled.js";
import type { Published } from "./published.js";

/** What evidence needs to know of each policy, the run's own first. */
export function reportPolicies(
  segment: Segment,
  published: readonly Published[],
  { scripted = false }: { scripted?: boolean } = {},
): PolicyFacts[] {
  const [own, ...others] = published;
  if (own === undefined) return [];
  const carried = segment.carried();
  const known = new Map(others.map((each) => [each.slot, each]));
  const alike = new Map<string, Published & { slots: number[] }>();
  for (const { index, name } of segment.readPolicies()) {
    if (index === own.slot) continue;
    const policy = known.get(index)?.policy ?? readPolicy(segment, index);
    if (policy === undefined) continue;
    const key = JSON.stringify([name, policy.written]);
    const group = alike.get(key);
    if (group === undefined) alike.set(key, { slot: index, name, policy, slots: [index] });
    else group.slots.push(index);
  }
  const counted = [...alike.values()].map((group) => ({
    ...group,
    counters: readPolicyCounters(segment, group.slots, carried),
  }));
  return [
    { ...own, slots: [own.slot], counters: readPolicyCounters(segment, [own.slot], carried) },
    ...counted.filter(({ counters }) => metTraffic(counters)),
  ].map(({ name, policy, slots, counters }) => {
    const asked = describeFaults(policy);
    const byScript = scripted && slots.includes(own.slot) ? askedByScript(asked, counters) : [];
    return { name, policy, slots, asked: [...asked, ...byScript], counters };
  });
}

/** What a script asked for and nothing else did: known by what was applied. */
function askedByScript(asked: readonly AskedFault[], counters: PolicyCounters): AskedFault[] {
  return everyFault("by the script").filter(({ faultBit, directions }) => {
    if (asked.some((each) => each.faultBit === faultBit)) return false;
    return directions.some((direction) => counters.applied(faultBit, direction) > 0);
  });
}

/** A policy in its normal form, from its slot: all that is known of one that a program registered itself. */
export function readPolicy(segment: Segment, slot: number): Policy | undefined {
  const compiled = compiledAt(segment, slot);
  if (compiled === undefined) return undefined;
  try {
    return parsePolicy(decompile(compiled.row, compiled.targets));
  } catch {
    // Rows are written by compile() alone; where memory was damaged, what is in them is no policy.
    return undefined;
  }
}

function metTraffic({ ops, units, connects, lookups }: PolicyCounters): boolean {
  return ops.uplink + ops.downlink + units.uplink + units.downlink + connects + lookups > 0;
}
