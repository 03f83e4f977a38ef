/**
 * Which faults a policy asks for: for the row's masks, for the observability rules, and for evidence, which answers
 * for each as the user wrote it.
 */

import { FAULTS, MUTATION_TARGETS } from "./contract.js";
import { isMutating } from "./mutation.js";
import type { ParsedPolicy, Policy } from "./schema.js";

/** A direction of traffic, as seen by the program. */
export type Direction = "uplink" | "downlink";

/** A fault a policy asks for. */
export interface AskedFault {
  /** The key as the user wrote it, such as `latency`, `uplink.rate` or `dns.nxdomain`. */
  readonly fault: string;
  /** The value as the user wrote it; an object's in its short form, such as `refused:10%`. */
  readonly asked: string;
  /** The number of the contract's Fault. */
  readonly faultBit: number;
  /** Where it holds: a common field leaves out the directions that a block of their own overrides. */
  readonly directions: Direction[];
}

/** Objects with a short form on the command line and in evidence: their fields between colons, in this order. */
export const SHORT_FORMS: Readonly<Record<string, readonly string[]>> = {
  connection_error: ["kind", "prob"],
  half_open: ["after", "error"],
  packet_duplicate: ["prob", "max_extra"],
  packet_reorder: ["prob", "window", "max_delay"],
};

const BOTH: readonly Direction[] = ["uplink", "downlink"];
const DIRECTIONAL = ["latency", "jitter", "packet_loss", "burst_loss", "rate"] as const;
type Directional = (typeof DIRECTIONAL)[number];

/** Faults that have no direction of their own, by the path of their field. */
const UNDIRECTED: readonly (readonly [path: string, bit: number])[] = [
  ["correlated_loss", FAULTS.correlated_loss],
  ["timeout.connect", FAULTS.connect_timeout],
  ["timeout.recv", FAULTS.recv_timeout],
  ["connection_error", FAULTS.connection_error],
  ["half_open", FAULTS.half_open],
  ["session_budget", FAULTS.session_budget],
  ["dns.delay", FAULTS.dns_delay],
  ["dns.timeout", FAULTS.dns_timeout],
  ["dns.nxdomain", FAULTS.dns_nxdomain],
  ["payload_mutation", FAULTS.payload_mutation],
  ["packet_duplicate", FAULTS.packet_duplicate],
  ["packet_reorder", FAULTS.packet_reorder],
];

/** The fields that ask for a directional fault: the common one where it still holds, then each direction's. */
function directionalPaths(policy: ParsedPolicy, key: Directional): { path: string; directions: Direction[] }[] {
  // A burst of one is an ordinary loss: it asks for nothing, but still overrides.
  const asks = (value: number | undefined): boolean => value !== undefined && (key !== "burst_loss" || value > 1);
  const common = BOTH.filter((direction) => policy[direction]?.[key] === undefined);
  const own = BOTH.filter((direction) => asks(policy[direction]?.[key]));
  return [
    ...(asks(policy[key]) && common.length > 0 ? [{ path: key, directions: common }] : []),
    ...own.map((direction) => ({ path: `${direction}.${key}`, directions: [direction] })),
  ];
}

function askedPaths(policy: ParsedPolicy): { path: string; bit: number; directions: Direction[] }[] {
  const directional = DIRECTIONAL.flatMap((key) =>
    directionalPaths(policy, key).map((asked) => ({ ...asked, bit: FAULTS[key] })),
  );
  const undirected = UNDIRECTED.filter(([path]) =>
    path === "payload_mutation" ? isMutating(policy.payload_mutation) : valueAt(policy, path) !== undefined,
  );
  return [
    ...directional,
    ...undirected.map(([path, bit]) => ({
      path,
      bit,
      directions: path === "payload_mutation" ? mutated(policy) : [...BOTH],
    })),
  ];
}

function mutated({ payload_mutation }: ParsedPolicy): Direction[] {
  const target = MUTATION_TARGETS[payload_mutation?.target ?? "both"];
  if (target === MUTATION_TARGETS.both) return [...BOTH];
  return [target === MUTATION_TARGETS.uplink_only ? "uplink" : "downlink"];
}

/** The paths of the fields that ask for a fault. */
export function faultsOf(policy: ParsedPolicy): string[] {
  return askedPaths(policy).map(({ path }) => path);
}

/** The row's `faults`: one bit a Fault asked for anywhere. */
export function faultMask(policy: ParsedPolicy): number {
  return askedPaths(policy).reduce((mask, { bit }) => mask | (1 << bit), 0);
}

/** A direction's `only_mask`: faults asked for in its block, and in neither the common fields nor the other block. */
export function onlyMask(policy: ParsedPolicy, direction: Direction): number {
  const elsewhere = direction === "uplink" ? policy.downlink : policy.uplink;
  const only = DIRECTIONAL.filter((key) => {
    const own = directionalPaths(policy, key).some(({ path }) => path === `${direction}.${key}`);
    return own && policy[key] === undefined && elsewhere?.[key] === undefined;
  });
  return only.reduce((mask, key) => mask | (1 << FAULTS[key]), 0);
}

/** What a policy asks for, one entry a fault, for evidence. */
export function describeFaults(policy: Policy): AskedFault[] {
  return askedPaths(policy.fields).map(({ path, bit, directions }) => ({
    fault: path,
    asked: describeValue(path, valueAt(policy.written, path)),
    faultBit: bit,
    directions,
  }));
}

/** Every fault that there is, in both directions; `asked` says who asks for them. */
export function everyFault(asked: string): AskedFault[] {
  const directional = DIRECTIONAL.map((key): [string, number] => [key, FAULTS[key]]);
  return [...directional, ...UNDIRECTED].map(([fault, faultBit]) => ({
    fault,
    asked,
    faultBit,
    directions: [...BOTH],
  }));
}

function describeValue(path: string, written: unknown): string {
  if (typeof written !== "object" || written === null) return String(written);
  const fields = Object.entries(written).filter(([, value]) => value !== undefined);
  const short = SHORT_FORMS[path]?.slice(0, fields.length);
  const values = short?.map((key) => fields.find(([name]) => name === key)?.[1]);
  // An empty object takes every default, and each short form without a required field begins with prob.
  if (values?.length === 0) return "100%";
  if (values?.every((value) => value !== undefined)) return values.map(String).join(":");
  return fields.map(([name, value]) => `${name}=${String(value)}`).join(",");
}

function valueAt(from: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((value, key) => {
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  }, from);
}
