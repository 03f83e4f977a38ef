/** Evidence as a person reads it at the end of a run: one line a fault, asked against delivered, aligned. */

import { problemText } from "../script/questions.js";
import { baseKey, basisNoun } from "./evidence.js";
import { alignColumns, formatBytes, formatCount, formatDurationNs, formatPlural, formatPpm } from "./format.js";
import type { CoverageRow, Evidence, FaultEvidence, Replay, ScriptEvidence } from "./schema.js";

const BOLD = ["\u001b[1m", "\u001b[22m"] as const;
const YELLOW = ["\u001b[33m", "\u001b[39m"] as const;
const MOST_ESCAPES_SHOWN = 5;
const MOST_COVERAGE_LINES = 8;
const STATES = ["intercepted", "relayed", "escaped"] as const;

type Paint = (colour: readonly [string, string], text: string) => string;

/** The lines of a run's evidence, each ended. */
export function renderEvidence(evidence: Evidence, { colour }: { colour: boolean }): string {
  const paint: Paint = ([on, off], text) => (colour ? `${on}${text}${off}` : text);
  const head = [formatPlural(evidence.flows, "flow"), formatPlural(evidence.ops, "op"), `seed ${evidence.seed}`].join(
    " · ",
  );
  const rows = faultRows(evidence);
  const rest = restRows(evidence);
  const width = Math.max(0, ...[...rows, ...rest].map(([name = ""]) => name.length));
  const lines = [
    paint(BOLD, `mishap: ${head}`),
    ...alignColumns(rows.map(([name = "", ...cells]) => [name.padEnd(width), ...cells])).map((line, at) => {
      return `  ${evidence.faults[at]?.applied === 0 ? paint(YELLOW, line) : line}`;
    }),
    ...rest.map(([name, text, escaped]) => {
      const line = `${name.padEnd(width)}  ${text}`;
      return `  ${escaped ? paint(YELLOW, line) : line}`;
    }),
    ...evidence.notes.map((note) => `  ${paint(YELLOW, `note: ${note}`)}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** One a fault: asked against delivered, and against what the kernel witnessed where it saw any of them. */
function faultRows({ faults }: Evidence): string[][] {
  const seen = faults.map(witnessed);
  return faults.map((fault, at) => [
    (fault.policy === undefined ? "" : `${fault.policy}: `) + label(fault.fault),
    `asked ${fault.asked}`,
    delivered(fault),
    ...(seen.some((each) => each !== "") ? [seen[at] ?? ""] : []),
    occasions(fault),
  ]);
}

/** What a script answered, was met of a replay, whose bytes were carried, and what escaped: label, text, whether that is a warning. */
function restRows({ coverage, escaped, replay, script }: Evidence): [string, string, boolean][] {
  const rows: [string, string, boolean][] = script === undefined ? [] : scriptRows(script);
  if (replay !== undefined) rows.push(["replay", replayText(replay), replay.divergence !== undefined]);
  const covered: [string, string, boolean][] = (coverage === undefined ? [] : coverageLines(coverage)).map(
    ({ text, escaped }, at) => [at === 0 ? "coverage" : "", text, escaped],
  );
  rows.push(...covered);
  if (escaped.length > 0) {
    const shown = escaped.slice(0, MOST_ESCAPES_SHOWN).map((flow) => {
      return `${flow.peer} (pid ${flow.pid} ${flow.program}, ${flow.reason})`;
    });
    const more = escaped.length > shown.length ? `, and ${formatCount(escaped.length - shown.length)} more` : "";
    const text = `${formatPlural(escaped.length, "flow")} not intercepted: ${shown.join(", ")}${more}`;
    rows.push(["escaped", text, true]);
  }
  return rows;
}

/** What a script answered and counted, and what was wrong with it. */
function scriptRows({
  name,
  questions,
  late,
  unserved,
  problems,
  metrics,
}: ScriptEvidence): [string, string, boolean][] {
  const short = [late > 0 && `${formatCount(late)} late`, unserved > 0 && `${formatCount(unserved)} not asked`];
  const counted = Object.entries(metrics).map(([metric, value]) => `${metric} ${formatCount(value)}`);
  const text = [`${name}: ${formatPlural(questions, "question")}`, ...short, ...counted].filter(Boolean).join(" · ");
  return [
    ["script", text, late + unserved > 0],
    ...problems.map(({ times, ...problem }): [string, string, boolean] => {
      return ["", `${problemText(problem)}${times > 1 ? ` (${formatCount(times)} times)` : ""}`, true];
    }),
  ];
}

/** How much of what was decided was met, and the first thing that was not as it was. */
function replayText({ met, decisions, divergence }: Replay): string {
  const many = `${formatCount(met)} of ${formatPlural(decisions, "decision")} met`;
  if (divergence === undefined) return many;
  const { flow, op, unit, recorded, seen } = divergence;
  const where = [flow, ...(op === undefined ? [] : [op]), ...(unit === undefined ? [] : [`unit ${unit}`])].join(" ");
  return `${many}; first not as decided: ${where}: decided was ${recorded}, seen is ${seen}`;
}

/** One a program; where there are many, those that moved most, and the sums of all. */
function coverageLines(coverage: readonly CoverageRow[]): { text: string; escaped: boolean }[] {
  if (coverage.length === 0) return [{ text: "the kernel saw no flow", escaped: false }];
  const few = coverage.length <= MOST_COVERAGE_LINES;
  const shown = few ? coverage : coverage.slice(0, MOST_COVERAGE_LINES - STATES.length);
  const sums = few ? [] : STATES.flatMap((state) => sumOf(state, coverage) ?? []);
  const named = shown.map((row) => ({ ...row, who: `${row.program} (pid ${row.pid})` }));
  const cells = [...named, ...sums].map(({ who, state, flows, bytes_up, bytes_down }) => [
    who,
    state,
    formatPlural(flows, "flow"),
    `${formatBytes(bytes_up)} up`,
    `${formatBytes(bytes_down)} down`,
  ]);
  const states = [...named, ...sums].map(({ state }) => state);
  return alignColumns(cells).map((text, at) => ({ text, escaped: states[at] === "escaped" }));
}

function sumOf(
  state: CoverageRow["state"],
  coverage: readonly CoverageRow[],
): (Omit<CoverageRow, "program" | "pid"> & { who: string }) | undefined {
  const rows = coverage.filter((row) => row.state === state);
  if (rows.length === 0) return undefined;
  const sum = (of: (row: CoverageRow) => number): number => rows.reduce((all, row) => all + of(row), 0);
  return {
    who: `in all (${formatCount(rows.length)} rows)`,
    state,
    flows: sum(({ flows }) => flows),
    bytes_up: sum(({ bytes_up }) => bytes_up),
    bytes_down: sum(({ bytes_down }) => bytes_down),
  };
}

function witnessed(fault: FaultEvidence): string {
  if (fault.witnessed_p50_ns !== undefined) return `witnessed p50 ${formatDurationNs(fault.witnessed_p50_ns)}`;
  if (fault.witnessed_ppm !== undefined) return `witnessed ${formatPpm(fault.witnessed_ppm)}`;
  return fault.witnessed === undefined ? "" : `witnessed ${formatCount(fault.witnessed)}`;
}

/** `packet_loss` is what everybody calls loss; the rest is the field's name in words. */
function label(fault: string): string {
  return fault.replace("packet_loss", "loss").replaceAll("_", " ");
}

function delivered(fault: FaultEvidence): string {
  if (fault.applied === 0) return "never applied";
  if (fault.delivered_ppm !== undefined) return `delivered ${formatPpm(fault.delivered_ppm)}`;
  if (fault.p50_ns === undefined || fault.p99_ns === undefined) return "delivered";
  const verb = baseKey(fault.fault) === "rate" ? "waits" : "delivered";
  return `${verb} p50 ${formatDurationNs(fault.p50_ns)}  p99 ${formatDurationNs(fault.p99_ns)}`;
}

function occasions(fault: FaultEvidence): string {
  const of = formatPlural(fault.of, basisNoun(fault));
  return fault.applied === fault.of && fault.delivered_ppm === undefined
    ? of
    : `${formatCount(fault.applied)} of ${of}`;
}
