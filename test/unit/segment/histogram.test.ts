// Quantiles are read off buckets: within a bucket's width of the truth, and never outside what was seen.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TimeHistogram } from "../../../src/segment/histogram.js";
import { codec, native } from "../../../src/segment/index.js";

const floors = native.histogramBucketFloors();

/** The image of a histogram that these samples went into. */
function imageOf(samples: readonly number[]): Uint8Array {
  const buckets = new Array<number>(floors.length - 1).fill(0);
  for (const sample of samples) {
    const next = floors.findIndex((floor) => floor > sample);
    const bucket = next < 0 ? buckets.length - 1 : next - 1;
    buckets[bucket] = (buckets[bucket] ?? 0) + 1;
  }
  const sum = BigInt(samples.reduce((total, sample) => total + sample, 0));
  return codec.encode("Histogram", {
    count: BigInt(samples.length),
    sum_ns: sum,
    min_ns: samples.length === 0 ? 0n : BigInt(Math.min(...samples)) + 1n,
    max_ns: BigInt(Math.max(0, ...samples)),
    asked_sum_ns: sum,
    buckets,
  });
}

describe("a histogram", () => {
  it("says nothing of no samples", () => {
    const histogram = new TimeHistogram(codec, [imageOf([])]);
    expect([histogram.count, histogram.minNs, histogram.maxNs, histogram.quantileNs(0.5)]).toEqual([0, 0, 0, 0]);
  });

  it("knows its only sample exactly", () => {
    const histogram = new TimeHistogram(codec, [imageOf([100_123_456])]);
    for (const q of [0, 0.5, 0.99, 1]) expect(histogram.quantileNs(q)).toBe(100_123_456);
  });

  it("merges directions", () => {
    const histogram = new TimeHistogram(codec, [imageOf([10_000_000]), imageOf([50_000_000, 70_000_000])]);
    expect([histogram.count, histogram.sumNs, histogram.minNs, histogram.maxNs]).toEqual([3, 130e6, 10e6, 70e6]);
    expect(histogram.quantileNs(0.5)).toBeGreaterThan(49.8e6);
    expect(histogram.quantileNs(0.5)).toBeLessThan(50.3e6);
  });

  it("puts every quantile within a bucket of the sample of that rank, rising with q", () => {
    const samples = fc.array(fc.integer({ min: 0, max: 5_000_000_000 }), { minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(samples, fc.double({ min: 0, max: 1, noNaN: true }), (values, q) => {
        const histogram = new TimeHistogram(codec, [imageOf(values)]);
        const sorted = values.toSorted((a, b) => a - b);
        const truth = sorted[Math.max(Math.ceil(q * values.length) - 1, 0)] ?? 0;
        const value = histogram.quantileNs(q);
        expect(Math.abs(value - truth)).toBeLessThanOrEqual(Math.max(1024, truth / 250));
        expect(histogram.quantileNs(q / 2)).toBeLessThanOrEqual(value);
      }),
      { numRuns: 100 },
    );
  });
});
