/**
 * The building blocks of the schema: one zod type for each kind of value a policy holds, carrying what flags,
 * documents and the JSON Schema say of it. Each takes what a person writes and gives what the contract holds.
 */

import { z } from "zod";
import { nearest, PolicyError, unknownField } from "./errors.js";
import {
  DURATION_NOTATION,
  LONGEST_NUMBER,
  listOf,
  MAX_U32,
  type Notation,
  PROBABILITY_NOTATION,
  parseByteCount,
  parseCount,
  parseDuration,
  parseProbability,
  parseRate,
  parseSeed,
  parseSize,
  RATE_NOTATION,
  SIZE_NOTATION,
} from "./units.js";

/** A JSON Schema, draft 2020-12. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** What people are told about a field. */
export interface FieldHelp {
  /** One line, no full stop. */
  readonly help: string;
  /** A value that is right, as it is typed. */
  readonly example: string;
  /** What stands for the value in help, such as `duration`. */
  readonly valueName: string;
}

/** All that is known of a field besides how it is read. */
export interface FieldAbout extends FieldHelp {
  /** What may be written; empty where the zod type says it all. */
  readonly json: JsonSchema;
  /** The words it may be, where there are few. */
  readonly words?: readonly string[];
  /** Its units, where it has any. */
  readonly units?: string;
  /** What holds beyond its form, such as `above 0`. */
  readonly rule?: string;
}

/** What is known, by field, for whoever walks the schema. */
export const fieldAbout = z.registry<FieldAbout>();

type About = Pick<FieldAbout, "help" | "example" | "rule">;

/** A field read by `parse`, which throws a PolicyError for what it refuses. */
export function field<Written, Parsed>(parse: (written: unknown) => Parsed, about: FieldAbout) {
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
    .register(fieldAbout, about);
}

/** The zod type of a field without the wrapper that says it may be missing. */
export function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
  return schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault ? unwrap(schema.unwrap()) : schema;
}

/** The JSON Schema of what a zod type of this folder takes. */
export function inputJson(schema: z.core.$ZodType): JsonSchema {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: "input",
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      const about = fieldAbout.get(zodSchema);
      if (about !== undefined) Object.assign(jsonSchema, describe(about));
    },
  });
  return json;
}

function describe({ help, rule, json, example }: FieldAbout): JsonSchema {
  const description = rule === undefined ? help : `${help}; ${rule}`;
  return { ...json, description, ...(Object.keys(json).length > 0 && { examples: [example] }) };
}

const joinRules = (...rules: (string | undefined)[]): { rule?: string } => {
  const said = rules.filter((rule) => rule !== undefined);
  return said.length === 0 ? {} : { rule: said.join("; ") };
};

interface Bound {
  /** Zero is refused where the contract's zero means "none". */
  readonly aboveZero?: boolean;
}

interface Kind {
  readonly parse: (written: unknown) => number;
  readonly valueName: string;
  readonly notation: Notation;
  /** It may be a plain number too. */
  readonly plain?: boolean;
}

const DURATION: Kind = { parse: parseDuration, valueName: "duration", notation: DURATION_NOTATION };
const SIZE: Kind = { parse: parseSize, valueName: "size", notation: SIZE_NOTATION };
const RATE: Kind = { parse: parseRate, valueName: "rate", notation: RATE_NOTATION };
const PROBABILITY: Kind = { parse: parseProbability, valueName: "probability", notation: PROBABILITY_NOTATION };
const BYTE_COUNT: Kind = { parse: parseByteCount, valueName: "bytes", notation: SIZE_NOTATION, plain: true };

const DIGITS = "\\d{1,16}";
/** Text of this pattern that holds a number above zero. */
const anchored = (pattern: string, aboveZero: boolean): string => `^${aboveZero ? "(?=.*[1-9])" : ""}(${pattern})$`;

function quantityJson({ notation: { pattern }, plain = false }: Kind, aboveZero: boolean): JsonSchema {
  if (!plain) return { type: "string", pattern: anchored(pattern, aboveZero), maxLength: LONGEST_NUMBER };
  return {
    type: ["string", "integer"],
    pattern: anchored(`${DIGITS}|${pattern}`, aboveZero),
    maxLength: LONGEST_NUMBER,
    minimum: aboveZero ? 1 : 0,
    maximum: Number.MAX_SAFE_INTEGER,
  };
}

