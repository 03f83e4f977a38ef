/** Evidence as a person reads it at the end of a run: one line a fault, asked against delivered, aligned. */

import { baseKey, basisNoun } from "./evidence.js";
import { alignColumns, formatCount, formatDurationNs, formatPlural, formatPpm } from "./format.js";
import type { Evidence, FaultEvidence } from "./schema.js";

const BOLD = ["\u001b[1m", "\u001b[22m"] as const;
const YELLOW = ["\u001b[33m", "\u001b[39m"] as const;
const MOST_ESCAPES_SHOWN = 5;

/** The lines of a run's evidence, each ended. */
export function renderEvidence(evidence: Evidence, { colour }: { colour: boolean }): string {
  const paint = ([on, off]: readonly [string, string], text: string): string => (colour ? `${on}${text}${off}` : text);
  const head = [formatPlural(evidence.flows, "flow"), formatPlural(evidence.ops, "op"), `seed ${evidence.seed}`].join(
    " · ",
  );
  const rows = evidence.faults.map((fault) => [
    (fault.policy === undefined ? "" : `${fault.policy}: `) + label(fault.fault),
    `asked ${fault.asked}`,
    delivered(fault),
    occasions(fault),
  ]);
  const { escaped } = evidence;
  const table = alignColumns([...rows, ...(escaped.length > 0 ? [["escaped"]] : [])]).map((line, at) => {
    return at < rows.length && evidence.faults[at]?.applied === 0 ? paint(YELLOW, line) : line;
  });
  const lines = [`mishap: ${head}`, ...table.slice(0, rows.length).map((line) => `  ${line}`)];
  if (escaped.length > 0) {
    const width = Math.max(9, ...rows.map(([name = ""]) => name.length + 2));
    const shown = escaped.slice(0, MOST_ESCAPES_SHOWN).map((flow) => {
      return `${flow.peer} (pid ${flow.pid} ${flow.program}, ${flow.reason})`;
    });
    const more = escaped.length > shown.length ? `, and ${formatCount(escaped.length - shown.length)} more` : "";
    const text = `${formatPlural(escaped.length, "flow")} not intercepted: ${shown.join(", ")}${more}`;
    lines.push(`  ${paint(YELLOW, `${"escaped".padEnd(width)}${text}`)}`);
  }
  lines[0] = paint(BOLD, lines[0] ?? "");
  for (const note of evidence.notes) lines.push(`  ${paint(YELLOW, `note: ${note}`)}`);
  return `${lines.join("\n")}\n`;
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
