// The schema: every field of the reference in a form it takes, and each thing it must refuse, with its sentence.
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { PolicyError } from "../../../src/policy/errors.js";
import { checkPolicyName, parsePolicy, readPolicy } from "../../../src/policy/schema.js";

const accepted: [string, Record<string, unknown>, Record<string, unknown>][] = [
  ["nothing", {}, { loss_mode: "retransmit", rate_scope: "link", jitter_distribution: "uniform" }],
  ["latency, jitter", { latency: "50ms", jitter: "0.5s" }, { latency: 50_000_000, jitter: 500_000_000 }],
  ["durations in every unit", { latency: "1.5s", jitter: "100us" }, { latency: 1_500_000_000, jitter: 100_000 }],
  ["the least and the most that can be lost", { packet_loss: "0%" }, { packet_loss: 0 }],
  ["all of it", { packet_loss: "1000000ppm" }, { packet_loss: 1_000_000 }],
  ["packet_loss, burst_loss", { packet_loss: "500ppm", burst_loss: "3" }, { packet_loss: 500, burst_loss: 3 }],
  ["a count as a number", { burst_loss: 3 }, { burst_loss: 3 }],
  ["rate", { rate: "10mbps" }, { rate: 10_000_000 }],
  ["rates in other units", { uplink: { rate: "9bps" }, rate: "1.5gbps" }, { uplink: { rate: 9 }, rate: 1_500_000_000 }],
  ["rate in kbps", { rate: "384kbps" }, { rate: 384_000 }],
  ["timeout.connect", { timeout: { connect: "200ms" } }, { timeout: { connect: 200_000_000 } }],
  ["timeout.recv", { timeout: { recv: "500ms" } }, { timeout: { recv: 500_000_000 } }],
  [
    "uplink",
    { uplink: { latency: "1ms", jitter: "1ms", packet_loss: "1%", burst_loss: "2", rate: "1mbps" } },
    { uplink: { latency: 1_000_000, jitter: 1_000_000, packet_loss: 10_000, burst_loss: 2, rate: 1_000_000 } },
  ],
  ["downlink", { downlink: { latency: "1ms" } }, { downlink: { latency: 1_000_000 } }],
  [
    "correlated_loss",
    { correlated_loss: { p_good_to_bad: "1%", p_bad_to_good: "25%", loss_good: "0%", loss_bad: "500000ppm" } },
    { correlated_loss: { p_good_to_bad: 10_000, p_bad_to_good: 250_000, loss_good: 0, loss_bad: 500_000 } },
  ],
  [
    "connection_error",
    { connection_error: { kind: "refused" } },
    { connection_error: { kind: "refused", prob: 1_000_000 } },
  ],
  ["half_open", { half_open: { after: "32kb" } }, { half_open: { after: 32_000, error: "reset" } }],
  [
    "half_open with its error",
    { half_open: { after: "1gb", error: "unreachable" } },
    { half_open: { after: 1_000_000_000, error: "unreachable" } },
  ],
  [
    "connection_error with its probability",
    { connection_error: { kind: "reset", prob: "500ppm" } },
    { connection_error: { kind: "reset", prob: 500 } },
  ],
  [
    "packet_duplicate and packet_reorder in full",
    { packet_duplicate: { prob: "1%", max_extra: 3 }, packet_reorder: { prob: "2%", max_delay: "5ms", window: "4" } },
    {
      packet_duplicate: { prob: 10_000, max_extra: 3 },
      packet_reorder: { prob: 20_000, max_delay: 5_000_000, window: 4 },
    },
  ],
  ["packet_duplicate", { packet_duplicate: {} }, { packet_duplicate: { prob: 1_000_000, max_extra: 1 } }],
  ["packet_reorder", { packet_reorder: {} }, { packet_reorder: { prob: 1_000_000, max_delay: 0, window: 1 } }],
  [
    "dns",
    { dns: { delay: "200ms", timeout: "2s", nxdomain: "3%" } },
    { dns: { delay: 200_000_000, timeout: 2_000_000_000, nxdomain: 30_000 } },
  ],
  [
    "session_budget",
    { session_budget: { max_tx: "1mb", max_rx: "1kb", max_ops: 5, max_duration: "3s" } },
    { session_budget: { max_tx: 1_000_000, max_rx: 1000, max_ops: 5, max_duration: 3_000_000_000, action: "drop" } },
  ],
  [
    "session_budget, timeout",
    { session_budget: { max_ops: "5", action: "timeout", budget_timeout: "2s" } },
    { session_budget: { max_ops: 5, action: "timeout", budget_timeout: 2_000_000_000 } },
  ],
  [
    "session_budget, connection_error",
    { session_budget: { max_ops: 5, action: "connection_error", error: "unreachable" } },
    { session_budget: { max_ops: 5, action: "connection_error", error: "unreachable" } },
  ],
  ["schedule: ramp", { schedule: { kind: "ramp", ramp: "30s" } }, { schedule: { kind: "ramp", ramp: 30_000_000_000 } }],
  [
    "schedule: spike",
    { schedule: { kind: "spike", every: "5s", duration: "5s" } },
    { schedule: { kind: "spike", every: 5_000_000_000, duration: 5_000_000_000 } },
  ],
  [
    "schedule: flapping",
    { schedule: { kind: "flapping", on: "10s", off: "5s" } },
    { schedule: { kind: "flapping", on: 10_000_000_000, off: 5_000_000_000 } },
  ],
  ["seed", { seed: "0x7f3a" }, { seed: 0x7f3an }],
  ["a seed in decimal", { seed: "18446744073709551615" }, { seed: 18_446_744_073_709_551_615n }],
  ["a seed as a number", { seed: 42 }, { seed: 42n }],
  ["loss_mode", { loss_mode: "drop" }, { loss_mode: "drop" }],
  ["rate_scope, rate_burst", { rate_scope: "flow", rate_burst: "16kb" }, { rate_scope: "flow", rate_burst: 16_000 }],
  ["jitter_distribution", { jitter_distribution: "pareto" }, { jitter_distribution: "pareto" }],
];