function quantity<Written>(kind: Kind, { help, example, rule, aboveZero = false }: About & Bound) {
  const bounded = (written: unknown): number => {
    const value = kind.parse(written);
    if (aboveZero && value === 0) throw new PolicyError("", `must be above 0, such as ${example}`, written);
    return value;
  };
  return field<Written, number>(bounded, {
    help,
    example,
    valueName: kind.valueName,
    units: kind.notation.units,
    json: quantityJson(kind, aboveZero),
    ...joinRules(aboveZero ? "above 0" : undefined, rule),
  });
}

/** A duration in nanoseconds. */
export const duration = (about: About & Bound) => quantity<string>(DURATION, about);
/** A size in bytes. */
export const size = (about: About & Bound) => quantity<string>(SIZE, about);
/** A rate in bits a second. */
export const rate = (about: About) => quantity<string>(RATE, { ...about, aboveZero: true });
/** A probability in parts per million. */
export const probability = (about: About) => quantity<string>(PROBABILITY, about);
/** Bytes, with a unit or as a plain number. */
export const byteCount = (about: About & Bound) => quantity<string | number>(BYTE_COUNT, about);

/** A whole number. */
export function count({ help, example, rule, min, max = MAX_U32 }: About & { min: number; max?: number }) {
  return field<string | number, number>((written) => parseCount(written, { min, max, example }), {
    help,
    example,
    valueName: "count",
    json: { type: ["string", "integer"], pattern: anchored(DIGITS, min > 0), minimum: min, maximum: max },
    ...joinRules(min > 0 ? `at least ${min}` : undefined, rule),
  });
}

/** A 64-bit seed. */
export function seed(about: About) {
  return field<string | number, bigint>(parseSeed, {
    ...about,
    valueName: "seed",
    json: {
      type: ["string", "integer"],
      pattern: "^(\\d{1,20}|0[xX][0-9a-fA-F]{1,16})$",
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
    },
  });
}

/** One of a few words. */
export function choice<const Word extends string>(words: readonly Word[], about: About) {
  const parse = (written: unknown): Word => {
    const word = words.find((candidate) => candidate === written);
    if (word !== undefined) return word;
    const close = typeof written === "string" ? nearest(written, words) : about.example;
    throw new PolicyError("", `must be ${listOf(words)}, such as ${close}`, written);
  };
  return field<Word, Word>(parse, { ...about, valueName: "word", words, json: { enum: words } });
}

/** Yes or no. */
export function flag(about: About) {
  const parse = (written: unknown): boolean => {
    if (written === true || written === "true") return true;
    if (written === false || written === "false") return false;
    throw new PolicyError("", "must be true or false, such as true", written);
  };
  return field<boolean | "true" | "false", boolean>(parse, {
    ...about,
    valueName: "true|false",
    json: { enum: [true, false, "true", "false"] },
  });
}

/** Bytes of payload: UTF-8 text, or `hex:` and pairs of hexadecimal digits. */
export function payload({ help, example, rule, min, max }: About & { min: number; max: number }) {
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
  return field<string, Uint8Array>(parse, {
    help,
    example,
    valueName: "text",
    // A character has one byte or more, so this bounds text from above only.
    json: { type: "string", pattern: `^(hex:([0-9a-fA-F]{2}){${min},${max}}|(?!hex:)[\\s\\S]{${min},${max}})$` },
    ...joinRules(`${min} to ${max} bytes, as text or hex:00ff`, rule),
  });
}

/** The word that tells one form of an object from the others. */
export function tag<const Word extends string>(word: Word, help: string) {
  const schema = z.literal(word);
  fieldAbout.add<z.core.$ZodType>(schema, { help, example: word, valueName: word, json: {} });
  return schema;
}

/** An object of fields; a key it does not have is an error that names the nearest one. */
export function block<Shape extends z.ZodRawShape>(shape: Shape, { help, example, rule }: About) {
  const known = Object.keys(shape);
  return z
    .strictObject(shape, {
      error: (issue) => {
        if (issue.code !== "unrecognized_keys") return `must be an object, such as ${example}`;
        const keys: readonly unknown[] = issue.keys ?? [];
        return keys.map((key) => unknownField(String(key), known)).join("\n");
      },
    })
    .register(fieldAbout, { help, example, valueName: "object", json: {}, ...joinRules(rule) });
}
