// Compiling: each field of a policy lands in its field of the contract, and the contract's headers agree.
import { readFileSync } from "node:fs";
import { describe, expect, it, test } from "vitest";
import { compile, type RowDirectionFields, type RowFields } from "../../../src/policy/compile.js";
import * as contract from "../../../src/policy/contract.js";
import { FAULTS } from "../../../src/policy/contract.js";
import { describeFaults } from "../../../src/policy/faults.js";
import { type PolicyInput, parsePolicy } from "../../../src/policy/schema.js";

const runSeed = 5n;
const rowOf = (written: PolicyInput, name = "p"): RowFields => compile(name, parsePolicy(written), { runSeed }).row;
const bits = (...faults: (keyof typeof FAULTS)[]): number =>
  faults.reduce((mask, fault) => mask | (1 << FAULTS[fault]), 0);

type Expected = Partial<Omit<RowFields, "up" | "down">> & {
  up?: Partial<RowDirectionFields>;
  down?: Partial<RowDirectionFields>;
};

const compiled: [string, PolicyInput, Expected][] = [
  ["nothing asked", {}, { faults: 0, target_count: 0, schedule_kind: 0, mutation_type: 0, seed: 5n, name: "p" }],
  [
    "latency",
    { latency: "50ms" },
    { faults: bits("latency"), up: { latency_ns: 50_000_000n, only_mask: 0 }, down: { latency_ns: 50_000_000n } },
  ],
  ["a latency of zero is asked for", { latency: "0ms" }, { faults: bits("latency"), up: { latency_ns: 0n } }],
  [
    "an override",
    { latency: "50ms", uplink: { latency: "1ms" } },
    { faults: bits("latency"), up: { latency_ns: 1_000_000n, only_mask: 0 }, down: { latency_ns: 50_000_000n } },
  ],
  [
    "one direction only",
    { uplink: { packet_loss: "1%", rate: "1mbps" }, downlink: { rate: "2mbps", jitter: "1ms" } },
    {
      faults: bits("packet_loss", "rate", "jitter"),
      up: { only_mask: bits("packet_loss"), loss_ppm: 10_000, rate_bps: 1_000_000n, jitter_ns: 0n },
      down: { only_mask: bits("jitter"), loss_ppm: 0, rate_bps: 2_000_000n, jitter_ns: 1_000_000n },
    },
  ],
  [
    "burst_loss",
    { burst_loss: "3" },
    { faults: bits("burst_loss"), up: { burst_length: 3 }, down: { burst_length: 3 } },
  ],
  ["a burst of one is no burst", { burst_loss: "1" }, { faults: 0, up: { burst_length: 1 } }],
  [
    "rate, with the default burst of 10 ms",
    { rate: "10mbps" },
    { faults: bits("rate"), up: { rate_bps: 10_000_000n, rate_burst_bytes: 12_500n } },
  ],
  ["rate, with one segment at least", { rate: "1mbps" }, { down: { rate_burst_bytes: 1448n } }],
  ["rate_burst", { rate: "1mbps", rate_burst: "64kb" }, { down: { rate_burst_bytes: 64_000n } }],
  ["no rate, no burst", { rate_burst: "64kb" }, { faults: 0, up: { rate_bps: 0n, rate_burst_bytes: 0n } }],
  [
    "correlated_loss",
    { correlated_loss: { p_good_to_bad: "1%", p_bad_to_good: "2%", loss_good: "3%", loss_bad: "4%" } },
    {
      faults: bits("correlated_loss"),
      p_good_to_bad_ppm: 10_000,
      p_bad_to_good_ppm: 20_000,
      loss_good_ppm: 30_000,
      loss_bad_ppm: 40_000,
    },
  ],
  [
    "modes",
    { loss_mode: "drop", rate_scope: "flow", jitter_distribution: "pareto" },
    { faults: 0, loss_mode: 1, rate_scope: 1, jitter_distribution: 2 },
  ],
  [
    "timeout",
    { timeout: { connect: "1ms", recv: "2ms" } },
    { faults: bits("connect_timeout", "recv_timeout"), connect_timeout_ns: 1_000_000n, recv_timeout_ns: 2_000_000n },
  ],
  [
    "connection_error",
    { connection_error: { kind: "unreachable", prob: "10%" } },
    { faults: bits("connection_error"), error_kind: 2, error_ppm: 100_000 },
  ],
  [
    "half_open",
    { half_open: { after: "32kb", error: "refused" } },
    { faults: bits("half_open"), half_open_bytes: 32_000n, half_open_error: 1 },
  ],
  [
    "packet_duplicate",
    { packet_duplicate: { prob: "10%", max_extra: 2 } },
    { faults: bits("packet_duplicate"), duplicate_ppm: 100_000, duplicate_max_extra: 2 },
  ],
  [
    "packet_reorder",
    { packet_reorder: { prob: "10%", window: 3, max_delay: "5ms" } },
    { faults: bits("packet_reorder"), reorder_ppm: 100_000, reorder_window: 3, reorder_max_delay_ns: 5_000_000n },
  ],
  [
    "dns",
    { dns: { delay: "1ms", timeout: "2ms", nxdomain: "3%" } },
    {
      faults: bits("dns_delay", "dns_timeout", "dns_nxdomain"),
      dns_delay_ns: 1_000_000n,
      dns_timeout_ns: 2_000_000n,
      dns_nxdomain_ppm: 30_000,
    },
  ],
  [
    "session_budget",
    {
      session_budget: {
        max_tx: "1kb",
        max_rx: "2kb",
        max_ops: 3,
        max_duration: "4ms",
        action: "timeout",
        budget_timeout: "5ms",
      },
    },
    {
      faults: bits("session_budget"),
      budget_max_tx: 1000n,
      budget_max_rx: 2000n,
      budget_max_ops: 3n,
      budget_max_duration_ns: 4_000_000n,
      budget_action: 1,
      budget_timeout_ns: 5_000_000n,
    },
  ],
  [
    "session_budget, connection_error",
    { session_budget: { max_ops: 3, action: "connection_error", error: "refused" } },
    { budget_action: 2, budget_error: 1 },
  ],
  [
    "payload_mutation",
    {
      payload_mutation: {
        type: "inject_bytes",
        prob: "10%",
        target: "downlink",
        inject_data: "ab",
        inject_position: 7,
        min_size: 1,
        max_size: "1kb",
        every_n_packets: 2,
        dry_run: true,
        max_buffer_size: "2kb",
      },
    },
    {
      faults: bits("payload_mutation"),
      mutation_type: 3,
      mutation_ppm: 100_000,
      mutation_target: 2,
      mutation_dry_run: 1,
      inject_length: 2,
      inject_data: Uint8Array.from({ length: 64 }, (_, at) => [97, 98][at] ?? 0),
      inject_position: 7n,
      mutation_min_size: 1n,
      mutation_max_size: 1000n,
      mutation_every_n: 2,
      mutation_max_buffer: 2000n,
    },
  ],
  [
    "other mutations",
    {
      payload_mutation: {
        type: "replace_pattern",
        replace_find: "abc",
        replace_with: "d",
        truncate_size: 4,
        corrupt_count: 5,
        corrupt_seed: 6,
        swap_pos1: 7,
        swap_pos2: 8,
      },
    },
    {
      mutation_type: 4,
      find_length: 3,
      replace_length: 1,
      truncate_size: 4n,
      corrupt_count: 5,
      corrupt_seed: 6n,
      swap_first: 7n,
      swap_second: 8n,
    },
  ],
  ["a disabled mutation", { payload_mutation: { enabled: false, type: "truncate" } }, { faults: 0, mutation_type: 0 }],
  ["a mutation of type none", { payload_mutation: { type: "none" } }, { faults: 0, mutation_type: 0 }],
  [
    "ramp",
    { schedule: { kind: "ramp", ramp: "1ms" } },
    { schedule_kind: 1, schedule_first_ns: 1_000_000n, schedule_second_ns: 0n },
  ],
  [
    "spike",
    { schedule: { kind: "spike", every: "2ms", duration: "1ms" } },
    { schedule_kind: 2, schedule_first_ns: 2_000_000n, schedule_second_ns: 1_000_000n },
  ],
  [
    "flapping",
    { schedule: { kind: "flapping", on: "2ms", off: "1ms" } },
    { schedule_kind: 3, schedule_first_ns: 2_000_000n, schedule_second_ns: 1_000_000n },
  ],
  ["a seed of its own", { seed: "0x7f3a" }, { seed: 0x7f3an }],
  ["targets", { targets: ["any://a", { hostname: "b" }] }, { target_count: 2 }],
];

