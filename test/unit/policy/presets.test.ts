// Presets: each one is a policy, says what it is, and says where its figures come from.
import { describe, expect, it } from "vitest";
import { compile } from "../../../src/policy/compile.js";
import { describeFaults } from "../../../src/policy/faults.js";
import { loadPreset, PRESETS } from "../../../src/policy/presets.js";

describe.each(Object.entries(PRESETS))("%s", (name, { description, source }) => {
  it("is a policy that asks for something", () => {
    const policy = loadPreset(name);
    expect(describeFaults(policy)).not.toEqual([]);
    expect(compile(name, policy, { runSeed: 1n }).row.name).toBe(name);
  });

  it("has a name that is easy to type, a description in one line, and a source", () => {
    expect(name).toMatch(/^[a-z0-9][a-z0-9_]*$/);
    expect(description).toMatch(/^[^\n]{10,110}$/);
    expect(description).not.toMatch(/\.$/);
    expect(source.length).toBeGreaterThan(10);
  });

  it("has half of the round trip that it speaks of", () => {
    const roundTripMs = /([\d,]+) ms round trip/.exec(description)?.[1]?.replace(",", "");
    if (roundTripMs === undefined) return;
    expect(loadPreset(name).fields.latency).toBe((Number(roundTripMs) * 1_000_000) / 2);
  });
});

it("what the networks of a phone are called is there", () => {
  const names = [
    "gprs",
    "edge",
    "3g_slow",
    "3g",
    "4g",
    "lte",
    "dsl",
    "cable",
    "fibre",
    "satellite_geo",
    "satellite_leo",
  ];
  expect(Object.keys(PRESETS)).toEqual(expect.arrayContaining(names));
});

it("a name that there is not is refused with the nearest", () => {
  expect(() => loadPreset("satelite_geo")).toThrow('"satelite_geo": no such preset; the nearest is satellite_geo');
  expect(() => loadPreset("constructor")).toThrow("no such preset");
});
