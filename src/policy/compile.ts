/**
 * A policy in the contract's form: the fields of Row and Target by the names of native/contract/row.h and target.h,
 * which a test compares. Bytes and offsets are the addon's business.
 */

import {
  BUDGET_ACTIONS,
  ERROR_KINDS,
  JITTER_DISTRIBUTIONS,
  LOSS_MODES,
  MUTATION_TARGETS,
  MUTATION_TYPES,
  RATE_SCOPES,
  SCHEDULE_KINDS,
  STREAM_UNIT_BYTES,
} from "./contract.js";
import { type Direction, faultMask, onlyMask } from "./faults.js";
import type { ParsedSchedule } from "./schedule.js";
import { checkPolicyName, type ParsedPolicy, type Policy } from "./schema.js";
import type { TargetFields } from "./targets.js";

/** The bytes of the contract's `name`, its NUL included. */
const NAME_BYTES = 64;
const INJECT_BYTES = 64;
const PATTERN_BYTES = 32;

/** What a policy becomes: `row` for the rows region, `targets` for the targets region. */
export interface CompiledPolicy {
  readonly row: RowFields;
  readonly targets: TargetFields[];
}

/** The fields of Row; u64 as bigint, arrays at their full length. */
export type RowFields = ReturnType<typeof compileRow>;
/** The fields of RowDirection. */
export type RowDirectionFields = ReturnType<typeof compileDirection>;

/** Compiles a policy. A policy without a seed of its own uses the run's. Throws a PolicyError for a bad name. */
export function compile(name: string, policy: Policy, { runSeed }: { runSeed: bigint }): CompiledPolicy {
  checkPolicyName(name);
  const targets = (policy.fields.targets ?? []).map(({ fields }) => fields);
  return { row: compileRow(name, policy.fields, targets.length, runSeed), targets };
}

function compileRow(name: string, policy: ParsedPolicy, targetCount: number, runSeed: bigint) {
  return {
    faults: faultMask(policy),
    name: cutToBytes(name, NAME_BYTES - 1),
    seed: policy.seed ?? runSeed,
    up: compileDirection(policy, "uplink"),
    down: compileDirection(policy, "downlink"),
    p_good_to_bad_ppm: policy.correlated_loss?.p_good_to_bad ?? 0,
    p_bad_to_good_ppm: policy.correlated_loss?.p_bad_to_good ?? 0,
    loss_good_ppm: policy.correlated_loss?.loss_good ?? 0,
    loss_bad_ppm: policy.correlated_loss?.loss_bad ?? 0,
    loss_mode: LOSS_MODES[policy.loss_mode],
    rate_scope: RATE_SCOPES[policy.rate_scope],
    jitter_distribution: JITTER_DISTRIBUTIONS[policy.jitter_distribution],
    ...compileTransport(policy),
    target_count: targetCount,
    duplicate_ppm: policy.packet_duplicate?.prob ?? 0,
    duplicate_max_extra: policy.packet_duplicate?.max_extra ?? 0,
    reorder_ppm: policy.packet_reorder?.prob ?? 0,
    reorder_window: policy.packet_reorder?.window ?? 0,
    reorder_max_delay_ns: u64(policy.packet_reorder?.max_delay),
    dns_delay_ns: u64(policy.dns?.delay),
    dns_timeout_ns: u64(policy.dns?.timeout),
    dns_nxdomain_ppm: policy.dns?.nxdomain ?? 0,
    ...compileBudget(policy),
    ...compileSchedule(policy.schedule),
    ...compileMutation(policy),
  };
}

function compileDirection(policy: ParsedPolicy, direction: Direction) {
  const of = (key: "latency" | "jitter" | "packet_loss" | "burst_loss" | "rate"): number =>
    policy[direction]?.[key] ?? policy[key] ?? 0;
  const rateBps = of("rate");
  return {
    latency_ns: u64(of("latency")),
    jitter_ns: u64(of("jitter")),
    rate_bps: u64(rateBps),
    rate_burst_bytes: u64(rateBps === 0 ? 0 : (policy.rate_burst ?? usualBurst(rateBps))),
    loss_ppm: of("packet_loss"),
    burst_length: of("burst_loss"),
    only_mask: onlyMask(policy, direction),
  };
}

