// The table of `mishap observe` as lines of text: what it shows, what leaves when the terminal is narrow, and that nothing
// a program calls itself reaches the terminal.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ObservedFlow } from "../../../src/report/observed.js";
import { frame, SORT_KEYS, type TableState } from "../../../src/report/table.js";

const FLOW: ObservedFlow = {
  time: "2026-11-21T12:00:00.000Z",
  cookie: "1",
  pid: 4242,
  program: "curl",
  state: "intercepted",
  protocol: "tcp",
  role: "connector",
  open: true,
  tcp_state: "ESTABLISHED",
  local: "10.0.0.1:40000",
  peer: "10.0.0.7:443",
  age_ms: 12_000,
  bytes_up: 1200,
  bytes_down: 34_000_000,
  bytes_up_per_s: 100,
  bytes_down_per_s: 3_400_000,
  ops_up: 3,
  ops_down: 90,
  rtt_us: 12_300,
  retransmits: 0,
  resets: 0,
  failures: 0,
};
const ESCAPED: ObservedFlow = {
  ...FLOW,
  cookie: "2",
  pid: 812,
  program: "go-build",
  state: "escaped",
  peer: "[2001:db8::7]:8443",
  bytes_up_per_s: 0,
  bytes_down_per_s: 5000,
  retransmits: 3,
};
const CLOSED: ObservedFlow = { ...FLOW, cookie: "3", program: "wget", open: false, bytes_down_per_s: 9_000_000 };

function state(flows: readonly ObservedFlow[], more: Partial<TableState> = {}): TableState {
  return { scope: "every process", flows, missed: 0, sort: "rate", paused: false, colour: false, ...more };
}
const linesOf = (text: string): string[] => text.split("\n");
// biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what is taken out
const plain = (text: string): string => text.replace(/\u001b\[\d+m/g, "");

describe("the table", () => {
  it("at 80 columns", () => {
    expect(linesOf(frame(state([ESCAPED, CLOSED, FLOW]), 80, 9)).map((line) => line.trimEnd())).toEqual([
      "2 flows · ↑ 200 B/s ↓ 12 MB/s · 1 intercepted · 1 escaped · every process",
      "",
      "PROGRAM          PID STATE       PEER                      UP/S   DOWN/S     RTT",
      "curl            4242 intercepted 10.0.0.7:443             100 B   3.4 MB  12.3ms",
      "go-build         812 escaped     [2001:db8::7]:8443           -     5 kB  12.3ms",
      "wget            4242 intercepted 10.0.0.7:443             100 B     9 MB  12.3ms",
      "",
      "",
      "q quit · s sorted by rate · p pause",
    ]);
  });

  it("has room for everything on a wide terminal, and no wider names than there are", () => {
    const [, , titles = "", row = ""] = linesOf(frame(state([FLOW]), 200, 8));
    expect(titles.trim().split(/ +/)).toEqual(
      "PROGRAM PID STATE PEER UP/S DOWN/S RTT RETR AGE TCP UP DOWN LOCAL".split(" "),
    );
    expect(row).toMatch(/ 12s established +1.2 kB +34 MB 10\.0\.0\.1:40000/);
  });

  it("keeps an address's port when it has to cut", () => {
    const long = { ...FLOW, peer: "[2001:db8:85a3:1234:5678:8a2e:370:7334]:8443" };
    expect(frame(state([long]), 60, 8)).toMatch(/ \[2001:.*…\S*\]:8443/);
    expect(frame(state([long]), 200, 8)).toContain(` ${long.peer} `);
  });

  it("says how much of it does not fit", () => {
    const flows = Array.from({ length: 30 }, (_, at) => ({ ...FLOW, cookie: String(at) }));
    expect(linesOf(frame(state(flows), 80, 14)).at(-1)).toBe("20 more below · q quit · s sorted by rate · p pause");
  });

  it("says what is missing, and that it is paused", () => {
    expect(linesOf(frame(state([], { missed: 1204, paused: true }), 100, 8)).slice(0, 4)).toEqual([
      "0 flows · ↑ 0 B/s ↓ 0 B/s · paused · 1,204 missed · every process",
      "",
      expect.stringContaining("PROGRAM"),
      "no flows yet",
    ]);
  });

  it.each([
    ["rate", ["curl", "go-build"]],
    ["program", ["curl", "go-build"]],
    ["bytes", ["go-build", "curl"]],
    ["rtt", ["go-build", "curl"]],
    ["age", ["go-build", "curl"]],
  ] as const)("sorted by %s", (sort, programs) => {
    const larger = { ...ESCAPED, bytes_up: 1e9, rtt_us: 50_000, age_ms: 99_000 };
    for (const flows of [
      [FLOW, larger, CLOSED],
      [CLOSED, larger, FLOW],
    ]) {
      const rows = linesOf(frame(state(flows, { sort }), 80, 8)).slice(3, 6);
      expect(rows.map((row) => row.split(" ")[0])).toEqual([...programs, "wget"]); // closed flows last
    }
  });

  it("shows what would steer the terminal as ?", () => {
    const named = { ...FLOW, program: "a\u001b[2Jb\u202e\r\n" };
    const text = frame(state([named], { scope: "cgroup /sys/\u001b]0;x\u0007" }), 100, 8);
    expect(text).toContain("a?[2Jb???");
    expect(text).toContain("cgroup /sys/?]0;x?");
    for (const line of linesOf(text)) expect(line).not.toMatch(/\p{C}/u);
  });

  it("is coloured where that is wanted: escaped stands out, closed is grey", () => {
    const coloured = frame(state([FLOW, ESCAPED, CLOSED], { colour: true }), 120, 9);
    expect(plain(coloured)).toBe(frame(state([FLOW, ESCAPED, CLOSED]), 120, 9));
    expect(coloured).toContain("\u001b[33mescaped    \u001b[39m");
    const closed = linesOf(coloured).find((line) => line.includes("wget")) ?? "";
    expect([closed.slice(0, 4), closed.slice(-5)]).toEqual(["\u001b[2m", "\u001b[22m"]);
    expect(frame(state([FLOW]), 120, 9)).not.toContain("\u001b");
  });

  it("fills the terminal and never exceeds it", () => {
    const flow = fc.record({
      program: fc.string({ maxLength: 15 }),
      peer: fc.constantFrom("10.0.0.7:443", "*:*", "[2001:db8:85a3:1234:5678:8a2e:370:7334]:65535"),
      pid: fc.integer({ min: 0, max: 4_194_304 }),
      bytes_up: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
      bytes_down_per_s: fc.integer({ min: 0, max: 1e13 }),
      rtt_us: fc.integer({ min: 1, max: 4_000_000_000 }),
      age_ms: fc.integer({ min: 0, max: 1e11 }),
      retransmits: fc.integer({ min: 0, max: 1e9 }),
      open: fc.boolean(),
    });
    const flows = fc.array(flow, { maxLength: 12 });
    fc.assert(
      fc.property(
        flows,
        fc.integer({ min: 1, max: 250 }),
        fc.integer({ min: 1, max: 30 }),
        fc.constantFrom(...SORT_KEYS),
        (parts, columns, rows, sort) => {
          const all = parts.map((part, at) => ({ ...FLOW, ...part, cookie: String(at) }));
          const lines = linesOf(frame(state(all, { sort }), columns, rows));
          expect(lines.length).toBe(rows);
          for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
        },
      ),
    );
  });
});
