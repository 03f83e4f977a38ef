// Policies at random, as people write them: every field of the schema, every form it takes, and nothing it refuses.
import fc from "fast-check";
import {
  JITTER_DISTRIBUTIONS,
  LOSS_MODES,
  MUTATION_TARGETS,
  RATE_SCOPES,
  words,
} from "../../../../src/policy/contract.js";
import type { PolicyInput } from "../../../../src/policy/schema.js";
import type { TargetInput } from "../../../../src/policy/targets.js";

const quantity = (units: readonly string[], { min = 0, max = 1_000_000 } = {}) =>
  fc.oneof(
    fc.tuple(fc.integer({ min, max }), fc.constantFrom(...units)).map(([number, unit]) => `${number}${unit}`),
    // One decimal place is exact in every unit but the finest.
    fc
      .tuple(
        fc.integer({ min, max: Math.min(max - 1, 9999) }),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(...units),
      )
      .map(([whole, tenths, unit]) => `${whole}.${unit === units[0] ? "0" : tenths}${unit}`),
  );

export const duration = (min = 0) => quantity(["us", "ms", "s"], { min });
export const size = (min = 0) => quantity(["b", "kb", "mb"], { min });
export const rate = () => quantity(["bps", "kbps", "mbps", "gbps"], { min: 1 });
export const probability = () =>
  fc.oneof(
    quantity(["ppm", "%"], { max: 100 }),
    quantity(["ppm"], { max: 1_000_000 }),
    fc.constantFrom("100%", "0.0001%"),
  );
export const count = (min = 0, max = 0xffff_ffff) =>
  fc.integer({ min, max }).chain((value) => fc.constantFrom<string | number>(value, String(value)));
const bytes = (min = 0) => fc.oneof(size(min), count(min, Number.MAX_SAFE_INTEGER));
const seed = () =>
  fc.oneof(
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map((value) => `0x${value.toString(16)}`),
    fc.integer({ min: 0 }),
    fc.constant("18446744073709551615"),
  );
const errorKind = () => fc.constantFrom("reset", "refused", "unreachable");
const flag = () => fc.constantFrom<boolean | "true" | "false">(true, false, "true", "false");
const payload = (min: number, max: number) =>
  fc.oneof(
    fc
      .string({ unit: "binary", minLength: min, maxLength: max })
      .filter((text) => !text.startsWith("hex:") && Buffer.byteLength(text) <= max),
    fc.uint8Array({ minLength: min, maxLength: max }).map((each) => `hex:${Buffer.from(each).toString("hex")}`),
  );

/** Some of these fields, and always those that are required. */
const some = <Fields, Key extends keyof Fields = never>(
  fields: { [Each in keyof Fields]: fc.Arbitrary<Fields[Each]> },
  ...requiredKeys: Key[]
) => fc.record<Fields, Key>(fields, { requiredKeys });

const directional = {
  latency: duration(),
  jitter: duration(),
  packet_loss: probability(),
  burst_loss: count(0, 4),
  rate: rate(),
};

const sessionBudget = fc
  .tuple(
    fc.constantFrom("max_tx", "max_rx", "max_ops", "max_duration"),
    fc.record({ max_tx: size(1), max_rx: size(1), max_ops: count(1), max_duration: duration(1) }),
    some({ max_tx: size(1), max_rx: size(1), max_ops: count(1), max_duration: duration(1) }),
    fc.oneof(
      fc.constantFrom({}, { action: "drop" as const }),
      fc.record({ action: fc.constant("timeout" as const), budget_timeout: duration(1) }),
      some({ action: fc.constant("connection_error" as const), error: errorKind() }, "action"),
    ),
  )
  .map(([sure, all, limits, action]) => ({ ...limits, [sure]: all[sure], ...action }));

const mutationFields = {
  prob: probability(),
  target: fc.constantFrom(...words(MUTATION_TARGETS)),
  truncate_size: bytes(),
  corrupt_count: count(1),
  corrupt_seed: seed(),
  inject_position: count(0, Number.MAX_SAFE_INTEGER),
  inject_data: payload(1, 64),
  replace_find: payload(1, 32),
  replace_with: payload(0, 32),
  swap_pos1: count(0, Number.MAX_SAFE_INTEGER),
  swap_pos2: count(0, Number.MAX_SAFE_INTEGER),
  min_size: fc.constantFrom<string | number>(0, 1, "1b"),
  max_size: bytes(1),
  every_n_packets: count(1),
  dry_run: flag(),
  max_buffer_size: bytes(1),
};
const mutation = <Type extends string>(type: Type) => ({
  ...mutationFields,
  type: fc.constant(type),
  enabled: fc.constantFrom<true | "true">(true, "true"),
});
const payloadMutation = fc.oneof(
  some(mutation("none"), "type"),
  some(mutation("corrupt_bytes"), "type"),
  some(mutation("corrupt_encoding"), "type"),
  some(mutation("truncate"), "type", "truncate_size"),
  some(mutation("inject_bytes"), "type", "inject_data"),
  some(mutation("replace_pattern"), "type", "replace_find"),
  some(mutation("swap_bytes"), "type", "swap_pos1", "swap_pos2"),
  some({ ...mutationFields, enabled: fc.constantFrom<false | "false">(false, "false") }, "enabled"),
);