/**
 * The bytes an idle line takes at once where nothing else is asked for: what 10 ms carry, and at least one segment, so
 * that late wake-ups lose no capacity.
 */
export function usualBurst(rateBps: number): number {
  return Math.max(STREAM_UNIT_BYTES, Math.ceil(rateBps / 8 / 100));
}

function compileTransport({ connection_error, timeout, half_open }: ParsedPolicy) {
  return {
    error_kind: ERROR_KINDS[connection_error?.kind ?? "reset"],
    error_ppm: connection_error?.prob ?? 0,
    connect_timeout_ns: u64(timeout?.connect),
    recv_timeout_ns: u64(timeout?.recv),
    half_open_bytes: u64(half_open?.after),
    half_open_error: ERROR_KINDS[half_open?.error ?? "reset"],
  };
}

function compileBudget({ session_budget: budget }: ParsedPolicy) {
  return {
    budget_action: BUDGET_ACTIONS[budget?.action ?? "drop"],
    budget_error: ERROR_KINDS[budget?.error ?? "reset"],
    budget_max_tx: u64(budget?.max_tx),
    budget_max_rx: u64(budget?.max_rx),
    budget_max_ops: u64(budget?.max_ops),
    budget_max_duration_ns: u64(budget?.max_duration),
    budget_timeout_ns: u64(budget?.budget_timeout),
  };
}

function compileSchedule(schedule: ParsedSchedule | undefined) {
  const [first, second] = scheduleTimes(schedule);
  return {
    schedule_kind: SCHEDULE_KINDS[schedule?.kind ?? "always"],
    schedule_first_ns: u64(first),
    schedule_second_ns: u64(second),
  };
}

function scheduleTimes(schedule: ParsedSchedule | undefined): [first: number, second: number] {
  switch (schedule?.kind) {
    case "ramp":
      return [schedule.ramp, 0];
    case "spike":
      return [schedule.every, schedule.duration];
    case "flapping":
      return [schedule.on, schedule.off];
    default:
      return [0, 0];
  }
}

function compileMutation({ payload_mutation: mutation }: ParsedPolicy) {
  const type = mutation?.enabled ? (mutation.type ?? "none") : "none";
  return {
    mutation_ppm: mutation?.prob ?? 0,
    mutation_type: MUTATION_TYPES[type],
    mutation_target: MUTATION_TARGETS[mutation?.target ?? "both"],
    mutation_dry_run: mutation?.dry_run ? 1 : 0,
    inject_length: mutation?.inject_data?.length ?? 0,
    find_length: mutation?.replace_find?.length ?? 0,
    replace_length: mutation?.replace_with.length ?? 0,
    mutation_every_n: mutation?.every_n_packets ?? 1,
    corrupt_count: mutation?.corrupt_count ?? 0,
    corrupt_seed: mutation?.corrupt_seed ?? 0n,
    truncate_size: u64(mutation?.truncate_size),
    inject_position: u64(mutation?.inject_position),
    swap_first: u64(mutation?.swap_pos1),
    swap_second: u64(mutation?.swap_pos2),
    mutation_min_size: u64(mutation?.min_size),
    mutation_max_size: u64(mutation?.max_size),
    mutation_max_buffer: u64(mutation?.max_buffer_size),
    inject_data: padded(mutation?.inject_data, INJECT_BYTES),
    replace_find: padded(mutation?.replace_find, PATTERN_BYTES),
    replace_with: padded(mutation?.replace_with, PATTERN_BYTES),
  };
}

const u64 = (value: number | undefined): bigint => BigInt(value ?? 0);

function padded(bytes: Uint8Array | undefined, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  whole.set(bytes ?? []);
  return whole;
}

/** The longest start of a text that fits, without half a character at its end. */
function cutToBytes(text: string, limit: number): string {
  let cut = "";
  let used = 0;
  for (const character of text) {
    used += Buffer.byteLength(character);
    if (used > limit) break;
    cut += character;
  }
  return cut;
}
