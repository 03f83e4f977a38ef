/** Recordings in words, for people: events and differences a line each, statistics, and what is missing. */

import { alignColumns, formatBytes, formatCount, formatDurationNs, formatPlural } from "../report/format.js";
import type { Difference, Outcome, RecordingDiff } from "./diff.js";
import { type EventColumns, eventAt } from "./events.js";
import type { Carried } from "./payload.js";
import type { Recording } from "./reader.js";
import type { RecordingStats } from "./stats.js";
import { CONTINUE, DIRECTIONS, FAULT_WORDS, isFaults, OPS, STAGES, VERDICTS, wordFor } from "./words.js";

/** What is missing of a recording, a sentence each. */
export function missingOf(recording: Recording): string[] {
  const { path, wholeness, header, end, lost } = recording;
  const { bytes, damaged_bytes, damaged_frames, truncated } = wholeness;
  const sentences: string[] = [];
  if (damaged_bytes > 0) {
    const [last, others] = truncated ? [1, damaged_frames - 1] : [0, damaged_frames];
    const frames = [
      ...(others > 0 ? [`${formatPlural(others, "frame")} damaged`] : []),
      ...(last > 0 ? ["the last frame cut"] : []),
    ];
    const share = `${formatCount(damaged_bytes)} of ${formatPlural(bytes, "byte")}`;
    sentences.push(`${path}: ${share} are not whole (${frames.join(", ")}), and what they held is missing`);
  }
  if (header === undefined) sentences.push(`${path}: its header is missing: command, seed and policies are not known`);
  if (end === undefined) {
    sentences.push(`${path}: its end is missing: the run was killed or still goes on, or the file was cut`);
  }
  if (lost > 0) sentences.push(`${path}: ${formatPlural(lost, "event")} could not be recorded in time`);
  return sentences;
}

/** An event as JSON has it. */
export function eventJson(recording: Recording, events: EventColumns, at: number): object {
  const { flow, direction, op, stage, verdict, fault, policy, ...numbers } = eventAt(events, at);
  return {
    flow: recording.flowWords(flow),
    direction: wordFor(DIRECTIONS, direction),
    op: wordFor(OPS, op),
    unit: numbers.unit,
    stage: wordFor(STAGES, stage),
    verdict: wordFor(VERDICTS, verdict),
    ...(!isFaults(verdict) ? {} : { fault: wordFor(FAULT_WORDS, fault) }),
    value: numbers.value,
    policy: recording.policyName(policy),
    bytes: numbers.bytes,
    at_ns: numbers.at_ns,
  };
}

const widthOf = (words: readonly string[]): number => Math.max(...words.map((word) => word.length));
const [OP, STAGE, VERDICT, FAULT] = [OPS, STAGES, VERDICTS, FAULT_WORDS].map(widthOf);

/** An event in a line: time, what it was, what was decided, by which policy, and whose it was. */
export function eventLine(recording: Recording, events: EventColumns, at: number): string {
  const event = eventAt(events, at);
  const goesOn = !isFaults(event.verdict);
  const verdict = wordFor(VERDICTS, event.verdict);
  return [
    `${(event.at_ns / 1e9).toFixed(6)}s`.padStart(12),
    wordFor(DIRECTIONS, event.direction).padEnd(8),
    wordFor(OPS, event.op).padEnd(OP ?? 0),
    `#${event.unit}`.padEnd(7),
    formatBytes(event.bytes).padStart(7),
    wordFor(STAGES, event.stage).padEnd(STAGE ?? 0),
    verdict.padEnd(VERDICT ?? 0),
    (goesOn ? "" : wordFor(FAULT_WORDS, event.fault)).padEnd(FAULT ?? 0),
    valueText(verdict, event.value).padEnd(7),
    `${recording.flowWords(event.flow)}  ${recording.policyName(event.policy)}`,
  ].join("  ");
}

/** What was chosen, in the unit that a verdict has; nothing where nothing was. */
function valueText(verdict: string, value: number): string {
  if (value === 0) return "";
  return verdict === "delay" || verdict === "timeout" ? formatDurationNs(value) : formatCount(value);
}

/** Statistics: what the recording is, what was decided how often, and for whom most. */
export function statsLines(recording: Recording, stats: RecordingStats): string[] {
  const { header, path } = recording;
  const span = stats.last_ns === undefined ? [] : [`in ${formatDurationNs(stats.last_ns)}`];
  const known = header === undefined ? [] : [`seed ${header.seed}`, header.command.join(" ")];
  const first = [[formatPlural(stats.events, "event"), ...span].join(" "), formatPlural(stats.flows, "flow"), ...known];
  const rows = stats.decisions.map((row) => {
    const low = valueText(row.verdict, row.value_min);
    const high = valueText(row.verdict, row.value_max);
    return [
      ...[`  ${row.policy}`, row.stage, row.verdict, row.fault ?? ""],
      ...[`${formatCount(row.uplink)} up`, `${formatCount(row.downlink)} down`, formatBytes(row.bytes)],
      low === high ? low : `${low === "" ? "0" : low} to ${high}`,
    ];
  });
  const busiest = stats.busiest.map(({ flow, events }) => [`  ${flow}`, formatPlural(events, "event")]);
  return [
    `${path}: ${first.filter((words) => words !== "").join(" · ")}`,
    ...alignColumns(rows),
    ...(busiest.length === 0 ? [] : ["most events:", ...alignColumns(busiest)]),
  ];
}

const DIFFERENCES_SHOWN = 20;

/** How much a flow's ops carried in one direction. */
export function carriedLine({ words, direction, ops }: Carried): string {
  const bytes = ops.reduce((sum, op) => sum + op.bytes.length, 0);
  return `${words}  ${wordFor(DIRECTIONS, direction)}  ${formatBytes(bytes)} in ${formatPlural(ops.length, "op")}`;
}

/** The same, a line of JSON for each op. */
export function carriedJson({ words, direction, ops }: Carried): string[] {
  return ops.map(({ atNs, bytes }) =>
    JSON.stringify({
      flow: words,
      direction: wordFor(DIRECTIONS, direction),
      at_ns: atNs,
      payload_base64: bytes.toString("base64"),
    }),
  );
}

/** A comparison: how much is the same, and the first of what is not. */
export function diffLines(diff: RecordingDiff): string[] {
  const { same, only_a, only_b, different, differences } = diff;
  const counts = [
    `${formatCount(same)} the same`,
    `${formatCount(different)} different`,
    `${formatCount(only_a)} only in the first`,
    `${formatCount(only_b)} only in the second`,
  ];
  const more = differences.length - DIFFERENCES_SHOWN;
  return [
    counts.join(" · "),
    ...alignColumns(differences.slice(0, DIFFERENCES_SHOWN).map(differenceCells)),
    ...(more > 0 ? [`  … and ${formatCount(more)} more; --json has them all`] : []),
  ];
}

function differenceCells({ flow, direction, op, stage, unit, at_ns, a, b }: Difference): string[] {
  const place = [`  ${(at_ns / 1e9).toFixed(6)}s`, flow, direction, op, `#${unit}`, stage];
  return [...place, `${outcomeText(a)} → ${outcomeText(b)}`];
}

/** What was decided, such as `delay jitter 12ms`. */
export function outcomeText(outcome: Outcome | undefined): string {
  if (outcome === undefined) return "nothing";
  const { verdict, fault, value } = outcome;
  const words = [verdict, verdict === VERDICTS[CONTINUE] ? "" : fault, valueText(verdict, value)];
  return words.filter((word) => word !== "").join(" ");
}
