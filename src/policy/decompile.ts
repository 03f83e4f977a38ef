/**
 * The way back: a policy in its normal form from its compiled one. Compiling the normal form gives the same row and
 * targets again. What the contract does not hold is not in it: how values were spelt, which of several equal ways was
 * used, a rate_burst without a rate, and what kind of change a disabled mutation would make.
 */

import { formatNetwork } from "./addresses.js";
import { compile, type RowDirectionFields, type RowFields, usualBurst } from "./compile.js";
import {
  BUDGET_ACTIONS,
  ERROR_KINDS,
  FAULTS,
  JITTER_DISTRIBUTIONS,
  LOSS_MODES,
  MUTATION_TARGETS,
  MUTATION_TYPES,
  NAME_KINDS,
  PROTOCOLS,
  RATE_SCOPES,
  SCHEDULE_KINDS,
  wordOf,
} from "./contract.js";
import type { ScheduleInput } from "./schedule.js";
import type { Policy, PolicyInput } from "./schema.js";
import type { TargetFields, TargetInput } from "./targets.js";
import { formatDuration, formatProbability, formatRate, formatSize } from "./units.js";

type Fault = keyof typeof FAULTS;
type MutationInput = NonNullable<PolicyInput["payload_mutation"]>;

/**
 * The normal form of a compiled policy. The seed is always in it: a row holds the run's where the policy had none.
 * @throws RangeError for a row that no policy compiles to.
 */
export function decompile(row: RowFields, targets: readonly TargetFields[]): PolicyInput {
  const asks = (fault: Fault): boolean => (row.faults & (1 << FAULTS[fault])) !== 0;
  return {
    ...delayAndLoss(row),
    ...modes(row),
    ...(asks("correlated_loss") && { correlated_loss: correlatedLoss(row) }),
    ...((asks("connect_timeout") || asks("recv_timeout")) && {
      timeout: {
        ...(asks("connect_timeout") && { connect: time(row.connect_timeout_ns) }),
        ...(asks("recv_timeout") && { recv: time(row.recv_timeout_ns) }),
      },
    }),
    ...(asks("connection_error") && {
      connection_error: { kind: wordOf(ERROR_KINDS, row.error_kind), prob: formatProbability(row.error_ppm) },
    }),
    ...(asks("half_open") && {
      half_open: { after: bytes(row.half_open_bytes), error: wordOf(ERROR_KINDS, row.half_open_error) },
    }),
    ...(asks("session_budget") && { session_budget: sessionBudget(row) }),
    ...((asks("dns_delay") || asks("dns_timeout") || asks("dns_nxdomain")) && {
      dns: {
        ...(asks("dns_delay") && { delay: time(row.dns_delay_ns) }),
        ...(asks("dns_timeout") && { timeout: time(row.dns_timeout_ns) }),
        ...(asks("dns_nxdomain") && { nxdomain: formatProbability(row.dns_nxdomain_ppm) }),
      },
    }),
    ...(row.mutation_max_buffer > 0n && { payload_mutation: payloadMutation(row) }),
    ...(asks("packet_duplicate") && {
      packet_duplicate: { prob: formatProbability(row.duplicate_ppm), max_extra: row.duplicate_max_extra },
    }),
    ...(asks("packet_reorder") && {
      packet_reorder: {
        prob: formatProbability(row.reorder_ppm),
        window: row.reorder_window,
        max_delay: time(row.reorder_max_delay_ns),
      },
    }),
    ...(targets.length > 0 && { targets: targets.map(targetRule) }),
    ...scheduled(row),
    seed: `0x${row.seed.toString(16)}`,
  };
}

/** The normal form of a policy, with a seed only where the policy has one of its own. */
export function normalForm(policy: Policy): PolicyInput {
  const { row, targets } = compile("policy", policy, { runSeed: 0n });
  const { seed, ...fields } = decompile(row, targets);
  return policy.fields.seed === undefined ? fields : { ...fields, seed };
}