test.each(compiled)("%s", (_, written, fields) => {
  expect(rowOf(written)).toMatchObject(fields);
});

test("a name is cut to 63 bytes at a character, and must be one", () => {
  expect(rowOf({}, "é".repeat(40)).name).toBe("é".repeat(31));
  expect(() => rowOf({}, "")).toThrow("a policy's name is not empty");
});

test("targets come with the row, highest priority first", () => {
  const policy = parsePolicy({ targets: ["any://a", { hostname: "b", priority: 1 }] });
  expect(compile("p", policy, { runSeed }).targets.map(({ name }) => name)).toEqual(["b", "a"]);
});

describe("faults for evidence", () => {
  const described = (written: PolicyInput) =>
    describeFaults(parsePolicy(written)).map(
      ({ fault, asked, faultBit, directions }) => `${fault} ${asked} ${faultBit} ${directions.join("+")}`,
    );

  it.each<[string, PolicyInput, string[]]>([
    ["a common field", { latency: "50ms" }, ["latency 50ms 0 uplink+downlink"]],
    [
      "an override takes its direction away",
      { rate: "1mbps", uplink: { rate: "2mbps" } },
      ["rate 1mbps 5 downlink", "uplink.rate 2mbps 5 uplink"],
    ],
    [
      "both overridden",
      { rate: "1mbps", uplink: { rate: "2mbps" }, downlink: { rate: "3mbps" } },
      ["uplink.rate 2mbps 5 uplink", "downlink.rate 3mbps 5 downlink"],
    ],
    [
      "a burst of one overrides and asks nothing",
      { burst_loss: 3, uplink: { burst_loss: 1 } },
      ["burst_loss 3 3 downlink"],
    ],
    [
      "dotted",
      { timeout: { connect: "1ms" }, dns: { nxdomain: "3%" } },
      ["timeout.connect 1ms 6 uplink+downlink", "dns.nxdomain 3% 15 uplink+downlink"],
    ],
    [
      "short forms",
      { connection_error: { prob: "10%", kind: "refused" } },
      ["connection_error refused:10% 12 uplink+downlink"],
    ],
    [
      "a short form with a gap",
      { packet_reorder: { max_delay: "5ms" } },
      ["packet_reorder max_delay=5ms 11 uplink+downlink"],
    ],
    ["all defaults", { packet_duplicate: {} }, ["packet_duplicate 100% 14 uplink+downlink"]],
    [
      "objects",
      { session_budget: { max_tx: "1mb", action: "drop" } },
      ["session_budget max_tx=1mb,action=drop 10 uplink+downlink"],
    ],
    [
      "a mutation of one direction",
      { payload_mutation: { type: "truncate", truncate_size: 1, target: "uplink_only" } },
      ["payload_mutation type=truncate,truncate_size=1,target=uplink_only 16 uplink"],
    ],
    ["nothing", { payload_mutation: { enabled: false }, loss_mode: "drop" }, []],
  ])("%s", (_, written, entries) => {
    expect(described(written)).toEqual(entries);
  });
});

