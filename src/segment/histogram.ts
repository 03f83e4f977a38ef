/** Delivered times, read off the contract's log-linear histograms. */

import type { Codec } from "./layout.js";
import { native } from "./native.js";

/** What a histogram of delivered times says. */
export class TimeHistogram {
  readonly count: number;
  readonly sumNs: number;
  /** 0 without samples. */
  readonly minNs: number;
  readonly maxNs: number;
  /** What the decisions asked for, summed over the same samples. */
  readonly askedSumNs: number;
  readonly #buckets: readonly number[];
  readonly #floors: Float64Array;

  /** Merges histograms, such as those of both directions. */
  constructor(codec: Codec, images: readonly Uint8Array[]) {
    this.#floors = native.histogramBucketFloors();
    const buckets = new Array<number>(this.#floors.length - 1).fill(0);
    let [sum, asked, min, max] = [0, 0, Number.POSITIVE_INFINITY, 0];
    for (const image of images) {
      const { sum_ns, asked_sum_ns, min_ns, max_ns, buckets: counts } = codec.decode("Histogram", image);
      sum += Number(sum_ns);
      asked += Number(asked_sum_ns);
      if (min_ns !== 0n) min = Math.min(min, Number(min_ns) - 1); // the field holds the minimum + 1; 0 is none yet
      max = Math.max(max, Number(max_ns));
      for (const [i, count] of (counts as number[]).entries()) buckets[i] = (buckets[i] ?? 0) + count;
    }
    this.#buckets = buckets;
    // Counted off the buckets, so that ranks and count agree even while samples come in.
    this.count = buckets.reduce((total, count) => total + count, 0);
    this.sumNs = sum;
    this.askedSumNs = asked;
    this.minNs = Number.isFinite(min) ? min : 0;
    this.maxNs = max;
  }

  /**
   * The time that a share `q` (0 to 1) of the samples does not exceed: by rank, linear within the bucket; 0 without
   * samples.
   */
  quantileNs(q: number): number {
    const rank = Math.min(Math.max(q, 0), 1) * this.count;
    let before = 0;
    for (const [i, count] of this.#buckets.entries()) {
      if (count === 0) continue;
      if (before + count >= rank) {
        const [floor = 0, end = 0] = this.#floors.subarray(i, i + 2);
        const value = floor + ((rank - before) / count) * (end - floor);
        return Math.min(Math.max(value, this.minNs), this.maxNs);
      }
      before += count;
    }
    return this.maxNs;
  }
}