const time = (durationNs: bigint): string => formatDuration(Number(durationNs));
const bytes = (size: bigint): string => formatSize(Number(size));

/** The field of RowDirection that holds each fault of one direction. */
const HELD_IN = {
  latency: "latency_ns",
  jitter: "jitter_ns",
  packet_loss: "loss_ppm",
  burst_loss: "burst_length",
  rate: "rate_bps",
} as const;
type Directional = keyof typeof HELD_IN;

function delayAndLoss(row: RowFields): PolicyInput {
  const common = sideFields(row.up, (key) => placeOf(row, key) === "common");
  const uplink = sideFields(row.up, (key) => ["uplink", "each"].includes(placeOf(row, key)));
  const downlink = sideFields(row.down, (key) => ["downlink", "each"].includes(placeOf(row, key)));
  return {
    ...common,
    ...(Object.keys(uplink).length > 0 && { uplink }),
    ...(Object.keys(downlink).length > 0 && { downlink }),
  };
}

function placeOf(
  { faults, up, down }: RowFields,
  key: Directional,
): "common" | "uplink" | "downlink" | "each" | "none" {
  const bit = 1 << FAULTS[key];
  if ((up.only_mask & bit) !== 0) return "uplink";
  if ((down.only_mask & bit) !== 0) return "downlink";
  const held = HELD_IN[key];
  if (up[held] !== down[held]) return "each";
  // A burst of one asks for no fault and is held all the same.
  return (faults & bit) !== 0 || Number(up[held]) > 0 ? "common" : "none";
}

function sideFields(side: RowDirectionFields, has: (key: Directional) => boolean) {
  return {
    ...(has("latency") && { latency: time(side.latency_ns) }),
    ...(has("jitter") && { jitter: time(side.jitter_ns) }),
    ...(has("packet_loss") && { packet_loss: formatProbability(side.loss_ppm) }),
    ...(has("burst_loss") && { burst_loss: side.burst_length }),
    ...(has("rate") && { rate: formatRate(Number(side.rate_bps)) }),
  };
}

function modes(row: RowFields): PolicyInput {
  const limited = [row.up, row.down].filter(({ rate_bps }) => rate_bps > 0n);
  const unusual = limited.find((side) => side.rate_burst_bytes !== BigInt(usualBurst(Number(side.rate_bps))));
  return {
    ...(row.jitter_distribution !== JITTER_DISTRIBUTIONS.uniform && {
      jitter_distribution: wordOf(JITTER_DISTRIBUTIONS, row.jitter_distribution),
    }),
    ...(row.rate_scope !== RATE_SCOPES.link && { rate_scope: wordOf(RATE_SCOPES, row.rate_scope) }),
    ...(unusual !== undefined && { rate_burst: bytes(unusual.rate_burst_bytes) }),
    ...(row.loss_mode !== LOSS_MODES.retransmit && { loss_mode: wordOf(LOSS_MODES, row.loss_mode) }),
  };
}

function correlatedLoss(row: RowFields) {
  return {
    p_good_to_bad: formatProbability(row.p_good_to_bad_ppm),
    p_bad_to_good: formatProbability(row.p_bad_to_good_ppm),
    loss_good: formatProbability(row.loss_good_ppm),
    loss_bad: formatProbability(row.loss_bad_ppm),
  };
}

function sessionBudget(row: RowFields) {
  const action = wordOf(BUDGET_ACTIONS, row.budget_action);
  return {
    ...(row.budget_max_tx > 0n && { max_tx: bytes(row.budget_max_tx) }),
    ...(row.budget_max_rx > 0n && { max_rx: bytes(row.budget_max_rx) }),
    ...(row.budget_max_ops > 0n && { max_ops: Number(row.budget_max_ops) }),
    ...(row.budget_max_duration_ns > 0n && { max_duration: time(row.budget_max_duration_ns) }),
    action,
    ...(action === "timeout" && { budget_timeout: time(row.budget_timeout_ns) }),
    ...(action === "connection_error" && { error: wordOf(ERROR_KINDS, row.budget_error) }),
  };
}