test.each(accepted)("%s", (_, written, fields) => {
  const policy = parsePolicy(written);
  expect(policy.fields).toMatchObject(fields);
  expect(policy.written).toEqual(written);
});

describe("payload_mutation", () => {
  it.each([
    [{ type: "none" }],
    [{ enabled: false }],
    [{ enabled: false, type: "truncate" }],
    [{ type: "truncate", truncate_size: "16b" }],
    [{ type: "truncate", truncate_size: 0 }],
    [{ type: "corrupt_bytes", corrupt_count: 2, corrupt_seed: "0x7" }],
    [{ type: "inject_bytes", inject_data: "x".repeat(64), inject_position: 3 }],
    [{ type: "replace_pattern", replace_find: "a".repeat(32), replace_with: "" }],
    [{ type: "corrupt_encoding", target: "uplink", dry_run: true }],
    [{ type: "swap_bytes", swap_pos1: 0, swap_pos2: 1, target: "downlink_only" }],
    [{ type: "corrupt_bytes", prob: "10%", min_size: 1, max_size: "1kb", every_n_packets: 2, max_buffer_size: "64kb" }],
  ])("takes %o", (payload_mutation) => {
    expect(() => parsePolicy({ payload_mutation })).not.toThrow();
  });

  it("defaults to every call of both directions, within 64 kB", () => {
    expect(parsePolicy({ payload_mutation: { type: "corrupt_bytes" } }).fields.payload_mutation).toMatchObject({
      enabled: true,
      prob: 1_000_000,
      target: "both",
      corrupt_count: 1,
      every_n_packets: 1,
      dry_run: false,
      max_buffer_size: 64_000,
    });
  });

  it("takes bytes as text or in hexadecimal", () => {
    const data = (inject_data: string) =>
      parsePolicy({ payload_mutation: { type: "inject_bytes", inject_data } }).fields.payload_mutation?.inject_data;
    expect(data("é")).toEqual(new Uint8Array([0xc3, 0xa9]));
    expect(data("hex:00fF")).toEqual(new Uint8Array([0, 0xff]));
  });
});

