// The matrix: real programs with 100 ms asked for one way, then each way, as servers and as clients. For each row the
// same runs bare in the same minute, at the same rhythm, and what is seen is held against the program's own round trips ×
// the asked one + that bare time. Prints a table; the exit code is 1 when a row does not hold.
//
//   npm run matrix [-- --quick] [-- --only=redis,nginx] [-- --seconds=4]

import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { Stage } from "./matrix/processes.mjs";
import { build, quickRows, rows } from "./matrix/rows.mjs";

const option = (name) => process.argv.find((each) => each.startsWith(`--${name}=`))?.slice(name.length + 3);
const quick = process.argv.includes("--quick");
const only = option("only")?.split(",");
const seconds = Number(option("seconds") ?? (quick ? 1.2 : 4));

const ASKED_MS = 100;
const WAYS = {
  up: { flags: ["--uplink.latency", `${ASKED_MS}ms`], roundTripMs: ASKED_MS },
  down: { flags: ["--downlink.latency", `${ASKED_MS}ms`], roundTripMs: ASKED_MS },
  "each way": { flags: ["--latency", `${ASKED_MS}ms`], roundTripMs: 2 * ASKED_MS },
};
const ways = quick ? ["each way"] : Object.keys(WAYS);

// A quick look shares its machine with whatever else runs: it finds what is broken, not what is inexact.
const bounds = quick
  ? { p50Ms: () => 5, spreadMs: 50, earlyMs: 0.1, cpuTimes: 10, busy: 0.9 }
  : { p50Ms: (row) => row.within, spreadMs: 2, earlyMs: 0.1, cpuTimes: 3, busy: 0.9 };
/** A tool's own figures against ours, which measured other requests than it did. */
const TOOL_MS = quick ? 5 : 1;

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)];
}

/** What a host has kept from this machine's processors so far (proc(5), stat: steal, in ticks of 10 ms). */
function stolenMs() {
  const [, , , , , , , , steal] = readFileSync("/proc/stat", "utf8").split(/\s+/, 9);
  return Number(steal) * 10;
}

/** One row measured once, for the asked seconds `times` over. */
async function measured(row, flags, roundTripMs, times) {
  const stolenBeforeMs = stolenMs();
  const stage = new Stage(flags);
  try {
    const periodMs = row.trips * roundTripMs;
    const requests = Math.max(5, Math.round((times * seconds * 1000) / periodMs));
    const thinkMs = flags === undefined ? periodMs : 0;
    const plan = { connections: row.connections, requests, periodMs, thinkMs };
    const { subject, samples, doneAtMs, heldMs, gaps, lost, why, says } = await row.measure(row, stage, plan);
    const took = samples.map(([, ms]) => ms).filter((ms) => ms !== null);
    if (took.length === 0) throw new Error(`no request was answered: ${why || "the program does not say why"}`);

    // Processor time: between the moments when a seventh of the requests and nearly all were done.
    const done = [...doneAtMs].sort((a, b) => a - b);
    const cpu = subject.taken(done[Math.floor(done.length / 7)], done.at(-1));
    const answered = done.filter((at) => at > cpu.fromMs && at <= cpu.toMs).length;
    const heldP50 = heldMs.length > 0 ? percentile(heldMs, 0.5) : 0;
    // Where the samples begin when the other end's timer was due, they hold no more of it than its lateness.
    const heldInSamples = gaps ? heldP50 - thinkMs : heldP50;
    const result = {
      p50: percentile(took, 0.5) - heldInSamples,
      p99: percentile(took, 0.99) - heldInSamples,
      least: Math.min(...took) - heldInSamples,
      says: says && { ...says, p50: says.p50 - heldP50, p99: says.p99 - heldP50 },
      count: took.length,
      lost,
      cpuUs: (cpu.programMs * 1000) / answered,
      courierUs: (cpu.courierMs * 1000) / answered,
      busy: Math.max(cpu.programMs, cpu.courierMs) / (cpu.toMs - cpu.fromMs),
    };
    result.stolenMs = stolenMs() - stolenBeforeMs;
    const notes = await stage.end();
    return { ...result, notes: why ? [why, ...notes] : notes };
  } catch (error) {
    await stage.abandon();
    throw error;
  }
}

/** What of a row does not hold, in words; empty when all does. */
function breaches(row, bare, seen, roundTripMs) {
  const delayMs = row.trips * roundTripMs;
  const found = [];
  const hold = (holds, what) => {
    if (!holds) found.push(what);
  };
  const errorMs = seen.p50 - delayMs - bare.p50;
  const spreadMs = seen.p99 - seen.p50;
  hold(Math.abs(errorMs) <= bounds.p50Ms(row), "p50");
  hold(spreadMs <= bare.p99 - bare.p50 + bounds.spreadMs, "p99");
  const delays = row.trips * (roundTripMs / ASKED_MS);
  hold(seen.least >= delayMs - delays * bounds.earlyMs, `early by ${(delayMs - seen.least).toFixed(2)} ms`);
  hold(seen.lost === 0, "lost requests");
  hold(seen.cpuUs <= bounds.cpuTimes * bare.cpuUs, "CPU a request");
  hold(seen.busy < bounds.busy, "a busy core");
  if (seen.says !== undefined) {
    const idealMs = bare.says === undefined ? seen.p50 : delayMs + bare.says.p50;
    // A tool sends from all its connections at once: each request waits for those before it to be worked off.
    const queueMs = (row.connections * bare.cpuUs) / 1000;
    hold(Math.abs(seen.says.p50 - idealMs) <= TOOL_MS + queueMs, `what ${seen.says.tool} says`);
  }
  return { found, errorMs, spreadMs };
}

