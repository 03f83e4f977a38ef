/**
 * The table of `mishap observe`: one frame of a terminal, made from what was seen, without a word to the terminal itself.
 * Lines never exceed the width: what matters least leaves first, then long names are cut. Nothing a program calls itself
 * can move the cursor.
 */

import { formatBytes, formatCount, formatDurationNs, formatPlural } from "./format.js";
import type { ObservedFlow } from "./observed.js";

/** What the rows are sorted by, each with the largest or the first on top. */
export const SORT_KEYS = ["rate", "bytes", "rtt", "age", "program"] as const;
export type SortKey = (typeof SORT_KEYS)[number];

/** What one frame shows. */
export interface TableState {
  /** What is watched, in words. */
  readonly scope: string;
  /** Open flows, and those that were closed a moment ago. */
  readonly flows: readonly ObservedFlow[];
  /** Flows that could not be kept. */
  readonly missed: number;
  readonly sort: SortKey;
  readonly paused: boolean;
  readonly colour: boolean;
}

interface Column {
  readonly title: string;
  readonly width: number;
  /** How narrow it may become in a small terminal, how wide for its longest cell in a large one. */
  readonly between?: readonly [least: number, most: number];
  readonly right?: boolean;
  /** Columns with the highest number leave first where the terminal is narrow; 0: stays. */
  readonly leaves: number;
  readonly sortedBy?: SortKey;
  readonly cell: (flow: ObservedFlow) => string;
}

const NONE = "-";
/** An IPv6 address with its port. */
const WIDEST_ADDRESS = 47;
// biome-ignore format: one line a column reads better
const COLUMNS: readonly Column[] = [
  { title: "PROGRAM", width: 12, between: [8, 15], leaves: 0, sortedBy: "program", cell: ({ program }) => printable(program) || NONE },
  { title: "PID", width: 7, right: true, leaves: 4, cell: ({ pid }) => (pid > 0 ? String(pid) : NONE) },
  { title: "STATE", width: 11, leaves: 0, cell: ({ state }) => state },
  { title: "PEER", width: 21, between: [12, WIDEST_ADDRESS], leaves: 0, cell: ({ peer }) => peer },
  { title: "UP/S", width: 8, right: true, leaves: 0, sortedBy: "rate", cell: (flow) => rate(flow.bytes_up_per_s) },
  { title: "DOWN/S", width: 8, right: true, leaves: 0, sortedBy: "rate", cell: (flow) => rate(flow.bytes_down_per_s) },
  { title: "RTT", width: 7, right: true, leaves: 3, sortedBy: "rtt", cell: ({ rtt_us }) => rtt_us === undefined ? NONE : formatDurationNs(rtt_us * 1000) },
  { title: "RETR", width: 5, right: true, leaves: 6, cell: ({ retransmits }) => retransmits === 0 ? NONE : formatCount(retransmits) },
  { title: "AGE", width: 5, right: true, leaves: 5, sortedBy: "age", cell: ({ age_ms }) => age_ms === undefined ? NONE : age(age_ms) },
  { title: "TCP", width: 11, leaves: 7, cell: ({ protocol, open, tcp_state }) => protocol === "udp" ? "udp" : open ? (tcp_state ?? NONE).toLowerCase().replaceAll("_", "-") : "closed" },
  { title: "UP", width: 8, right: true, leaves: 8, sortedBy: "bytes", cell: ({ bytes_up }) => formatBytes(bytes_up) },
  { title: "DOWN", width: 8, right: true, leaves: 8, sortedBy: "bytes", cell: ({ bytes_down }) => formatBytes(bytes_down) },
  { title: "LOCAL", width: 21, between: [21, WIDEST_ADDRESS], leaves: 9, cell: ({ local }) => local },
];

const BOLD = [1, 22] as const;
const DIM = [2, 22] as const;
const UNDERLINED = [4, 24] as const;
const RED = [31, 39] as const;
const GREEN = [32, 39] as const;
const YELLOW = [33, 39] as const;
type Paint = (colour: readonly [number, number], text: string) => string;

/** The lines of one frame, as many as fit: joined, the last one without an end. */
export function frame(state: TableState, columns: number, rows: number): string {
  const paint: Paint = ([on, off], text) => (state.colour && text !== "" ? `\u001b[${on}m${text}\u001b[${off}m` : text);
  const sorted = [...state.flows].sort(order(state.sort));
  const shown = sorted.slice(0, Math.max(0, rows - 4));
  const chosen = sized(columns, shown);
  const body = shown.map((flow) => row(flow, chosen, paint));
  if (shown.length === 0) body.push(paint(DIM, cut("no flows yet", columns)));
  const blank = Array<string>(Math.max(0, rows - 4 - body.length)).fill("");
  const lines = [
    headline(state, columns, paint),
    "",
    titles(chosen, state.sort, paint),
    ...body,
    ...blank,
    footer(state, sorted.length - shown.length, columns, paint),
  ];
  return lines.slice(0, rows).join("\n");
}

