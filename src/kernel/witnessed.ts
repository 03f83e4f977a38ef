/**
 * What the kernel saw of each fault: delays between a program's call and its bytes' leaving, or their arrival and its
 * receiving; bytes that were called and never sent; connections that were never made or were reset. And whether that is
 * what the interceptor says it delivered. Pure.
 */

import type { AskedFault, Direction } from "../policy/index.js";
import { baseKey, type PolicyFacts, type Witnessed } from "../report/evidence.js";
import { formatDurationNs } from "../report/format.js";
import type { FlowAccount } from "../segment/index.js";
import type { KernelReading } from "./loader.js";
import type { KernelFlow } from "./words.js";

/** What the kernel saw, and what the interceptor says of the same flows. */
export interface Witness {
  readonly reading: KernelReading;
  readonly accounts: readonly FlowAccount[];
  /** Where each bucket of delays begins, and the last one ends. */
  readonly floors: Float64Array;
  /** Whether the faults were in force until the program's end. */
  readonly throughout: boolean;
}

const DIRECTIONS: readonly Direction[] = ["uplink", "downlink"];
const TIMED = ["latency", "jitter", "rate"];
/** On streams these hold bytes back too. */
const HOLDING = ["packet_loss", "burst_loss", "correlated_loss", "packet_reorder"];
const LOSSES = ["packet_loss", "burst_loss", "correlated_loss"];
/** These change how many bytes there are. */
const CHANGING = [...LOSSES, "packet_duplicate", "payload_mutation", "session_budget", "half_open"];

/** What two clocks and the time between two readings may differ by. */
const TOLERANCE_NS = 1e6;
const TOLERANCE_SHARE = 0.02;

/** What the kernel saw of a fault; undefined where it cannot be told from the policy's other faults. */
export function witnessFault(witness: Witness, asked: AskedFault, facts: PolicyFacts): Witnessed | undefined {
  const key = baseKey(asked.fault);
  if (TIMED.includes(key))
    return isAlone(asked, facts, [...TIMED, ...HOLDING]) ? delays(witness, asked, facts) : undefined;
  if (LOSSES.includes(key)) return isAlone(asked, facts, CHANGING) ? losses(witness, asked, facts) : undefined;
  if (key === "connection_error") return connectionErrors(witness, facts);
  return undefined;
}

/** Whether no other of these faults holds where this one was asked for, and holds all the time. */
function isAlone(asked: AskedFault, { asked: all, policy }: PolicyFacts, kinds: readonly string[]): boolean {
  const rivals = all.filter((other) => other !== asked && kinds.includes(baseKey(other.fault)));
  const meet = (other: AskedFault): boolean => other.directions.some((each) => asked.directions.includes(each));
  return policy.fields.schedule === undefined && !rivals.some(meet);
}

function delays(witness: Witness, asked: AskedFault, facts: PolicyFacts): Witnessed | undefined {
  const seen = histogram(witness, facts.slots, asked.directions);
  if (seen.count === 0) return undefined;
  const disagreement = baseKey(asked.fault) === "latency" ? contradiction(witness, asked, facts) : undefined;
  return {
    witnessed: seen.count,
    witnessed_p50_ns: Math.round(seen.quantileNs(0.5)),
    witnessed_p99_ns: Math.round(seen.quantileNs(0.99)),
    disagreement,
  };
}

/** A program that is busy receives later than it could; nothing makes it receive what has not arrived. */
function contradiction(witness: Witness, asked: AskedFault, facts: PolicyFacts): string | undefined {
  if (!witness.throughout) return undefined;
  for (const direction of asked.directions) {
    const delivered = facts.counters.times(asked.faultBit, [direction]);
    const seen = histogram(witness, facts.slots, [direction]);
    if (delivered === undefined || delivered.count === 0 || seen.count === 0) continue;
    const [said, saw] = [delivered.quantileNs(0.5), seen.quantileNs(0.5)];
    const allowed = TOLERANCE_NS + TOLERANCE_SHARE * said;
    if (said - saw <= allowed && (direction === "downlink" || saw - said <= allowed)) continue;
    const [what, verb] =
      direction === "uplink" ? ["what was sent left", "call"] : ["what arrived was received", "arrival"];
    return `the kernel does not bear ${asked.fault} out: half of ${what} within ${formatDurationNs(saw)} of its ${verb}, where mishap says it held it back for ${formatDurationNs(said)}`;
  }
  return undefined;
}

/**
 * What the interceptor let programs send, or kept from them, and the kernel did not see go by. What the relay loses it takes
 * from programs first, where the kernel sees it.
 */
function losses({ reading, accounts }: Witness, asked: AskedFault, facts: PolicyFacts): Witnessed | undefined {
  const flows = new Map(reading.flows.map((flow) => [flow.cookie, flow]));
  const everywhere = facts.policy.fields.loss_mode === "drop";
  // What a sender within the run sent met its faults there, so that not all that arrives could be lost here.
  const uplink = asked.directions.includes("uplink");
  let [offered, lost] = [0, 0];
  for (const { cookie, policy, called, held } of accounts) {
    const flow = flows.get(cookie);
    if (flow === undefined || flow.relayed || !facts.slots.includes(policy) || !(everywhere || flow.protocol === "udp"))
      continue;
    offered += uplink ? called[0] : flow.bytes_down;
    lost += uplink ? called[0] - held[0] - flow.bytes_up : flow.bytes_down - held[1] - called[1];
  }
  if (offered === 0) return undefined;
  return { witnessed_ppm: Math.min(1e6, Math.max(0, Math.round((lost / offered) * 1e6))) };
}

/** Connections that were never made, or that ended with a RST. */
function connectionErrors({ reading, accounts }: Witness, { policy, slots }: PolicyFacts): Witnessed {
  const resets = policy.fields.connection_error?.kind === "reset";
  const relayed = new Map(accounts.map((account) => [account.cookie, account.policy]));
  const seen = reading.flows.filter((flow) => {
    const slot = flow.relayed ? relayed.get(flow.cookie) : flow.claimed ? flow.policy : undefined;
    if (slot === undefined || !slots.includes(slot) || flow.protocol !== "tcp") return false;
    return resets ? flow.reset : flow.role === "connector" && wasNeverMade(flow);
  });
  return { witnessed: seen.length };
}

function wasNeverMade({ relayed, local, peer }: KernelFlow): boolean {
  return (relayed ? local : peer).endsWith(":0");
}

interface Buckets {
  readonly count: number;
  quantileNs(q: number): number;
}

/** The delays of a policy in some directions, added up. */
function histogram({ reading, floors }: Witness, slots: readonly number[], directions: readonly Direction[]): Buckets {
  const counts = new Map<number, number>();
  for (const { policy, direction, buckets } of reading.summary.delays) {
    if (!slots.includes(policy) || !directions.includes(DIRECTIONS[direction] ?? "uplink")) continue;
    for (const [bucket, many] of buckets) counts.set(bucket, (counts.get(bucket) ?? 0) + many);
  }
  const ordered = [...counts].sort(([a], [b]) => a - b);
  const count = ordered.reduce((all, [, many]) => all + many, 0);
  return {
    count,
    quantileNs: (q) => {
      let before = 0;
      for (const [bucket, many] of ordered) {
        if (before + many >= q * count) {
          const [floor = 0, end = floor] = floors.subarray(bucket, bucket + 2);
          return floor + ((q * count - before) / many) * (end - floor);
        }
        before += many;
      }
      return 0;
    },
  };
}
