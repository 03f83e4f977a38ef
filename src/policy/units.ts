/**
 * The units people write (50ms, 32kb, 10mbps, 1%) and the integers the contract holds: nanoseconds, bytes, bits a
 * second, parts per million. Arithmetic is exact: what cannot be said as a whole number is refused, never rounded.
 */

import { PolicyError } from "./errors.js";

/** A probability of one, in parts per million. */
export const CERTAIN_PPM = 1_000_000;
/** The largest value of the contract's 32-bit fields. */
export const MAX_U32 = 0xffff_ffff;
const MAX_U64 = (1n << 64n) - 1n;
/** The longest text that is read as a quantity. */
export const LONGEST_NUMBER = 40;

interface Quantity {
  /** With its article, as sentences use it. */
  readonly noun: string;
  /** Units and what each is worth in the smallest one, largest first. */
  readonly units: readonly (readonly [unit: string, worth: bigint])[];
  /** Of the units, the one suggested to a value that has none. */
  readonly usual: string;
  /** What the parsed integer counts. */
  readonly finest: string;
  /** The largest value, where the contract sets one below 2^53. */
  readonly max?: readonly [value: bigint, written: string];
}

const DURATION: Quantity = {
  noun: "a duration",
  units: [
    ["s", 1_000_000_000n],
    ["ms", 1_000_000n],
    ["us", 1_000n],
  ],
  usual: "ms",
  finest: "nanosecond",
};
const SIZE: Quantity = {
  noun: "a size",
  units: [
    ["gb", 1_000_000_000n],
    ["mb", 1_000_000n],
    ["kb", 1_000n],
    ["b", 1n],
  ],
  usual: "kb",
  finest: "byte",
};
const RATE: Quantity = {
  noun: "a rate",
  units: [
    ["gbps", 1_000_000_000n],
    ["mbps", 1_000_000n],
    ["kbps", 1_000n],
    ["bps", 1n],
  ],
  usual: "mbps",
  finest: "bit a second",
};
const PROBABILITY: Quantity = {
  noun: "a probability",
  units: [
    ["%", 10_000n],
    ["ppm", 1n],
  ],
  usual: "%",
  finest: "part per million",
  max: [BigInt(CERTAIN_PPM), "100%"],
};

/** `50ms`, `0.5s`, `100us` → nanoseconds. */
export const parseDuration = (written: unknown): number => parseQuantity(written, DURATION);
/** `32kb`, `1mb` (decimal multiples) → bytes. */
export const parseSize = (written: unknown): number => parseQuantity(written, SIZE);
/** `10mbps` (decimal multiples) → bits a second. */
export const parseRate = (written: unknown): number => parseQuantity(written, RATE);
/** `1%`, `500ppm` → parts per million. */
export const parseProbability = (written: unknown): number => parseQuantity(written, PROBABILITY);

/** Nanoseconds as {@link parseDuration} reads them. */
export const formatDuration = (durationNs: number): string => formatQuantity(durationNs, DURATION);
/** Bytes as {@link parseSize} reads them. */
export const formatSize = (bytes: number): string => formatQuantity(bytes, SIZE);
/** Bits a second as {@link parseRate} reads them. */
export const formatRate = (rateBps: number): string => formatQuantity(rateBps, RATE);
/** Parts per million as {@link parseProbability} reads them. */
export const formatProbability = (ppm: number): string => formatQuantity(ppm, PROBABILITY);

/** How a kind of quantity is written, for documents and the JSON Schema. */
export interface Notation {
  /** Its units, finest first, such as `us, ms, s`. */
  readonly units: string;
  /** A regular expression, without anchors, of what is read as one. */
  readonly pattern: string;
}

export const DURATION_NOTATION = notationOf(DURATION);
export const SIZE_NOTATION = notationOf(SIZE);
export const RATE_NOTATION = notationOf(RATE);
export const PROBABILITY_NOTATION = notationOf(PROBABILITY);

/** Every unit is worth a power of ten of the finest, which says how many places are exact. */
function notationOf({ units, max }: Quantity): Notation {
  const forms = units.map(([unit, worth]) => {
    const places = zerosOf(worth);
    const fraction = places === 0 ? "(\\.0+)?" : `(\\.\\d{1,${places}}0*)?`;
    if (max === undefined) return `\\d+${fraction}${unit}`;
    const most = max[0] / worth;
    return `0*(\\d{1,${zerosOf(most)}}${fraction}|${most}(\\.0+)?)${unit}`;
  });
  return {
    units: units
      .map(([unit]) => unit)
      .reverse()
      .join(", "),
    pattern: forms.join("|"),
  };
}

function zerosOf(powerOfTen: bigint): number {
  return String(powerOfTen).length - 1;
}

