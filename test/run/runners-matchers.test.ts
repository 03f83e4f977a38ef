// toHaveApplied over evidence of runs: what passes, and what a failure says.
import { readFileSync } from "node:fs";
import { expect } from "mishap/vitest";
import { describe, it } from "vitest";
import type { Evidence, FaultEvidence } from "../../src/report/schema.js";
import { evidenceOf, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();

function evidence(faults: Partial<FaultEvidence>[], notes: string[] = []): Evidence {
  return {
    version: "0.1.0",
    command: ["app"],
    seed: "0x7",
    determinism: { level: "exact", reason: "no fault that was asked for draws on chance" },
    exit_code: 0,
    duration_ms: 12,
    flows: 2,
    ops: 9,
    faults: faults.map((fault) => ({
      fault: "latency",
      asked: "50ms",
      applied: 3,
      of: 9,
      executor: "interceptor",
      ...fault,
    })),
    stages: {},
    escaped: [],
    fallbacks: {},
    notes,
  };
}

/** What an assertion fails with. */
function failure(assert: () => void): string {
  try {
    assert();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it passed");
}

describe("which faults are meant", () => {
  const both = evidence([
    { fault: "uplink.packet_loss", asked: "1%", applied: 2 },
    { fault: "downlink.packet_loss", asked: "2%", applied: 0 },
    { fault: "dns.nxdomain", asked: "50%", applied: 1, of: 2 },
    { fault: "timeout.connect", asked: "20ms", applied: 0 },
  ]);

  it("a name without a direction is both", () => {
    expect(both).toHaveApplied("packetLoss", { atLeast: 2, atMost: 2 });
    expect(both).toHaveApplied("uplink.packetLoss");
    expect(both).not.toHaveApplied("downlink.packetLoss");
  });

  it("dns and timeout are all of theirs", () => {
    expect(both).toHaveApplied("dns");
    expect(both).not.toHaveApplied("dns.delay");
    expect(both).not.toHaveApplied("timeout");
  });

  it("what was not asked for was not applied, and a name that no fault has is an error either way", () => {
    expect(both).not.toHaveApplied("latency");
    const misspelt = JSON.parse('"latancy"');
    const said = 'toHaveApplied: no fault is called "latancy"; the nearest is latency';
    expect(failure(() => expect(both).toHaveApplied(misspelt))).toBe(said);
    expect(failure(() => expect(both).not.toHaveApplied(misspelt))).toBe(said);
  });

  it("a policy's alone", () => {
    const two = evidence([{ policy: "slow_link" }, { policy: "calm", applied: 0 }]);
    expect(two).toHaveApplied("latency", { policy: "slow_link", atLeast: 3 });
    expect(two).not.toHaveApplied("latency", { policy: "calm" });
  });
});

describe("how often", () => {
  const some = evidence([{}]);

  it.each([
    [{}, true],
    [{ atLeast: 3 }, true],
    [{ atLeast: 4 }, false],
    [{ atMost: 3 }, true],
    [{ atMost: 2 }, false],
    [{ atLeast: 1, atMost: 2 }, false],
  ])("%j of 3: %s", (options, passes) => {
    if (passes) expect(some).toHaveApplied("latency", options);
    else expect(some).not.toHaveApplied("latency", options);
  });

  it("never is at most none", () => expect(evidence([{ applied: 0 }])).toHaveApplied("latency", { atMost: 0 }));
});

describe("what a failure says", () => {
  it("asked, delivered, why not", () => {
    const note = "latency was asked for and never applied: its targets matched no flow";
    const said = failure(() => expect(evidence([{ applied: 0, of: 0 }], [note])).toHaveApplied("latency"));
    expect(said).toContain("expected latency to be applied; latency (asked 50ms) was never applied, of 0 ops");
    expect(said).toContain(`note: ${note}`);
  });

  it.each([
    [
      { atLeast: 5 },
      "expected latency to be applied at least 5 times; latency (asked 50ms) was applied 3 times, of 9 ops",
    ],
    [{ atMost: 1 }, "expected latency to be applied at most 1 time;"],
    [{ atLeast: 5, atMost: 7 }, "expected latency to be applied between 5 and 7 times;"],
    [{ atLeast: 5, atMost: 5 }, "expected latency to be applied exactly 5 times;"],
    [{ policy: "other" }, "expected latency of other to be applied; it was not asked for"],
  ])("%j", (options, said) => {
    expect(failure(() => expect(evidence([{}])).toHaveApplied("latency", options))).toContain(said);
  });

  it("is what docs/testing.md shows", () => {
    const page = readFileSync(new URL("../../docs/testing.md", import.meta.url), "utf8");
    const [, shown] = /^```text\n([\s\S]*?)^```/m.exec(page) ?? [];
    const note = "latency was asked for and never applied: the program opened no network flow";
    const none = { ...evidence([{ applied: 0, of: 0 }], [note]), flows: 0, ops: 0 };
    expect(failure(() => expect(none).toHaveApplied("latency"))).toBe(shown);
  });

  it("not", () => {
    expect(failure(() => expect(evidence([{}])).not.toHaveApplied("latency"))).toContain(
      "expected latency not to be applied; latency (asked 50ms) was applied 3 times, of 9 ops",
    );
  });

  it.each([[null], ["text"], [{ faults: 3 }]])("%j is no evidence", (received) => {
    expect(failure(() => expect(received).toHaveApplied("latency"))).toMatch(
      /^toHaveApplied: expects evidence, such as/,
    );
  });
});

it("takes what mishap run --json wrote", async () => {
  const { evidence: written } = await evidenceOf(
    folder,
    ["--connection-error", "refused"],
    ["node", "-e", 'require("net").connect(9, "127.0.0.1").on("error", () => {})'],
  );
  expect(written).toHaveApplied("connectionError", { atLeast: 1, atMost: 1 });
  expect(written).not.toHaveApplied("latency");
});