function headline({ scope, flows, missed, paused }: TableState, columns: number, paint: Paint): string {
  const open = flows.filter((flow) => flow.open);
  const many = (state: ObservedFlow["state"]): number => open.filter((flow) => flow.state === state).length;
  const sum = (field: "bytes_up_per_s" | "bytes_down_per_s"): number =>
    flows.reduce((total, flow) => total + flow[field], 0);
  const counts = (["intercepted", "escaped", "unknown"] as const).flatMap((state) => {
    const count = many(state);
    const text = `${formatCount(count)} ${state}`;
    return count === 0 ? [] : [{ text, colour: state === "escaped" ? YELLOW : undefined }];
  });
  const parts: { text: string; colour?: readonly [number, number] | undefined }[] = [
    { text: formatPlural(open.length, "flow"), colour: BOLD },
    { text: `↑ ${formatBytes(sum("bytes_up_per_s"))}/s ↓ ${formatBytes(sum("bytes_down_per_s"))}/s`, colour: BOLD },
    ...counts,
    ...(paused ? [{ text: "paused", colour: YELLOW }] : []),
    ...(missed > 0 ? [{ text: `${formatCount(missed)} missed`, colour: RED }] : []),
    { text: printable(scope) },
  ];
  let room = columns;
  const line: string[] = [];
  for (const { text, colour } of parts) {
    const separator = line.length > 0 ? " · " : "";
    const fitting = cut(text, room - separator.length);
    if (fitting === "" || (line.length > 0 && fitting !== text)) break;
    room -= separator.length + fitting.length;
    line.push(separator + (colour === undefined ? fitting : paint(colour, fitting)));
  }
  return line.join("");
}

function footer({ sort }: TableState, hidden: number, columns: number, paint: Paint): string {
  const more = hidden > 0 ? `${formatCount(hidden)} more below · ` : "";
  return paint(DIM, cut(`${more}q quit · s sorted by ${sort} · p pause`, columns));
}

function titles(chosen: readonly Sized[], sort: SortKey, paint: Paint): string {
  return chosen
    .map(({ column, width }) => {
      const text = pad(column.title, width, column.right);
      return paint(UNDERLINED, column.sortedBy === sort ? paint(BOLD, text) : text);
    })
    .join(" ");
}

function row(flow: ObservedFlow, chosen: readonly Sized[], paint: Paint): string {
  const cells = chosen.map(({ column, width }) => {
    const { cell, right, title } = column;
    const text = pad(title === "PEER" || title === "LOCAL" ? cutInside(cell(flow), width) : cell(flow), width, right);
    const colour = colourOf(flow, title);
    return flow.open && colour !== undefined ? paint(colour, text) : text;
  });
  const line = cells.join(" ");
  return flow.open ? line : paint(DIM, line);
}

function colourOf(flow: ObservedFlow, title: string): readonly [number, number] | undefined {
  if (title === "STATE") return { intercepted: GREEN, escaped: YELLOW, unknown: DIM }[flow.state];
  return title === "RETR" && flow.retransmits > 0 ? RED : undefined;
}

// ---- order and width ----

const totalRate = (flow: ObservedFlow): number => flow.bytes_up_per_s + flow.bytes_down_per_s;

/** Open flows first; equal ones by age and number, so that rows stay where they are. */
function order(sort: SortKey): (a: ObservedFlow, b: ObservedFlow) => number {
  const by: Readonly<Record<SortKey, (a: ObservedFlow, b: ObservedFlow) => number>> = {
    rate: (a, b) => totalRate(b) - totalRate(a),
    bytes: (a, b) => b.bytes_up + b.bytes_down - a.bytes_up - a.bytes_down,
    rtt: (a, b) => (b.rtt_us ?? 0) - (a.rtt_us ?? 0),
    age: (a, b) => (b.age_ms ?? 0) - (a.age_ms ?? 0),
    program: (a, b) => a.program.localeCompare(b.program) || a.pid - b.pid,
  };
  return (a, b) =>
    Number(b.open) - Number(a.open) ||
    by[sort](a, b) ||
    a.cookie.length - b.cookie.length ||
    (a.cookie < b.cookie ? -1 : 1);
}

interface Sized {
  readonly column: Column;
  readonly width: number;
}

/** The columns that there is room for, and their widths. A terminal too narrow for the last ones shows the first. */
function sized(columns: number, flows: readonly ObservedFlow[]): Sized[] {
  let chosen = COLUMNS;
  while (widthOf(chosen) > columns) {
    const last = Math.max(...chosen.map(({ leaves }) => leaves));
    if (last === 0) break;
    chosen = chosen.filter(({ leaves }) => leaves !== last);
  }
  let room = columns - widthOf(chosen);
  const all = chosen.map((column): Sized => {
    const { width, between: [least, most] = [width, width] } = column;
    const longest = flows.reduce((so, flow) => Math.max(so, column.cell(flow).length), 0);
    const given = room < 0 ? Math.max(room, least - width) : Math.max(0, Math.min(room, longest - width, most - width));
    room -= given;
    return { column, width: width + given };
  });
  let used = -1;
  return all.filter(({ width }) => {
    used += width + 1;
    return used <= columns;
  });
}

function widthOf(columns: readonly Column[]): number {
  return columns.reduce((sum, { width }) => sum + width + 1, -1);
}

// ---- text ----

/** A program may call itself anything, and so may a folder: what would steer the terminal is shown as `?`. */
function printable(text: string): string {
  return text.replace(/\p{C}/gu, "?");
}

function cut(text: string, width: number): string {
  if (text.length <= width) return text;
  return width <= 0 ? "" : `${text.slice(0, width - 1)}…`;
}

/** Cuts an address so that its port stays. */
function cutInside(text: string, width: number): string {
  if (text.length <= width) return text;
  const end = Math.min(7, width - 2);
  return `${text.slice(0, width - end - 1)}…${text.slice(-end)}`;
}

function pad(text: string, width: number, right = false): string {
  const fitting = cut(text, width);
  return right ? fitting.padStart(width) : fitting.padEnd(width);
}

function rate(bytesPerSecond: number): string {
  return bytesPerSecond === 0 ? NONE : formatBytes(bytesPerSecond);
}

/** `45s`, `12m`, `3h`, `9d`. */
function age(ageMs: number): string {
  const seconds = Math.floor(ageMs / 1000);
  if (seconds < 100) return `${seconds}s`;
  if (seconds < 100 * 60) return `${Math.floor(seconds / 60)}m`;
  return seconds < 48 * 3600 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}