const ms = (value, digits = 2) => value.toFixed(digits);
const rowName = (row) => `${row.name} as ${row.side}, ${row.connections}`;

/** A row of the table, and whether it holds. */
function verdictOn(row, way, bare, seen) {
  const { roundTripMs } = WAYS[way];
  const { found, errorMs, spreadMs } = breaches(row, bare, seen, roundTripMs);
  const ideal = row.trips * roundTripMs + bare.p50;
  const notes = [
    seen.says && `${seen.says.tool}: ${ms(seen.says.p50)} / ${ms(seen.says.p99)}`,
    seen.busy > 0.5 && `${Math.round(seen.busy * 100)} % of a core`,
    ...seen.notes,
  ];
  const cells = [
    rowName(row),
    way,
    `${ms(ideal)} (bare ${ms(bare.p50)})`,
    `${ms(seen.p50)} / ${ms(seen.p99)}`,
    `${errorMs >= 0 ? "+" : ""}${ms(errorMs)}`,
    `${ms(spreadMs)} (bare ${ms(bare.p99 - bare.p50)})`,
    `${seen.lost} of ${seen.count}`,
    `${Math.round(bare.cpuUs)} → ${Math.round(seen.cpuUs)} + ${Math.round(seen.courierUs)}`,
    found.length === 0 ? "yes" : `NO: ${found.join(", ")}`,
    notes.filter(Boolean).join("; "),
  ];
  return { cells, found, holds: found.length === 0, stolenMs: seen.stolenMs };
}

/** Measures a row, and its control unless that was done already. */
async function judged(row, way, controls, times) {
  const { flags, roundTripMs } = WAYS[way];
  try {
    if (!controls.has(roundTripMs)) controls.set(roundTripMs, measured(row, undefined, roundTripMs, times));
    const bare = controls.get(roundTripMs);
    // Side by side the two disturb each other, which only a quick look can afford.
    if (!quick) await bare;
    const both = await Promise.allSettled([bare, measured(row, flags, roundTripMs, times)]);
    for (const { reason } of both) if (reason !== undefined) throw reason;
    return verdictOn(row, way, both[0].value, both[1].value);
  } catch (error) {
    const cells = [rowName(row), way, "", "", "", "", "", "", `NO: ${error.message.replaceAll("\n", " ")}`, ""];
    return { cells, found: [error.message], holds: false, stolenMs: 0 };
  }
}

/** What the machine's other work can do to a row, and what only a fault of ours can. */
const BY_CHANCE = ["p50", "p99", "CPU a request"];

/** Below this a host may have kept a processor from us, and it would hardly show. */
const STOLEN_MS = 20;
const MOST_DISTURBED = 3;

/** A row measured while the host left us our processors, as far as it ever does: else it is the host that was measured. */
async function undisturbed(row, way, controls, times = 1) {
  let verdict = await judged(row, way, controls, times);
  for (let more = 0; more < MOST_DISTURBED && !quick && !verdict.holds && verdict.stolenMs >= STOLEN_MS; more++) {
    console.error(`${rowName(row)}, ${way}: the host took ${verdict.stolenMs} ms; measured again`);
    verdict = await judged(row, way, new Map(), times);
  }
  return verdict;
}

/** Of a row that does not hold at once: how often it is measured again, and how much longer, so that a bad moment counts less. */
const AGAIN = 3;
const LONGER = 4;

/**
 * A row's verdict. One that does not hold is measured again, next to controls of its own: quick, once; else longer, and it
 * holds when two of three do (what a median says), and no request was lost or early, no core was busy in any of them.
 */
async function settled(row, way, controls) {
  const first = await undisturbed(row, way, controls);
  if (first.holds) return first;
  if (quick) return undisturbed(row, way, new Map());
  const byChance = ({ found }) => found.every((what) => BY_CHANCE.includes(what));
  const verdicts = [first];
  const holding = () => verdicts.filter(({ holds }) => holds).length;
  while (verdicts.every(byChance) && holding() < 2 && verdicts.length - holding() < AGAIN)
    verdicts.push(await undisturbed(row, way, new Map(), LONGER));
  const last = verdicts.at(-1) ?? first;
  if (holding() === 2)
    last.cells[8] = `yes, 2 of ${verdicts.length - 1} longer ones (at first not: ${first.found.join(", ")})`;
  return last;
}

const chosen = (quick ? quickRows : rows).filter(
  (row) => only === undefined || only.some((word) => [row.name, row.name.split("/")[0], row.side].includes(word)),
);
if (chosen.length === 0) {
  const known = [...new Set(rows.map((row) => row.name))].join(", ");
  console.error(`--only=${only} names no row: say some of ${known}, or server, or client, with commas between`);
  process.exit(2);
}

build();
const [load] = loadavg();
if (!quick && load > 0.5)
  console.log(`The machine is busy (load ${load.toFixed(1)}): expect rows that do not hold for that.\n`);
const heads = [
  ...["program, connections", "delay", "asked p50 ms", "seen p50 / p99 ms", "error ms", "p99 − p50 ms", "lost"],
  ...["CPU µs a request: bare → seen + courier", "holds", "also"],
];
console.log(`| ${heads.join(" | ")} |\n|${"---|".repeat(heads.length)}`);
const totals = { hold: 0, not: 0 };
for (const row of chosen) {
  const controls = new Map();
  for (const way of ways) {
    const verdict = await settled(row, way, controls);
    console.log(`| ${verdict.cells.join(" | ")} |`);
    totals[verdict.holds ? "hold" : "not"]++;
  }
}
console.log(`matrix: ${totals.hold} rows hold, ${totals.not} do not`);
process.exitCode = totals.not === 0 ? 0 : 1;
