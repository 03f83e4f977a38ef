// Evidence from counters: what each fault is counted against, what is said when nothing happened, and how it reads.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { describeFaults, parsePolicy } from "../../../src/policy/index.js";
import type { PolicyCounters, RunCounters } from "../../../src/report/counters.js";
import { buildEvidence, type RunFacts } from "../../../src/report/evidence.js";
import { evidenceSchema } from "../../../src/report/schema.js";
import { renderEvidence } from "../../../src/report/text.js";

type Counters = PolicyCounters & RunCounters;

/** Counters of a run with one flow of 10 ops up and 20 down, 100 and 200 units, one connect and two lookups. */
function counters(changes: Partial<Counters> = {}): Counters {
  const all = {
    flows: 1,
    totalOps: 33,
    ops: { uplink: 10, downlink: 20 },
    units: { uplink: 100, downlink: 200 },
    gatedOps: { uplink: 0, downlink: 0 },
    gatedUnits: { uplink: 0, downlink: 0 },
    connects: 1,
    datagramSends: 0,
    lookups: 2,
    lostHeldBytes: 0,
    fallbacks: {},
    ioUringDenied: 0,
    journalDropped: 0,
    determinism: 0,
    sharedPeers: false,
    attached: 1,
    shrunk: false,
    damage: undefined,
    verdicts: { resolve: {}, chaos_base: { drop: 3, delay: 5 }, transport: { error: 1 } },
    applied: () => 0,
    times: () => undefined,
    ...changes,
  };
  return { ...all, all };
}

function facts(written: object, counted: PolicyCounters, changes: Partial<RunFacts> = {}): RunFacts {
  const policy = parsePolicy(written);
  return {
    version: "0.1.0",
    command: ["curl", "-s"],
    seed: 0x7f3an,
    exitCode: 0,
    durationMs: 12.4,
    policies: [{ policy, slots: [0], asked: describeFaults(policy), counters: counted }],
    escaped: [],
    unreachable: undefined,
    notes: [],
    ...changes,
  };
}

function evidenceOf(written: object, changes?: Partial<Counters>, more?: Partial<RunFacts>) {
  const counted = counters(changes);
  return buildEvidence(facts(written, counted, more), counted);
}

describe("of", () => {
  it.each([
    ["latency: ops of both directions, a connect counting in each", { latency: "1ms" }, 10 + 20 + 2],
    ["uplink.latency: that direction's", { uplink: { latency: "1ms" } }, 10 + 1],
    ["latency with one direction overridden: the other's", { latency: "1ms", uplink: { latency: "2ms" } }, 20 + 1],
    ["rate: data only", { rate: "1mbps" }, 30],
    ["packet_loss: units", { packet_loss: "1%" }, 300],
    ["downlink.packet_loss: that direction's", { downlink: { packet_loss: "1%" } }, 200],
    ["packet_reorder: units", { packet_reorder: { prob: "1%" } }, 300],
    ["connection_error reset: units", { connection_error: { kind: "reset" } }, 300],
    ["connection_error refused: connects", { connection_error: { kind: "refused" } }, 1],
    ["timeout.connect: connects", { timeout: { connect: "1s" } }, 1],
    ["timeout.recv: receives", { timeout: { recv: "1s" } }, 20],
    ["dns.nxdomain: lookups", { dns: { nxdomain: "1%" } }, 2],
    ["session_budget: ops", { session_budget: { max_ops: 5 } }, 32],
    ["payload_mutation: calls", { payload_mutation: { type: "corrupt_bytes" } }, 30],
  ])("%s", (_, written, of) => {
    expect(evidenceOf(written).faults[0]?.of).toBe(of);
  });

  it("of payload_mutation is the calls of its target's directions", () => {
    const asked = { payload_mutation: { type: "corrupt_bytes", target: "downlink_only" } };
    expect(evidenceOf(asked).faults[0]?.of).toBe(20);
  });

  it("leaves out what was carried while the schedule was off", () => {
    const gated = { gatedOps: { uplink: 4, downlink: 5 }, gatedUnits: { uplink: 40, downlink: 50 } };
    expect(evidenceOf({ latency: "1ms" }, gated).faults[0]?.of).toBe(32 - 9);
    expect(evidenceOf({ packet_loss: "1%" }, gated).faults[0]?.of).toBe(300 - 90);
  });

  it("counts datagram sends as the connects that a refusal is drawn for", () => {
    const asked = { connection_error: { kind: "refused" } };
    expect(evidenceOf(asked, { datagramSends: 9 }).faults[0]?.of).toBe(10);
  });
});

describe("delivered", () => {
  it("is a rate for chance and quantiles for time", () => {
    const { faults } = evidenceOf(
      { latency: "1ms", packet_loss: "1%" },
      {
        applied: (bit, direction) => (bit === 0 ? 16 : direction === "uplink" ? 1 : 2),
        times: (bit) => (bit === 0 ? { count: 32, quantileNs: (q) => q * 1e6 } : undefined),
      },
    );
    expect(faults).toEqual([
      { fault: "latency", asked: "1ms", applied: 32, of: 32, p50_ns: 5e5, p99_ns: 990_000, executor: "interceptor" },
      { fault: "packet_loss", asked: "1%", applied: 3, of: 300, delivered_ppm: 10_000, executor: "interceptor" },
    ]);
  });
});

