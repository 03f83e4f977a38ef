/** What comes out of a script's host, which nobody trusts: a line is a report of this shape, or it is none. */

import { z } from "zod";
import type { PolicyInput } from "../policy/index.js";
import { HOOKS, type Report } from "./questions.js";

const place = z.object({ file: z.string(), line: z.int(), column: z.int() });
const problem = z.object({ message: z.string(), ...place.partial().shape });
/** An object; that it is a policy is for whoever uses it to see. */
const fields = z.custom<PolicyInput>((value) => typeof value === "object" && value !== null && !Array.isArray(value));
const said = z.array(
  z.union([
    z.object({ kind: z.literal("log"), text: z.string() }),
    z.object({ kind: z.enum(["count", "gauge"]), name: z.string(), value: z.number() }),
  ]),
);
const answer = z.object({
  fields: fields.optional(),
  validFor: z
    .union([z.enum(["op", "flow"]), z.object({ units: z.int().positive() }), z.object({ ms: z.number().positive() })])
    .optional(),
  policies: z.record(z.string(), fields).optional(),
});
const loaded = z.object({
  name: z.string(),
  tickMs: z.number().positive(),
  hooks: z.partialRecord(z.enum(HOOKS), place),
});
const news = z.object({
  answers: z.array(z.object({ value: z.int().nonnegative(), fields })),
  problems: z.array(z.object({ problem, times: z.int().positive() })),
  said,
});

const id = z.int();
const report = z.discriminatedUnion("kind", [
  z.object({ id, kind: z.literal("loaded"), loaded, said }),
  z.object({ id, kind: z.literal("failed"), problem }),
  z.object({ id, kind: z.literal("reply"), reply: z.object({ answer, problem: problem.optional(), said }) }),
  z.object({ id, kind: z.enum(["serving", "flushed"]) }),
  z.object({ kind: z.literal("news"), news }),
]);

/** The report that a line is, with nothing in it that it should not have; undefined where it is none. */
export function reportOf(line: string): Report | undefined {
  try {
    const { data } = report.safeParse(JSON.parse(line));
    return data as Report | undefined; // but for what is optional, where the schema allows undefined
  } catch {
    return undefined;
  }
}
