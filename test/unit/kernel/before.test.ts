// What the kernel is asked to do to connections that were there before an attach, and what is said of the rest.
import { describe, expect, it } from "vitest";
import { describeTreated, treatmentOf } from "../../../src/kernel/before.js";
import { type PolicyInput, parsePolicy } from "../../../src/policy/index.js";

const treatment = (input: PolicyInput) => treatmentOf(parsePolicy(input));

describe("what can be done where they are", () => {
  it.each<[PolicyInput, string[], string[]]>([
    [{}, [], []],
    [{ latency: "10ms", jitter: "1ms" }, [], ["latency", "jitter"]],
    [{ connection_error: { kind: "reset" }, latency: "10ms" }, ["--reset"], []],
    [{ connection_error: { kind: "reset", prob: "50%" } }, [], ["connection_error"]],
    [{ connection_error: { kind: "refused" }, dns: { delay: "1s" }, timeout: { connect: "1s" } }, [], []],
    [{ packet_loss: "100%" }, ["--silent", "both"], []],
    [{ packet_loss: "99%" }, [], ["packet_loss"]],
    [{ uplink: { packet_loss: "100%" } }, ["--silent", "up"], []],
    [{ packet_loss: "1%", downlink: { packet_loss: "100%" } }, ["--silent", "down"], ["packet_loss"]],
    [{ half_open: { after: "1kb" } }, ["--silent", "both", "--silent-after", "1000"], []],
    [{ uplink: { rate: "8mbps" } }, ["--pace", "1000000"], []],
    [{ rate: "8mbps" }, ["--pace", "1000000"], ["rate"]],
    [{ downlink: { rate: "8mbps" } }, [], ["downlink.rate"]],
    [{ packet_loss: "100%", targets: ["tcp://10.0.0.0/8"] }, [], ["packet_loss"]],
    [{ packet_loss: "100%", schedule: { kind: "ramp", ramp: "5s" } }, [], ["packet_loss"]],
  ])("of %j", (input, flags, left) => {
    const found = treatment(input);
    expect(found.flags).toEqual(flags);
    expect(found.left.map(({ fault }) => fault)).toEqual(left);
  });
});

describe("what evidence says of it", () => {
  const none = { found: [], reset: 0, silenced: 0, paced: 0 };

  it("nothing where there was none", () => {
    expect(describeTreated(treatment({ latency: "10ms" }), none)).toEqual({ faults: [], notes: [] });
  });

  it("an entry a fault that was applied, and a note of the others", () => {
    const asked = treatment({ packet_loss: "100%", latency: "10ms", jitter: "1ms" });
    expect(describeTreated(asked, { ...none, found: [1n, 2n], silenced: 2 })).toEqual({
      faults: [{ fault: "packet_loss", asked: "100%", applied: 2, of: 2, executor: "kernel" }],
      notes: ["2 connections were there before: they do not meet latency, jitter"],
    });
  });

  it("why some could not be had", () => {
    expect(describeTreated(treatment({}), { ...none, problem: "Operation not permitted" }).notes).toEqual([
      "not all connections that were there before could be had: Operation not permitted",
    ]);
  });
});