/** Bytes written with a unit or as a plain whole number. */
export function parseByteCount(written: unknown): number {
  const plain = typeof written === "number" || (typeof written === "string" && /^\d+$/.test(written));
  return plain ? parseCount(written, { min: 0, max: Number.MAX_SAFE_INTEGER, example: "512" }) : parseSize(written);
}

function parseQuantity(written: unknown, quantity: Quantity): number {
  const { noun, units, usual, finest, max } = quantity;
  const names = units.map(([unit]) => unit);
  const fail = (problem: string): never => {
    throw new PolicyError("", problem, written);
  };
  const text = typeof written === "number" ? String(written) : written;
  if (typeof text !== "string") return fail(`${noun} is text, such as 10${usual}`);
  if (/^-\d/.test(text)) fail(`${noun} must not be negative, such as ${text.slice(1, LONGEST_NUMBER)}`);
  const match = /^(\d+)(?:\.(\d+))?([A-Za-z%]*)$/.exec(text);
  if (match === null || text.length > LONGEST_NUMBER) return fail(`${noun} is a number and a unit, such as 10${usual}`);
  const [, whole = "", fraction = "", unit = ""] = match;
  const digits = fraction === "" ? whole : `${whole}.${fraction}`;
  if (unit === "") return fail(`${noun} needs a unit, such as ${digits}${usual}`);
  const worth = units.find(([name]) => name === unit)?.[1];
  if (worth === undefined) return fail(`${noun} is in ${listOf(names)}, such as ${digits}${usual}`);

  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(whole + fraction) * worth;
  if (scaled % scale !== 0n) fail(`${noun} cannot be finer than one ${finest}, such as ${whole}${unit}`);
  const value = scaled / scale;
  if (max !== undefined && value > max[0]) fail(`${noun} is at most ${max[1]}, such as 1${usual}`);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    fail(`${noun} is at most ${formatQuantity(Number.MAX_SAFE_INTEGER, quantity)}, such as 10${usual}`);
  return Number(value);
}

function formatQuantity(value: number, { noun, units }: Quantity): string {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${noun} is a whole number: ${value}`);
  const exact = BigInt(value);
  const fallback = units.at(-1) ?? ["", 1n];
  const [unit, worth] = units.find(([, each]) => exact >= each) ?? fallback;
  const places = zerosOf(worth);
  const fraction =
    places === 0
      ? ""
      : String(exact % worth)
          .padStart(places, "0")
          .replace(/0+$/, "");
  return `${exact / worth}${fraction === "" ? "" : `.${fraction}`}${unit}`;
}

/** A whole number in a range, written as one or as its digits. */
export function parseCount(written: unknown, bounds: { min: number; max?: number; example: string }): number {
  const { min, max = MAX_U32, example } = bounds;
  const value = typeof written === "string" && /^\d{1,16}$/.test(written) ? Number(written) : written;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
    throw new PolicyError("", `must be a whole number from ${min} to ${max}, such as ${example}`, written);
  }
  return value;
}

/** A seed: an integer, or text in decimal or with 0x. */
export function parseSeed(written: unknown): bigint {
  const whole = typeof written === "number" && Number.isInteger(written) && written >= 0;
  if (whole && written > Number.MAX_SAFE_INTEGER) {
    throw new PolicyError("", "a seed this large must be text, such as 0x7f3a", written);
  }
  if (whole || (typeof written === "string" && /^(\d{1,20}|0[xX][0-9a-fA-F]{1,16})$/.test(written))) {
    const seed = BigInt(written);
    if (seed <= MAX_U64) return seed;
  }
  throw new PolicyError("", "a seed is an integer of at most 64 bits, such as 42 or 0x7f3a", written);
}

/** An inclusive range of ports. */
export interface PortRange {
  readonly low: number;
  readonly high: number;
}

/** Ranges that one target rule can hold. */
export const MAX_PORT_RANGES = 8;

/** A port, a range `80-90`, or a list of both, `80,443,8000-8999`. */
export function parsePorts(written: unknown): PortRange[] {
  const fail = (problem: string): never => {
    throw new PolicyError("", `${problem}, such as 443, 80-90 or 80,443`, written);
  };
  const parts = (typeof written === "number" ? String(written) : typeof written === "string" ? written : "").split(",");
  if (parts.length > MAX_PORT_RANGES) fail(`a rule takes at most ${MAX_PORT_RANGES} ports and ranges`);
  return parts.map((part) => {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim());
    if (match === null) return fail("a port is a number, a range or a list");
    const [low, high] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (low < 1 || high > 65_535) fail("a port is from 1 to 65535");
    if (low > high) fail("a range of ports goes from the lower to the higher");
    return { low, high };
  });
}

/** `a, b or c`. */
export function listOf(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}