function scheduled(row: RowFields): { schedule?: ScheduleInput } {
  const kind = wordOf(SCHEDULE_KINDS, row.schedule_kind);
  const [first, second] = [time(row.schedule_first_ns), time(row.schedule_second_ns)];
  switch (kind) {
    case "always":
      return {};
    case "ramp":
      return { schedule: { kind, ramp: first } };
    case "spike":
      return { schedule: { kind, every: first, duration: second } };
    case "flapping":
      return { schedule: { kind, on: first, off: second } };
  }
}

/** The fields that a type needs are given even where they are zero. */
function payloadMutation(row: RowFields): MutationInput {
  const type = wordOf(MUTATION_TYPES, row.mutation_type);
  const swaps = type === "swap_bytes";
  return {
    type,
    prob: formatProbability(row.mutation_ppm),
    ...(row.mutation_target !== MUTATION_TARGETS.both && { target: wordOf(MUTATION_TARGETS, row.mutation_target) }),
    ...((type === "truncate" || row.truncate_size > 0n) && { truncate_size: bytes(row.truncate_size) }),
    ...(row.corrupt_count !== 1 && { corrupt_count: row.corrupt_count }),
    ...(row.corrupt_seed > 0n && { corrupt_seed: `0x${row.corrupt_seed.toString(16)}` }),
    ...(row.inject_position > 0n && { inject_position: Number(row.inject_position) }),
    ...(row.inject_length > 0 && { inject_data: payloadText(row.inject_data, row.inject_length) }),
    ...(row.find_length > 0 && { replace_find: payloadText(row.replace_find, row.find_length) }),
    ...(row.replace_length > 0 && { replace_with: payloadText(row.replace_with, row.replace_length) }),
    ...((swaps || row.swap_first > 0n) && { swap_pos1: Number(row.swap_first) }),
    ...((swaps || row.swap_second > 0n) && { swap_pos2: Number(row.swap_second) }),
    ...(row.mutation_min_size > 0n && { min_size: bytes(row.mutation_min_size) }),
    ...(row.mutation_max_size > 0n && { max_size: bytes(row.mutation_max_size) }),
    ...(row.mutation_every_n !== 1 && { every_n_packets: row.mutation_every_n }),
    ...(row.mutation_dry_run !== 0 && { dry_run: true }),
    max_buffer_size: bytes(row.mutation_max_buffer),
  };
}

/** Bytes as text where they are printable UTF-8, else in hexadecimal. */
function payloadText(padded: Uint8Array, length: number): string {
  const used = Buffer.from(padded.subarray(0, length));
  const text = used.toString("utf8");
  const isFaithful = Buffer.from(text, "utf8").equals(used) && !/\p{C}/u.test(text) && !text.startsWith("hex:");
  return isFaithful ? text : `hex:${used.toString("hex")}`;
}

function targetRule(target: TargetFields): TargetInput {
  const protocol = wordOf(PROTOCOLS, target.protocol);
  const priority = target.priority > 0 && { priority: target.priority };
  if (protocol === "unix") return { target: `unix://${target.name}`, ...priority };
  return {
    ...targetPlace(target),
    ...(target.port_ranges > 0 && { port: portText(target) }),
    ...(protocol !== "any" && { protocol }),
    ...priority,
  };
}

function targetPlace({ name_kind, name, address, prefix_length }: TargetFields): TargetInput {
  if (name_kind === NAME_KINDS.hostname) return { hostname: name };
  if (name_kind === NAME_KINDS.sni) return { sni: name };
  // A rule without a place is a rule for every address: the contract holds both alike.
  const network = formatNetwork({ address, prefixLength: prefix_length });
  return prefix_length === 128 ? { host: network } : { cidr: network };
}

function portText({ port_ranges, port_low, port_high }: TargetFields): string {
  const ranges = port_low
    .slice(0, port_ranges)
    .map((low, at) => (port_high[at] === low ? low : `${low}-${port_high[at]}`));
  return ranges.join(",");
}