describe("the contract's headers", () => {
  const header = (name: string): string =>
    readFileSync(new URL(`../../../native/contract/${name}`, import.meta.url), "utf8");
  const fieldsOf = (text: string, list: string): [type: string, name: string, count: string | undefined][] => {
    const start = text.indexOf(`#define ${list}(`);
    const block = text.slice(start, text.indexOf("MISHAP_STRUCT", start));
    return [...block.matchAll(/(?:FIELD|ARRAY)\((\w+), (\w+), (?:(\d+), )?"/g)].map(
      ([, type = "", name = "", count]) => [type, name, count],
    );
  };
  const typeOf = (value: unknown): string => {
    if (value instanceof Uint8Array || Array.isArray(value)) return `${value.length} numbers`;
    return typeof value;
  };
  const ours: Record<string, string> = {
    u64: "bigint",
    u32: "number",
    u8: "number",
    RowDirection: "object",
    char: "string",
  };
  const expectedOf = (list: string, text: string, without: string[]): Record<string, string> =>
    Object.fromEntries(
      fieldsOf(text, list)
        .filter(([, name]) => !without.includes(name))
        .map(([type, name, count]) => [
          name,
          count !== undefined && type !== "char" ? `${count} numbers` : (ours[type] ?? type),
        ]),
    );
  const typesOf = (fields: object): Record<string, string> =>
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, typeOf(value)]));

  it("name the fields of a row, with their types", () => {
    const row = rowOf({});
    expect(typesOf(row)).toEqual(
      expectedOf("MISHAP_ROW", header("row.h"), ["seq", "reserved", "holder", "withdrawn", "script_asks"]),
    );
    expect(typesOf(row.up)).toEqual(expectedOf("MISHAP_ROW_DIRECTION", header("row.h"), ["reserved"]));
  });

  it("name the fields of a target", () => {
    const [target] = compile("p", parsePolicy({ targets: ["any://a"] }), { runSeed }).targets;
    expect(typesOf(target ?? {})).toEqual(expectedOf("MISHAP_TARGET", header("target.h"), []));
  });

  it.each([
    ["Fault", contract.FAULTS],
    ["LossMode", contract.LOSS_MODES],
    ["RateScope", contract.RATE_SCOPES],
    ["JitterDistribution", contract.JITTER_DISTRIBUTIONS],
    ["ErrorKind", contract.ERROR_KINDS],
    ["BudgetAction", contract.BUDGET_ACTIONS],
    ["ScheduleKind", contract.SCHEDULE_KINDS],
    ["MutationType", contract.MUTATION_TYPES],
    ["MutationTarget", contract.MUTATION_TARGETS],
    ["NameKind", contract.NAME_KINDS],
    ["Protocol", contract.PROTOCOLS],
  ] as [string, Record<string, number>][])("number %s alike", (name, numbers) => {
    const body = new RegExp(`enum class ${name} : u8 \\{([^}]*)\\}`).exec(header("types.h"))?.[1] ?? "";
    const snake = (word: string) => word.replace(/(?!^)[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
    const theirs = body
      .split(",")
      .map((word) => snake(word.trim()))
      .filter((word) => word !== "" && word !== "count");
    // What only the contract knows (a lookup's protocol), and words of ours that are named otherwise there.
    const renamed: Record<string, string> = { unix_path: "path" };
    for (const [at, word] of theirs.entries()) {
      if (name === "Protocol" && word === "dns") continue;
      expect([word, numbers[renamed[word] ?? word]]).toEqual([word, at]);
    }
    expect(Math.max(...Object.values(numbers))).toBeLessThan(theirs.length);
  });

  it("agree on the unit of chance", () => {
    expect(header("types.h")).toContain(`kStreamUnitBytes = ${contract.STREAM_UNIT_BYTES}`);
  });
});
