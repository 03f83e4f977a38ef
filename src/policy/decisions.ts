/**
 * What a policy decides by itself, in place of chance: a list of decisions, each by flow and unit, with the words of
 * `mishap recording show --json`. `mishap recording shrink` writes such lists.
 */

import { z } from "zod";
import { DIRECTIONS, FAULTS, OPS, STAGES, STREAM_UNIT_BYTES, VERDICTS, words } from "./contract.js";
import { PolicyError } from "./errors.js";
import { block, choice, count, field, fieldAbout } from "./fields.js";

const MAX_UNIT = Number.MAX_SAFE_INTEGER;
/** Bytes of the contract's Event.flow, without its NUL. */
const MAX_FLOW_BYTES = 87;
const FLOW = "tcp:127.0.0.1:8080#1@0";

function parseFlow(written: unknown): string {
  if (typeof written === "string" && written !== "" && Buffer.byteLength(written) <= MAX_FLOW_BYTES) return written;
  throw new PolicyError("", `must be a flow's identity of 1 to ${MAX_FLOW_BYTES} bytes, such as ${FLOW}`, written);
}

function parseValue(written: unknown): number {
  const number = typeof written === "string" && /^-?\d{1,16}$/.test(written) ? Number(written) : written;
  if (typeof number === "number" && Number.isSafeInteger(number)) return number;
  throw new PolicyError("", "must be a whole number, such as 50000000 for 50 ms", written);
}

/** What a script answered is no decision about a unit. */
const DECIDED_VERDICTS = VERDICTS.filter((verdict) => verdict !== "answered");

const decision = block(
  {
    flow: field<string, string>(parseFlow, {
      help: "whose decision it is: the flow's identity",
      example: FLOW,
      valueName: "flow",
      json: { type: "string", minLength: 1, maxLength: MAX_FLOW_BYTES },
    }),
    op: choice(OPS, { help: "what the program did", example: "recv" }),
    direction: choice(DIRECTIONS, { help: "which way", example: "downlink" }),
    unit: count({
      help: "number of the unit, or of the call for the payload stage",
      example: "2",
      min: 0,
      max: MAX_UNIT,
    }),
    offset: count({
      help: "bytes of the unit before it, where a limit was met within the unit",
      example: "0",
      min: 0,
      max: STREAM_UNIT_BYTES - 1,
    }).prefault(0),
    stage: choice(STAGES, { help: "which stage decided", example: "chaos_base" }),
    verdict: choice(DECIDED_VERDICTS, { help: "what it decided", example: "delay" }),
    fault: choice(words(FAULTS), { help: "on whose account", example: "latency" }),
    value: field<number | string, number>(parseValue, {
      help: "what was chosen: nanoseconds, retransmissions lost too, copies, units that may overtake",
      example: "50000000",
      valueName: "value",
      json: { type: ["string", "integer"], pattern: "^-?\\d{1,16}$" },
    }).prefault(0),
  },
  {
    help: "a decision",
    example: `{flow: "${FLOW}", op: recv, direction: downlink, unit: 2, stage: chaos_base, verdict: delay, fault: latency, value: 50000000}`,
  },
);

/** A decision, whole. */
export type PolicyDecision = z.output<typeof decision>;

/** The field `decisions`. */
export const decisions = z
  .array(decision, { error: "must be a list of decisions, as `mishap recording shrink` writes them" })
  .register(fieldAbout, {
    help: "what happens, by flow and unit; nothing else does, and nothing is left to chance",
    example: "[]",
    valueName: "list",
    json: {},
    rule: "in a file, of the run's own policy alone, as it is at the start; it has to ask for the faults",
  });