describe("a fault asked for and never applied", () => {
  const latency = { latency: "100ms" };
  it.each([
    ["no flow", latency, { flows: 0 }, {}, "the program opened no network flow"],
    [
      "flows elsewhere",
      latency,
      { flows: 0 },
      { escaped: [{ peer: "10.0.0.1:80", pid: 7, program: "server", reason: "not attached" }] },
      "every flow escaped",
    ],
    ["no interceptor", latency, { attached: 0 }, {}, "the program never loaded the interceptor"],
    [
      "a static program",
      latency,
      { attached: 0 },
      { unreachable: "it is static" },
      "the program is not intercepted: it is static",
    ],
    ["no lookup", { dns: { delay: "1s" } }, { lookups: 0 }, {}, "no name was looked up"],
    ["luck", { packet_loss: "1ppm" }, {}, {}, "chance spared every unit"],
    [
      "its targets",
      { ...latency, targets: ["tcp://10.0.0.0/8"] },
      { ops: { uplink: 0, downlink: 0 }, connects: 0 },
      {},
      "its targets matched no flow",
    ],
    [
      "its schedule",
      { ...latency, schedule: { kind: "spike", every: "30s", duration: "5s" } },
      { ops: { uplink: 2, downlink: 2 }, gatedOps: { uplink: 2, downlink: 2 }, connects: 0 },
      {},
      "its schedule was off while there was traffic",
    ],
  ] as const)("is a note: %s", (_, written, counted, known, reason) => {
    const { notes } = evidenceOf(written, counted, known);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toMatch(/^[a-z.]+(_loss)? was asked for and never applied: /);
    expect(notes[0]).toContain(reason);
  });

  it("is none when nothing was asked for", () => {
    expect(
      evidenceOf({ latency: "0ms", packet_loss: "0%", connection_error: { kind: "reset", prob: "0%" } }).notes,
    ).toEqual([]);
    expect(evidenceOf({}).notes).toEqual([]);
  });
});

describe("notes", () => {
  it.each([
    [{ ioUringDenied: 2 }, "io_uring was refused 2 times"],
    [{ journalDropped: 5 }, "the journal lost 5 events"],
    [{ lostHeldBytes: 64 }, "64 bytes under way were lost"],
    [{ shrunk: true }, "/dev/shm is nearly full"],
    [{ damage: "it is shorter than its header says" }, "it is shorter than its header says"],
    [
      { fallbacks: { table_full: 3, bad_index: 0 } },
      "3 calls passed through unfaulted: a table of the segment was full",
    ],
  ])("%j", (changes, said) => {
    const { notes } = evidenceOf({}, changes);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain(said);
  });

  it("list fallbacks that happened", () => {
    expect(evidenceOf({}, { fallbacks: { table_full: 3, bad_index: 0 } }).fallbacks).toEqual({ table_full: 3 });
  });
});

describe("determinism", () => {
  const loss = { packet_loss: "1%" };
  it.each([
    ["exact without chance, whatever raced", { latency: "1ms" }, { determinism: 7 }, "exact"],
    ["exact without a race", loss, {}, "exact"],
    ["per flow when threads share a peer", loss, { sharedPeers: true }, "per flow"],
    ["statistical after a race", loss, { determinism: 1 }, "statistical"],
    ["statistical after a turn", loss, { determinism: 2 }, "statistical"],
    ["statistical with an unnumbered thread", loss, { determinism: 4, sharedPeers: true }, "statistical"],
  ] as const)("is %s", (_, written, changes, level) => {
    expect(evidenceOf(written, changes).determinism.level).toBe(level);
  });
});

describe("the text", () => {
  const evidence = evidenceSchema.parse({
    version: "0.1.0",
    command: ["node"],
    seed: "0x7f3a",
    determinism: { level: "exact", reason: "no race was seen" },
    exit_code: 0,
    duration_ms: 1,
    flows: 12,
    ops: 1204,
    faults: [
      {
        fault: "latency",
        asked: "100ms",
        applied: 1204,
        of: 1204,
        p50_ns: 100_100_000,
        p99_ns: 100_600_000,
        executor: "interceptor",
      },
      { fault: "packet_loss", asked: "1%", applied: 24, of: 2448, delivered_ppm: 9804, executor: "interceptor" },
    ],
    stages: {},
    escaped: [{ peer: "10.0.0.7:443", pid: 812, program: "go-build", reason: "static" }],
    fallbacks: {},
    notes: ["one thing"],
  });

  it("lines asked up against delivered", () => {
    expect(renderEvidence(evidence, { colour: false })).toBe(
      [
        "mishap: 12 flows · 1,204 ops · seed 0x7f3a",
        "  latency  asked 100ms  delivered p50 100.1ms  p99 100.6ms  1,204 ops",
        "  loss     asked 1%     delivered 0.98%                     24 of 2,448 units",
        "  escaped  1 flow not intercepted: 10.0.0.7:443 (pid 812 go-build, static)",
        "  note: one thing",
        "",
      ].join("\n"),
    );
  });

  it("has the same words in colour", () => {
    const coloured = renderEvidence(evidence, { colour: true });
    expect(coloured).toContain("\u001b[1mmishap:");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escapes are what is taken out
    expect(coloured.replace(/\u001b\[\d+m/g, "")).toBe(renderEvidence(evidence, { colour: false }));
  });
});

it("derives what went on from stage to stage", () => {
  const { stages } = evidenceOf({ latency: "1ms" }, { gatedOps: { uplink: 1, downlink: 2 } });
  expect(stages).toEqual({
    resolve: { continue: 303, skipped: 3 },
    chaos_base: { continue: 295, drop: 3, delay: 5 },
    transport: { continue: 299, error: 1 },
  });
});

// A new field needs its description in src/report/schema.ts and its place in the published file; the difference that a
// failure shows is what to write there.
it("docs/evidence.schema.json is the schema", () => {
  const file = new URL("../../../docs/evidence.schema.json", import.meta.url);
  const published: unknown = JSON.parse(readFileSync(file, "utf8"));
  expect(published).toEqual({
    title: "mishap evidence",
    ...z.toJSONSchema(evidenceSchema, { target: "draft-2020-12" }),
  });
});