const budget = (session_budget: unknown) => ({ session_budget });
const mutation = (payload_mutation: unknown) => ({ payload_mutation });
const refused: [unknown, string][] = [
  [{ latency: "50" }, 'latency "50": a duration needs a unit, such as 50ms'],
  [{ latency: "-1ms" }, 'latency "-1ms": a duration must not be negative, such as 1ms'],
  [{ jitter: 5 }, "jitter 5: a duration needs a unit, such as 5ms"],
  [{ jitter: "-5ms" }, 'jitter "-5ms": a duration must not be negative, such as 5ms'],
  [{ packet_loss: "1000001ppm" }, 'packet_loss "1000001ppm": a probability is at most 100%, such as 1%'],
  [{ packet_loss: "1" }, 'packet_loss "1": a probability needs a unit, such as 1%'],
  [{ rate: "10mb" }, 'rate "10mb": a rate is in gbps, mbps, kbps or bps, such as 10mbps'],
  [{ timeout: { recv: "0ms" } }, 'timeout.recv "0ms": must be above 0, such as 500ms'],
  [{ downlink: { burst_loss: -1 } }, "downlink.burst_loss -1: must be a whole number from 0"],
  [{ dns: { timeout: "0s" } }, 'dns.timeout "0s": must be above 0, such as 2s'],
  [{ rate_burst: "0kb" }, 'rate_burst "0kb": must be above 0, such as 16kb'],
  [{ seed: "18446744073709551616" }, "a seed is an integer of at most 64 bits"],
  [{ latency: "1ms", targets: [] }, "targets: must have at least one rule"],
  [{ targets: [{ hostname: "a", sni: "b" }] }, "targets[0]: takes hostname or sni, not both"],
  [{ packet_loss: "101%" }, 'packet_loss "101%": a probability is at most 100%, such as 1%'],
  [{ burst_loss: "x" }, 'burst_loss "x": must be a whole number from 0 to 4294967295, such as 3'],
  [{ rate: "10" }, 'rate "10": a rate needs a unit, such as 10mbps'],
  [{ rate: "0mbps" }, 'rate "0mbps": must be above 0, such as 10mbps'],
  [{ latncy: "50ms" }, 'the policy: unknown field "latncy"; the nearest is latency'],
  [{ uplink: { rat: "1mbps" } }, 'uplink: unknown field "rat"; the nearest is rate'],
  [{ uplink: { seed: 3 } }, "uplink: unknown field"],
  [{ uplink: { rate: "1" } }, 'uplink.rate "1": a rate needs a unit, such as 1mbps'],
  [{ timeout: "200ms" }, 'timeout "200ms": must be an object, such as {connect: 200ms, recv: 500ms}'],
  [{ timeout: { conect: "1ms" } }, 'timeout: unknown field "conect"; the nearest is connect'],
  [{ timeout: { connect: "0ms" } }, 'timeout.connect "0ms": must be above 0, such as 200ms'],
  [{ correlated_loss: { p_good_to_bad: "1%" } }, "correlated_loss.p_bad_to_good: missing; give one, such as 25%"],
  [{ connection_error: { prob: "1%" } }, "connection_error.kind: missing; give one, such as refused"],
  [
    { connection_error: { kind: "refuse" } },
    'connection_error.kind "refuse": must be reset, refused or unreachable, such as refused',
  ],
  [{ half_open: { after: "0b" } }, 'half_open.after "0b": must be above 0, such as 32kb'],
  [{ half_open: { after: "32" } }, 'half_open.after "32": a size needs a unit, such as 32kb'],
  [{ packet_duplicate: { max_extra: 0 } }, "packet_duplicate.max_extra 0: must be a whole number from 1"],
  [{ packet_reorder: { window: "0" } }, 'packet_reorder.window "0": must be a whole number from 1'],
  [{ dns: { nxdomain: "3" } }, 'dns.nxdomain "3": a probability needs a unit, such as 3%'],
  [budget({}), "session_budget.max_tx: missing; a budget needs at least one of"],
  [budget({ action: "drop" }), "session_budget.max_tx: missing"],
  [budget({ max_ops: 0 }), "session_budget.max_ops 0: must be a whole number from 1"],
  [
    budget({ max_ops: 1, action: "timeout" }),
    "session_budget.budget_timeout: missing; the action timeout needs it, such as 2s",
  ],
  [budget({ max_ops: 1, action: "timeout", budget_timeout: "0s" }), 'budget_timeout "0s": must be above 0'],
  [budget({ max_ops: 1, budget_timeout: "2s" }), "only the action timeout takes this"],
  [budget({ max_ops: 1, error: "reset" }), "only the action connection_error takes this"],
  [
    budget({ max_ops: 1, action: "stop" }),
    'session_budget.action "stop": must be drop, timeout or connection_error, such as drop',
  ],
  [mutation({ prob: "1%" }), "payload_mutation.type: missing; give one, such as corrupt_bytes"],
  [mutation({ type: "shuffle" }), "must be none, truncate, corrupt_bytes"],
  [mutation({ type: "truncate" }), "payload_mutation.truncate_size: missing; the type truncate needs it, such as 16b"],
  [mutation({ type: "inject_bytes" }), "payload_mutation.inject_data: missing"],
  [mutation({ type: "inject_bytes", inject_data: "x".repeat(65) }), "must be 1 to 64 bytes, such as noise or hex:00ff"],
  [mutation({ type: "inject_bytes", inject_data: "hex:0" }), "hex: is followed by pairs of hexadecimal digits"],
  [mutation({ type: "replace_pattern" }), "payload_mutation.replace_find: missing"],
  [mutation({ type: "replace_pattern", replace_find: "é".repeat(17) }), "must be 1 to 32 bytes"],
  [mutation({ type: "swap_bytes", swap_pos1: 0 }), "payload_mutation.swap_pos2: missing"],
  [mutation({ type: "corrupt_bytes", corrupt_count: 0 }), "must be a whole number from 1"],
  [mutation({ type: "corrupt_bytes", every_n_packets: 0 }), "must be a whole number from 1"],
  [mutation({ type: "corrupt_bytes", min_size: 9, max_size: 8 }), "max_size 8: must not be below min_size"],
  [mutation({ type: "corrupt_bytes", dry_run: "yes" }), 'dry_run "yes": must be true or false, such as true'],
  [{ schedule: { kind: "ramp", ramp: "0s" } }, 'schedule.ramp "0s": must be above 0, such as 30s'],
  [
    { schedule: { kind: "spike", every: "5s", duration: "6s" } },
    'schedule.duration "6s": must not be longer than every',
  ],
  [{ schedule: { kind: "spike", every: "5s", duration: "0s" } }, 'schedule.duration "0s": must be above 0, such as 5s'],
  [{ schedule: { kind: "flapping", on: "0s", off: "5s" } }, 'schedule.on "0s": must be above 0'],
  [{ schedule: { kind: "flapping", on: "1s", off: "0s" } }, 'schedule.off "0s": must be above 0'],
  [{ schedule: { kind: "flapping", on: "1s" } }, "schedule.off: missing; give one, such as 5s"],
  [{ schedule: { kind: "ramp", ramp: "1s", on: "1s" } }, 'schedule: unknown field "on"'],
  [{ schedule: { kind: "wave" } }, 'schedule.kind "wave": must be ramp, spike or flapping, such as ramp'],
  [{ seed: "abc" }, 'seed "abc": a seed is an integer of at most 64 bits, such as 42 or 0x7f3a'],
  [{ loss_mode: "lose" }, 'loss_mode "lose": must be retransmit or drop'],
  [{ rate_scope: "host" }, 'rate_scope "host": must be link or flow'],
  [{ jitter_distribution: "gauss" }, 'jitter_distribution "gauss": must be uniform, normal or pareto'],
  [{ targets: "tcp://10.0.0.1" }, 'targets "tcp://10.0.0.1": must be a list of rules, such as ["tcp://10.0.0.0/8"]'],
  [{ targets: ["tcp://10.0.0.1", "x"] }, 'targets[1] "x": a target starts with tcp://'],
  [{ targets: [{ host: "10.0.0.1", port: 0 }] }, "targets[0].port 0: a port is from 1 to 65535"],
  [null, "null: must be an object, such as {latency: 50ms}"],
  [["latency"], "the policy: must be an object, such as {latency: 50ms}"],
];

