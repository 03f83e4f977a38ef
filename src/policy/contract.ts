/**
 * The numbers of the contract's enums (native/contract/types.h), by the words that policies use. A test compares
 * them with the header.
 */

/** Fault: what a user asks for and evidence answers for. Its number is its bit in `faults` and `only_mask`. */
export const FAULTS = {
  latency: 0,
  jitter: 1,
  packet_loss: 2,
  burst_loss: 3,
  correlated_loss: 4,
  rate: 5,
  connect_timeout: 6,
  recv_timeout: 7,
  dns_delay: 8,
  dns_timeout: 9,
  session_budget: 10,
  packet_reorder: 11,
  connection_error: 12,
  half_open: 13,
  packet_duplicate: 14,
  dns_nxdomain: 15,
  payload_mutation: 16,
} as const;

/** OpKind. */
export const OPS = ["connect", "send", "recv", "dns"] as const;
/** Direction. */
export const DIRECTIONS = ["uplink", "downlink"] as const;
/** Stage: R0 to R8. */
export const STAGES = [
  "resolve",
  "session_guard",
  "chaos_base",
  "flow_control",
  "timing",
  "transport",
  "resolver",
  "payload",
  "post_routing",
] as const;
/** Verdict. */
export const VERDICTS = [
  "continue",
  "delay",
  "drop",
  "timeout",
  "error",
  "nxdomain",
  "mutate",
  "reorder",
  "duplicate",
  "skipped",
  "answered",
] as const;

/** Protocol. */
export const PROTOCOLS = { any: 0, tcp: 1, udp: 2, unix: 3 } as const;
/** NameKind. */
export const NAME_KINDS = { none: 0, hostname: 1, sni: 2, path: 3 } as const;
/** LossMode. */
export const LOSS_MODES = { retransmit: 0, drop: 1 } as const;
/** RateScope. */
export const RATE_SCOPES = { link: 0, flow: 1 } as const;
/** JitterDistribution. */
export const JITTER_DISTRIBUTIONS = { uniform: 0, normal: 1, pareto: 2 } as const;
/** ErrorKind. */
export const ERROR_KINDS = { reset: 0, refused: 1, unreachable: 2 } as const;
/** BudgetAction. */
export const BUDGET_ACTIONS = { drop: 0, timeout: 1, connection_error: 2 } as const;
/** ScheduleKind. */
export const SCHEDULE_KINDS = { always: 0, ramp: 1, spike: 2, flapping: 3 } as const;
/** MutationType. */
export const MUTATION_TYPES = {
  none: 0,
  truncate: 1,
  corrupt_bytes: 2,
  inject_bytes: 3,
  replace_pattern: 4,
  corrupt_encoding: 5,
  swap_bytes: 6,
} as const;
/** MutationTarget, with the short words that mean the same. */
export const MUTATION_TARGETS = { both: 0, uplink_only: 1, downlink_only: 2, uplink: 1, downlink: 2 } as const;

/** kStreamUnitBytes: the unit of chance on streams. */
export const STREAM_UNIT_BYTES = 1448;

/** The words of an enum, typed as such. */
export function words<Word extends string>(of: Readonly<Record<Word, number>>): Word[] {
  return Object.keys(of) as Word[];
}

/** The first word of a number. Throws a RangeError for a number that the enum does not have. */
export function wordOf<Word extends string>(of: Readonly<Record<Word, number>>, number: number): Word {
  const word = words(of).find((candidate) => of[candidate] === number);
  if (word === undefined) throw new RangeError(`${number} is none of ${words(of).join(", ")}`);
  return word;
}
