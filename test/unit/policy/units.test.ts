// Units: what people write becomes exact integers, and back; what is not exact is refused in a sentence.
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { PolicyError } from "../../../src/policy/errors.js";
import {
  formatDuration,
  formatProbability,
  formatRate,
  formatSize,
  parseByteCount,
  parseCount,
  parseDuration,
  parsePorts,
  parseProbability,
  parseRate,
  parseSeed,
  parseSize,
} from "../../../src/policy/units.js";

const accepted: [(written: unknown) => unknown, unknown, unknown][] = [
  [parseDuration, "50ms", 50_000_000],
  [parseDuration, "0.5s", 500_000_000],
  [parseDuration, "100us", 100_000],
  [parseDuration, "0ms", 0],
  [parseDuration, "0.001us", 1],
  [parseDuration, "9007199.254740991s", Number.MAX_SAFE_INTEGER],
  [parseSize, "32kb", 32_000],
  [parseSize, "1b", 1],
  [parseSize, "1.5mb", 1_500_000],
  [parseSize, "2gb", 2_000_000_000],
  [parseRate, "10mbps", 10_000_000],
  [parseRate, "1bps", 1],
  [parseRate, "0.5kbps", 500],
  [parseRate, "1gbps", 1_000_000_000],
  [parseProbability, "1%", 10_000],
  [parseProbability, "500ppm", 500],
  [parseProbability, "0.0001%", 1],
  [parseProbability, "0%", 0],
  [parseProbability, "100%", 1_000_000],
  [parseProbability, "1000000ppm", 1_000_000],
  [parseByteCount, 16, 16],
  [parseByteCount, "16", 16],
  [parseByteCount, "16b", 16],
  [parseSeed, 42, 42n],
  [parseSeed, "42", 42n],
  [parseSeed, "0x7f3a", 0x7f3an],
  [parseSeed, "18446744073709551615", 2n ** 64n - 1n],
  [parsePorts, 443, [{ low: 443, high: 443 }]],
  [parsePorts, "80-90", [{ low: 80, high: 90 }]],
  [
    parsePorts,
    "80,443,8000-8999",
    [
      { low: 80, high: 80 },
      { low: 443, high: 443 },
      { low: 8000, high: 8999 },
    ],
  ],
];

test.each(accepted)("%o reads %o as %o", (parse, written, value) => {
  expect(parse(written)).toEqual(value);
});

const refused: [(written: unknown) => unknown, unknown, string][] = [
  [parseDuration, "100", '"100": a duration needs a unit, such as 100ms'],
  [parseDuration, 100, "100: a duration needs a unit, such as 100ms"],
  [parseDuration, "5m", '"5m": a duration is in s, ms or us, such as 5ms'],
  [parseDuration, "1h", '"1h": a duration is in s, ms or us, such as 1ms'],
  [parseDuration, "-5ms", '"-5ms": a duration must not be negative, such as 5ms'],
  [parseDuration, "0.0001us", '"0.0001us": a duration cannot be finer than one nanosecond, such as 0us'],
  [parseDuration, "soon", '"soon": a duration is a number and a unit, such as 10ms'],
  [parseDuration, "", '"": a duration is a number and a unit, such as 10ms'],
  [parseDuration, "9007199.254740992s", "a duration is at most 9007199.254740991s"],
  [parseDuration, null, "null: a duration is text, such as 10ms"],
  [parseSize, "32", '"32": a size needs a unit, such as 32kb'],
  [parseSize, "32KB", '"32KB": a size is in gb, mb, kb or b, such as 32kb'],
  [parseSize, "1.5b", '"1.5b": a size cannot be finer than one byte, such as 1b'],
  [parseRate, "10", '"10": a rate needs a unit, such as 10mbps'],
  [parseRate, "10Mbps", '"10Mbps": a rate is in gbps, mbps, kbps or bps, such as 10mbps'],
  [parseProbability, "5", '"5": a probability needs a unit, such as 5%'],
  [parseProbability, "101%", '"101%": a probability is at most 100%, such as 1%'],
  [parseProbability, "1000001ppm", '"1000001ppm": a probability is at most 100%, such as 1%'],
  [parseProbability, "0.5ppm", "cannot be finer than one part per million"],
  [parseSeed, "-1", "a seed is an integer of at most 64 bits, such as 42 or 0x7f3a"],
  [parseSeed, "18446744073709551616", "a seed is an integer of at most 64 bits"],
  [parseSeed, 2 ** 60, "a seed this large must be text, such as 0x7f3a"],
  [parsePorts, "0", "a port is from 1 to 65535, such as 443, 80-90 or 80,443"],
  [parsePorts, "65536", "a port is from 1 to 65535"],
  [parsePorts, "90-80", "a range of ports goes from the lower to the higher"],
  [parsePorts, "http", "a port is a number, a range or a list"],
  [parsePorts, "1,2,3,4,5,6,7,8,9", "a rule takes at most 8 ports and ranges"],
];

test.each(refused)("%o refuses %o: %s", (parse, written, sentence) => {
  expect(() => parse(written)).toThrow(PolicyError);
  expect(() => parse(written)).toThrow(sentence);
});

describe("counts", () => {
  it("reads whole numbers in their range", () => {
    expect(parseCount("3", { min: 1, example: "3" })).toBe(3);
    expect(parseCount(0xffff_ffff, { min: 1, example: "3" })).toBe(0xffff_ffff);
  });
  it.each(["0", "1.5", "-1", "x", 1.5, 2 ** 32, Number.NaN, null])("refuses %o", (written) => {
    expect(() => parseCount(written, { min: 1, example: "3" })).toThrow("must be a whole number from 1 to 4294967295");
  });
});

const wholes = fc.oneof(fc.maxSafeNat(), fc.nat());

describe("what is formatted reads back as the same integer", () => {
  it("durations", () => fc.assert(fc.property(wholes, (ns) => parseDuration(formatDuration(ns)) === ns)));
  it("sizes", () => fc.assert(fc.property(wholes, (bytes) => parseSize(formatSize(bytes)) === bytes)));
  it("rates", () => fc.assert(fc.property(wholes, (bps) => parseRate(formatRate(bps)) === bps)));
  it("probabilities", () =>
    fc.assert(fc.property(fc.nat(1_000_000), (ppm) => parseProbability(formatProbability(ppm)) === ppm)));
  it("in the unit a person would choose", () => {
    expect([formatDuration(50_000_000), formatDuration(1_500_000_000), formatDuration(0)]).toEqual([
      "50ms",
      "1.5s",
      "0us",
    ]);
    expect([formatSize(32_000), formatRate(10_000_000), formatProbability(10_000)]).toEqual(["32kb", "10mbps", "1%"]);
  });
});

it("whatever is written, only a PolicyError is thrown", () => {
  const parsers = [parseDuration, parseSize, parseRate, parseProbability, parseByteCount, parseSeed, parsePorts];
  const text = fc.oneof(fc.string(), fc.stringMatching(/^-?[0-9]{1,50}(\.[0-9]{0,50})?(ms|s|us|kb|%|ppm|mbps)?$/));
  fc.assert(
    fc.property(fc.constantFrom(...parsers), fc.oneof(text, fc.anything()), (parse, written) => {
      try {
        parse(written);
      } catch (error) {
        expect(error).toBeInstanceOf(PolicyError);
        expect((error as PolicyError).message).not.toContain("\n");
      }
    }),
  );
});
