// Numbers as people read them.
import { describe, expect, it } from "vitest";
import { alignColumns, formatCount, formatDurationNs, formatPlural, formatPpm } from "../../../src/report/format.js";

describe("format", () => {
  it.each([
    [999, "999ns"],
    [85_300, "85µs"],
    [100_600_000, "100.6ms"],
    [1_204_000_000, "1.20s"],
  ])("duration %d", (ns, text) => expect(formatDurationNs(ns)).toBe(text));

  it.each([
    [0, "0%"],
    [25, "0.0025%"],
    [9804, "0.98%"],
    [10_000, "1%"],
    [103_456, "10.3%"],
    [1_000_000, "100%"],
  ])("share %d", (ppm, text) => expect(formatPpm(ppm)).toBe(text));

  it("count", () => {
    expect([0, 999, 1204, 1_234_567].map(formatCount)).toEqual(["0", "999", "1,204", "1,234,567"]);
    expect([formatPlural(1, "flow"), formatPlural(2, "flow")]).toEqual(["1 flow", "2 flows"]);
  });

  it("columns", () => {
    expect(
      alignColumns([
        ["a", "bb", "c"],
        ["aaa", "b"],
      ]),
    ).toEqual(["a    bb  c", "aaa  b"]);
  });
});
