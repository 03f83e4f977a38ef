/**
 * The building blocks of the schema: one zod type for each kind of value a policy holds, carrying the help and the
 * example that flags and documents show. Each takes what a person writes and gives what the contract holds.
 */

import { z } from "zod";
import { clip, nearest, PolicyError } from "./errors.js";
import {
  listOf,
  parseByteCount,
  parseCount,
  parseDuration,
  parseProbability,
  parseRate,
  parseSeed,
  parseSize,
} from "./units.js";

/** What people are told about a field. */
export interface FieldHelp {
  /** One line, no full stop. */
  readonly help: string;
  /** A value that is right, as it is typed. */
  readonly example: string;
  /** What stands for the value in help, such as `duration`. */
  readonly valueName: string;
}

/** Help by field, for whoever walks the schema. */
export const fieldHelp = z.registry<FieldHelp>();

type About = Pick<FieldHelp, "help" | "example">;

/** A field read by `parse`, which throws a PolicyError for what it refuses. */
export function field<Written, Parsed>(parse: (written: unknown) => Parsed, about: FieldHelp) {
  return z
    .custom<Written>()
    .transform((written: unknown, context): Parsed => {
      try {
        if (written === undefined) throw new PolicyError("", `missing; give one, such as ${about.example}`);
        return parse(written);
      } catch (error) {
        if (!(error instanceof PolicyError)) throw error;
        context.addIssue({ code: "custom", message: error.problem });
        return z.NEVER;
      }
    })
    .register(fieldHelp, about);
}

interface Bound {
  /** Zero is refused where the contract's zero means "none". */
  readonly aboveZero?: boolean;
}

function quantity<Written>(parse: (written: unknown) => number, valueName: string, about: About & Bound) {
  const bounded = (written: unknown): number => {
    const value = parse(written);
    if (about.aboveZero && value === 0) throw new PolicyError("", `must be above 0, such as ${about.example}`, written);
    return value;
  };
  return field<Written, number>(bounded, { help: about.help, example: about.example, valueName });
}

/** A duration in nanoseconds. */
export const duration = (about: About & Bound) => quantity<string>(parseDuration, "duration", about);
/** A size in bytes. */
export const size = (about: About & Bound) => quantity<string>(parseSize, "size", about);
/** A rate in bits a second. */
export const rate = (about: About) => quantity<string>(parseRate, "rate", { ...about, aboveZero: true });
/** A probability in parts per million. */
export const probability = (about: About) => quantity<string>(parseProbability, "probability", about);
/** Bytes, with a unit or as a plain number. */
export const byteCount = (about: About & Bound) => quantity<string | number>(parseByteCount, "bytes", about);

/** A whole number. */
export const count = ({ help, example, min, max }: About & { min: number; max?: number }) =>
  field<string | number, number>(
    (written) => parseCount(written, { min, example, ...(max !== undefined && { max }) }),
    {
      help,
      example,
      valueName: "count",
    },
  );

/** A 64-bit seed. */
export const seed = (about: About) => field<string | number, bigint>(parseSeed, { ...about, valueName: "seed" });

/** One of a few words. */
export function choice<const Word extends string>(words: readonly Word[], about: About) {
  const parse = (written: unknown): Word => {
    const word = words.find((candidate) => candidate === written);
    if (word !== undefined) return word;
    const close = typeof written === "string" ? nearest(written, words) : about.example;
    throw new PolicyError("", `must be ${listOf(words)}, such as ${close}`, written);
  };
  // A long list stands in the help, a short one in the value's place.
  const short = words.length <= 3;
  const help = short ? about.help : `${about.help}: ${listOf(words)}`;
  return field<Word, Word>(parse, { help, example: about.example, valueName: short ? words.join("|") : "word" });
}

/** Yes or no. */
export function flag(about: About) {
  const parse = (written: unknown): boolean => {
    if (written === true || written === "true") return true;
    if (written === false || written === "false") return false;
    throw new PolicyError("", "must be true or false, such as true", written);
  };
  return field<boolean | "true" | "false", boolean>(parse, { ...about, valueName: "true|false" });
}

/** Bytes of payload: UTF-8 text, or `hex:` and pairs of hexadecimal digits. */
export function payload({ help, example, min, max }: About & { min: number; max: number }) {
  const parse = (written: unknown): Uint8Array => {
    const fail = (problem: string): never => {
      throw new PolicyError("", `${problem}, such as ${example} or hex:00ff`, written);
    };
    if (typeof written !== "string") return fail("must be text");
    const hex = written.startsWith("hex:") ? written.slice(4) : undefined;
    if (hex !== undefined && !/^([0-9a-fA-F]{2})*$/.test(hex)) fail("hex: is followed by pairs of hexadecimal digits");
    const bytes = hex === undefined ? Buffer.from(written, "utf8") : Buffer.from(hex, "hex");
    if (bytes.length < min || bytes.length > max) fail(`must be ${min} to ${max} bytes`);
    return new Uint8Array(bytes);
  };
  return field<string, Uint8Array>(parse, { help, example, valueName: "text" });
}

/** An object of fields; a key it does not have is an error that names the nearest one. */
export function block<Shape extends z.ZodRawShape>(shape: Shape, example: string) {
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== "unrecognized_keys") return `must be an object, such as ${example}`;
      const unknown = String(issue.keys?.[0] ?? "");
      return `unknown field ${JSON.stringify(clip(unknown))}; the nearest is ${nearest(unknown, Object.keys(shape))}`;
    },
  });
}