test.each(refused)("%o is refused: %s", (written, sentence) => {
  expect(() => parsePolicy(written)).toThrow(PolicyError);
  expect(() => parsePolicy(written)).toThrow(sentence);
});

test("everything that is wrong is said, each with its place", () => {
  const result = readPolicy({ latency: 5, uplink: { rat: 1, rate: "1" }, timeout: "1ms", x: 1, y: 2, targets: ["z"] });
  const problems = "problems" in result ? result.problems : [];
  expect(
    problems.map(({ parts, unknownKey }) => [...parts, ...(unknownKey === undefined ? [] : [`${unknownKey}?`])]),
  ).toEqual([["latency"], ["uplink", "rate"], ["uplink", "rat?"], ["timeout"], ["targets", 0], ["x?"], ["y?"]]);
  expect(problems.at(-1)?.problem).toBe('unknown field "y"; the nearest is dns');
});

describe("targets can be observed by the faults they narrow", () => {
  const dns = { dns: { delay: "1s" } };
  it.each([
    [dns, { hostname: "api.internal" }],
    [dns, "any://api.internal"],
    [{ latency: "1ms" }, "unix://"],
    [{ latency: "1ms" }, { sni: "api.internal" }],
    [{ latency: "1ms" }, "any://[::]/0"],
    [{ ...dns, latency: "1ms" }, { hostname: "api.internal" }],
    [{ payload_mutation: { enabled: false } }, "tcp://:443"],
    [{}, "tcp://:443"],
  ])("%o with %o", (faults, rule) => {
    expect(() => parsePolicy({ ...faults, targets: [rule] })).not.toThrow();
  });

  it.each([
    [dns, { hostname: "api.internal", port: 53 }, "dns faults need at least one rule with a host name"],
    [dns, { hostname: "api.internal", protocol: "udp" }, "dns faults need at least one rule with a host name"],
    [dns, "tcp://10.0.0.0/8", "dns faults need at least one rule with a host name"],
    [dns, { sni: "api.internal" }, "dns faults need at least one rule with a host name"],
    [{ latency: "1ms" }, "tcp://:443", "at least one rule must name a host, cidr, hostname, sni or unix:// path"],
    [{ uplink: { rate: "1mbps" } }, { protocol: "tcp" }, "at least one rule must name a host"],
    [budget({ max_ops: 1 }), { port: 80 }, "at least one rule must name a host"],
  ])("not %o with %o: %s", (faults, rule, sentence) => {
    expect(() => parsePolicy({ ...faults, targets: [rule] })).toThrow(`targets: ${sentence}`);
  });
});

test("a policy has a name", () => {
  expect(() => checkPolicyName("slow_link")).not.toThrow();
  for (const name of ["", "  ", "a\0b"]) expect(() => checkPolicyName(name)).toThrow("a policy's name is not empty");
});

test("whatever is written, only a PolicyError is thrown", () => {
  const value = fc.oneof(fc.string(), fc.integer(), fc.constantFrom("50ms", "1%", "32kb"), fc.anything());
  const key = fc.constantFrom(
    "latency",
    "uplink",
    "targets",
    "schedule",
    "timeout",
    "payload_mutation",
    "seed",
    "__proto__",
  );
  fc.assert(
    fc.property(
      fc.oneof(fc.anything(), fc.dictionary(key, fc.oneof(value, fc.dictionary(fc.string(), value)))),
      (written) => {
        try {
          parsePolicy(written);
        } catch (error) {
          expect(error).toBeInstanceOf(PolicyError);
        }
      },
    ),
  );
});
