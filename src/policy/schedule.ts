/** Schedules: when a policy is in force. Written as an object, or on the command line as `kind:first/second`. */

import { z } from "zod";
import { PolicyError } from "./errors.js";
import { block, duration, fieldAbout, tag } from "./fields.js";

const EXAMPLE = "{kind: spike, every: 30s, duration: 5s}";
const positive = (help: string, example: string, rule?: string) =>
  duration({ help, example, aboveZero: true, ...(rule !== undefined && { rule }) });

const ramp = block(
  {
    kind: tag("ramp", "faults grow from nothing"),
    ramp: positive("time from no faults to full faults", "30s"),
  },
  { help: "faults that grow", example: "{kind: ramp, ramp: 30s}" },
);
const spike = block(
  {
    kind: tag("spike", "faults for the first part of each period"),
    every: positive("time from one spike to the next", "30s"),
    duration: positive("time the faults last", "5s", "not longer than every"),
  },
  { help: "faults that come back", example: EXAMPLE },
).superRefine(({ every, duration }, context) => {
  if (duration > every) {
    context.addIssue({
      code: "custom",
      path: ["duration"],
      message: "must not be longer than every, such as 5s of every 30s",
    });
  }
});
const flapping = block(
  {
    kind: tag("flapping", "faults on, then off"),
    on: positive("time with faults", "10s"),
    off: positive("time without", "5s"),
  },
  { help: "faults that come and go", example: "{kind: flapping, on: 10s, off: 5s}" },
);

/** The schedule of a policy; parsed durations are nanoseconds. */
export const schedule = z
  .discriminatedUnion("kind", [ramp, spike, flapping], {
    error: (issue) => {
      const isObject = typeof issue.input === "object" && issue.input !== null && !Array.isArray(issue.input);
      return isObject ? "must be ramp, spike or flapping, such as ramp" : `must be an object, such as ${EXAMPLE}`;
    },
  })
  .register(fieldAbout, { help: "when the faults are in force", example: EXAMPLE, valueName: "object", json: {} });

/** A schedule as an object. */
export type ScheduleInput = z.input<typeof schedule>;
/** A schedule with its durations in nanoseconds. */
export type ParsedSchedule = z.output<typeof schedule>;

/** The command line's form: `ramp:30s`, `spike:30s/5s` (every, duration) or `flapping:10s/5s` (on, off). */
export function scheduleFromFlag(text: string): ScheduleInput {
  const [kind, times = ""] = splitOnce(text, ":");
  const [first = "", second, ...more] = times.split("/");
  if (more.length === 0) {
    if (kind === "ramp" && second === undefined) return { kind, ramp: first };
    if (kind === "spike" && second !== undefined) return { kind, every: first, duration: second };
    if (kind === "flapping" && second !== undefined) return { kind, on: first, off: second };
  }
  throw new PolicyError("", "a schedule is ramp:30s, spike:30s/5s or flapping:10s/5s", text);
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
