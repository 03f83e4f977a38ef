// Answers of hooks: rebuilt as plain data and checked as policies, whatever the object that a script returned does.
import { describe, expect, it } from "vitest";
import { answerOf } from "../../../src/script/host/answers.js";

describe("answerOf", () => {
  it("gives fields in the form of policy files", () => {
    expect(answerOf("onFlow", { latency: "50ms", connectionError: { kind: "reset" } })).toEqual({
      fields: { latency: "50ms", connection_error: { kind: "reset" } },
    });
    expect(answerOf("onOp", { fields: { latency: "1ms" }, validFor: { units: 3 } })).toEqual({
      fields: { latency: "1ms" },
      validFor: { units: 3 },
    });
    expect(answerOf("onTick", { policies: { slow: { rate: "1mbps" } }, own: {} })).toEqual({
      fields: {},
      policies: { slow: { rate: "1mbps" } },
    });
    expect(answerOf("onOp", undefined)).toEqual({});
  });

  it("is the same object for the same text", () => {
    expect(answerOf("onOp", { latency: "2ms" })).toBe(answerOf("onOp", { latency: "2ms" }));
  });

  const cycle: Record<string, unknown> = {};
  cycle.targets = cycle;
  it.each<[what: string, value: unknown, sentence: RegExp]>([
    ["a typo", { latncy: "5ms" }, /unknown field "latncy"; the nearest is latency/],
    ["a getter", Object.defineProperty({}, "latency", { get: () => "5ms", enumerable: true }), /a getter, latency/],
    ["__proto__", JSON.parse('{"__proto__": {"latency": "5ms"}}'), /a field __proto__/],
    ["a class", new (class Answer {})(), /a prototype of its own/],
    ["toJSON", { toJSON: () => ({ latency: "5ms" }) }, /a function in toJSON/],
    ["a cycle", cycle, /objects in objects without end/],
    ["a BigInt", { latency: 5n }, /a bigint in latency/],
    ["a proxy", new Proxy({}, {}), /a proxy/],
    ["a giant text", { latency: "x".repeat(1e6) }, /a giant text in latency/],
    ["a giant list", { targets: new Array(1e6).fill(0) }, /more than 2000 values/],
    [
      "much text",
      Object.fromEntries(Array.from({ length: 30 }, (_, i) => [i, "x".repeat(1000)])),
      /at most 16384 bytes/,
    ],
    ["a promise", Promise.resolve({}), /answered a promise/],
    ["a number", 5, /answered a number/],
    ["targets", { latency: "5ms", targets: [] }, /answered targets/],
    ["no validity", { fields: {}, validFor: "ever" }, /a validFor that is none/],
  ])("refuses %s", (_, value, sentence) => {
    expect(() => answerOf("onOp", value)).toThrow(sentence);
  });
});
