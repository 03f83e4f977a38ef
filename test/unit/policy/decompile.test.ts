// The way back: whatever compiles, its normal form compiles to the same row and targets.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile } from "../../../src/policy/compile.js";
import { decompile, normalForm } from "../../../src/policy/decompile.js";
import { type PolicyInput, parsePolicy } from "../../../src/policy/schema.js";
import { policyArbitrary } from "./support/policies.js";

const runSeed = 5n;
const compiled = (written: PolicyInput) => compile("p", parsePolicy(written), { runSeed });
const again = (written: PolicyInput): PolicyInput => {
  const { row, targets } = compiled(written);
  return decompile(row, targets);
};

it("any policy comes back as one that compiles alike", { timeout: 60_000 }, () => {
  fc.assert(
    fc.property(policyArbitrary, (written) => {
      expect(compiled(again(written))).toEqual(compiled(written));
    }),
    { numRuns: 1000 },
  );
});

it("a normal form is its own normal form, as text too", { timeout: 60_000 }, () => {
  fc.assert(
    fc.property(policyArbitrary, (written) => {
      const normal = normalForm(parsePolicy(written));
      expect(normalForm(parsePolicy(JSON.parse(JSON.stringify(normal))))).toEqual(normal);
      expect("seed" in normal).toBe(written.seed !== undefined);
    }),
  );
});

describe("the normal form", () => {
  it.each<[string, PolicyInput, PolicyInput]>([
    ["nothing", {}, {}],
    [
      "units",
      { latency: "0.05s", packet_loss: "10000ppm", rate: "1000kbps" },
      { latency: "50ms", packet_loss: "1%", rate: "1mbps" },
    ],
    ["zero is asked for", { latency: "0ms" }, { latency: "0us" }],
    ["one direction", { uplink: { latency: "1ms" } }, { uplink: { latency: "1ms" } }],
    ["both directions alike", { uplink: { rate: "1mbps" }, downlink: { rate: "1mbps" } }, { rate: "1mbps" }],
    [
      "an override",
      { jitter: "1ms", downlink: { jitter: "2ms" } },
      { uplink: { jitter: "1ms" }, downlink: { jitter: "2ms" } },
    ],
    [
      "what is usual is left out",
      { rate: "10mbps", rate_burst: "12500b", loss_mode: "retransmit" },
      { rate: "10mbps" },
    ],
    ["a rate_burst without a rate", { rate_burst: "1kb" }, {}],
    ["a seed", { seed: 32570 }, { seed: "0x7f3a" }],
    [
      "targets, highest priority first, as objects",
      { targets: ["tcp://10.1.2.3/8:80-90", { host: "2001:DB8:0::1", priority: 7 }, "unix:///run/x", "udp://:53"] },
      {
        targets: [
          { host: "2001:db8::1", priority: 7 },
          { cidr: "10.0.0.0/8", port: "80-90", protocol: "tcp" },
          { target: "unix:///run/x" },
          { cidr: "::/0", port: "53", protocol: "udp" },
        ],
      },
    ],
    [
      "payload that is no text",
      { payload_mutation: { type: "inject_bytes", inject_data: "hex:00ff" } },
      { payload_mutation: { type: "inject_bytes", prob: "100%", inject_data: "hex:00ff", max_buffer_size: "64kb" } },
    ],
  ])("%s", (_, written, normal) => {
    expect(normalForm(parsePolicy(written))).toEqual(normal);
  });

  it("is refused for a row that no policy compiles to", () => {
    const { row, targets } = compiled({ latency: "1ms", targets: ["any://a"] });
    expect(() =>
      decompile(
        row,
        targets.map((target) => ({ ...target, protocol: 9 })),
      ),
    ).toThrow("9 is none of any, tcp");
  });
});