const schedule = fc.oneof(
  fc.record({ kind: fc.constant("ramp" as const), ramp: duration(1) }),
  fc.record({ kind: fc.constant("flapping" as const), on: duration(1), off: duration(1) }),
  fc
    .tuple(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 0, max: 1000 }))
    .map(([first, more]) => ({ kind: "spike" as const, every: `${first + more}ms`, duration: `${first}ms` })),
);

const hostname = fc.constantFrom("api.internal", "*.Example.com", "a-b.test.", "x*", "_srv.local");
const ipv4 = fc.ipV4();
const ipv6 = fc.ipV6();
const port = fc.integer({ min: 1, max: 65_535 });
const portRange = fc.tuple(port, port).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`);
const ports = fc.oneof(
  port,
  fc.array(fc.oneof(port.map(String), portRange), { minLength: 1, maxLength: 8 }).map((list) => list.join(",")),
);
const cidr = fc.oneof(
  fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })).map(([address, bits]) => `${address}/${bits}`),
  fc.tuple(ipv6, fc.integer({ min: 0, max: 128 })).map(([address, bits]) => `${address}/${bits}`),
);
const extras = { port: ports, protocol: fc.constantFrom("any", "tcp", "udp"), priority: count() };
const unixRule = fc.constantFrom("unix://", "unix:///run/X*.sock", "unix://@abstract ");
const textRule = fc.oneof(
  unixRule,
  fc
    .tuple(
      fc.constantFrom("any", "tcp", "udp"),
      fc.oneof(
        hostname,
        ipv4,
        ipv6.map((address) => `[${address}]`),
        fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })).map((net) => net.join("/")),
      ),
      fc.option(ports),
    )
    .map(([protocol, host, wanted]) => `${protocol}://${host}${wanted === null ? "" : `:${wanted}`}`),
  port.map((each) => `tcp://:${each}`),
);
const rule: fc.Arbitrary<string | TargetInput> = fc.oneof(
  textRule,
  some({ ...extras, host: fc.oneof(ipv4, ipv6) }, "host"),
  some({ ...extras, cidr }, "cidr"),
  some({ ...extras, hostname }, "hostname"),
  some({ ...extras, sni: hostname }, "sni"),
  some({ ...extras, port: ports }, "port"),
  some({ target: textRule, priority: count() }, "target"),
);

/** What asks for nothing, so that targets are free of what faults must be able to observe. */
const ASKS_NOTHING = new Set([
  "targets",
  "schedule",
  "seed",
  "loss_mode",
  "rate_scope",
  "rate_burst",
  "jitter_distribution",
]);

/** Faults need a rule that can match them: a host name alone matches lookups and connections. */
function observable(policy: PolicyInput): PolicyInput {
  const asks = Object.keys(policy).some((key) => !ASKS_NOTHING.has(key));
  return asks && policy.targets !== undefined
    ? { ...policy, targets: [...policy.targets, "any://seen.internal"] }
    : policy;
}

/** A policy that the schema takes. */
export const policyArbitrary: fc.Arbitrary<PolicyInput> = some({
  ...directional,
  uplink: some(directional),
  downlink: some(directional),
  jitter_distribution: fc.constantFrom(...words(JITTER_DISTRIBUTIONS)),
  rate_scope: fc.constantFrom(...words(RATE_SCOPES)),
  rate_burst: size(1),
  loss_mode: fc.constantFrom(...words(LOSS_MODES)),
  correlated_loss: fc.record({
    p_good_to_bad: probability(),
    p_bad_to_good: probability(),
    loss_good: probability(),
    loss_bad: probability(),
  }),
  timeout: some({ connect: duration(1), recv: duration(1) }),
  connection_error: some({ kind: errorKind(), prob: probability() }, "kind"),
  half_open: some({ after: size(1), error: errorKind() }, "after"),
  session_budget: sessionBudget,
  dns: some({ delay: duration(), timeout: duration(1), nxdomain: probability() }),
  payload_mutation: payloadMutation,
  packet_duplicate: some({ prob: probability(), max_extra: count(1) }),
  packet_reorder: some({ prob: probability(), window: count(1), max_delay: duration() }),
  targets: fc.array(rule, { minLength: 1, maxLength: 15 }),
  schedule,
  seed: seed(),
}).map(observable);
