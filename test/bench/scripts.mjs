// What asking a script costs a program: a verdict, many of them, one that stands; how long until the first; what ticks take.
// Scripts run as for a user, jailed, by `mishap run --script`; the program is asks.c.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { interleaved, under } from "./yardstick.mjs";

const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const mishap = pathOf("../../dist/cli/main.js");
const folder = pathOf("../../build/bench");
const program = join(folder, "asks");

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const us = (ns) => `${(ns / 1000).toFixed(1)} µs`;

function build() {
  const source = pathOf("asks.c");
  if (existsSync(program) && statSync(source).mtimeMs < statSync(program).mtimeMs) return;
  mkdirSync(folder, { recursive: true });
  const { status, stderr, error } = spawnSync("gcc", ["-std=gnu17", "-O2", "-pthread", "-o", program, source], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the program could not be compiled: ${error?.message ?? stderr}`);
}

/** Runs the program under mishap; what it printed. */
function run(flags, ...args) {
  const command = [mishap, "run", "--quiet", ...flags, "--", program, ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the program ended with ${status}: ${stderr}`);
  return JSON.parse(stdout);
}

/** Milliseconds of processor time that processes took so far (proc(5), stat: utime and stime, in ticks of 10 ms). */
function takenMs(pids) {
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) * 10;
  }, 0);
}
const childrenOf = (pid) => readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);

/** What share of a core mishap and its script's host take beside 1,000 flows that do nothing. */
async function busyShare(flags, seconds) {
  const child = spawn(
    process.execPath,
    [mishap, "run", "--quiet", ...flags, "--", program, "flows", "n=1000", "seconds=60"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  await new Promise((resolve) => child.stdout.once("data", resolve));
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const hosts = childrenOf(child.pid).filter((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("host/main.js"),
  );
  const pids = [child.pid, ...hosts];
  const before = takenMs(pids);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const share = (takenMs(pids) - before) / (seconds * 1000);
  child.kill("SIGTERM");
  await new Promise((resolve) => child.on("close", resolve));
  return share;
}

/** The figures of scripts. */
export async function* scripts({ quick }) {
  build();
  const into = mkdtempSync(join(tmpdir(), "mishap-bench-"));
  let written = 0;
  const scriptOf = (hooks) => {
    const path = join(into, `script-${++written}.ts`);
    writeFileSync(path, `import { policy } from "mishap/script";\nexport default policy({ name: "x", ${hooks} });\n`);
    return path;
  };
  try {
    const asked = scriptOf("onOp: () => ({})");
    const n = quick ? 2000 : 20_000;
    const rounds = Array.from({ length: quick ? 1 : 5 }, () => ({
      plain: run(["--packet-loss", "0%"], "latency", `n=${n}`),
      asked: run(["--script", asked], "latency", `n=${n}`),
    }));
    const p50 = median(rounds.map((round) => round.asked.p50_ns - round.plain.p50_ns));
    const p99 = median(rounds.map((round) => round.asked.p99_ns - round.plain.p50_ns));
    const note = `a send that a script is asked about, less one under a policy (${us(median(rounds.map((round) => round.plain.p50_ns)))})`;
    yield {
      figure: "a verdict, question to answer: p50",
      measured: us(p50),
      bound: "≤ 12 µs",
      holds: p50 <= 12_000,
      note,
    };
    yield {
      figure: "a verdict, question to answer: p99",
      measured: us(p99),
      bound: "≤ 60 µs",
      holds: p99 <= 60_000,
      note: "the same",
    };

    const rates = Array.from({ length: quick ? 1 : 3 }, () =>
      run(["--script", asked, "--script-workers", "2"], "rate", "threads=8", "seconds=2"),
    );
    const rate = median(rates.map((each) => each.per_second));
    yield {
      figure: "verdicts a second, 2 workers",
      ...{ measured: Math.round(rate).toLocaleString("en"), bound: "≥ 100,000", holds: rate >= 100_000 },
      note: "8 threads that send one after the other",
    };

    const standing = scriptOf('onOp: () => ({ fields: { packetLoss: "0%" }, validFor: "flow" })');
    const ways = [under("--packet-loss", "0%"), under("--script", standing)];
    const pairs = await interleaved(ways, "pair", { sock: "tcp", call: "send", n: 20_000 }, quick ? 5 : 21);
    const ratio = median(
      pairs.map(([plain, cached]) => cached.pair_ns / cached.direct_ns / (plain.pair_ns / plain.direct_ns)),
    );
    yield {
      figure: "a verdict that stands, against a plain row",
      ...{ measured: `${ratio.toFixed(3)}×`, bound: "≤ 1.2×", holds: ratio <= 1.2 },
      note: "pairs of TCP send and receive",
    };

    const first = (flags) => {
      const startedMs = Date.now();
      return run(flags, "once").at_ms - startedMs;
    };
    const starts = Array.from({ length: quick ? 1 : 7 }, () => ({
      plain: first([]),
      scripted: first(["--script", asked]),
    }));
    const [plainMs, scriptedMs] = ["plain", "scripted"].map((way) => median(starts.map((each) => each[way])));
    const addedMs = scriptedMs - plainMs;
    yield {
      figure: "what a script adds until a run's first verdict",
      ...{ measured: `${addedMs.toFixed(0)} ms`, bound: "≤ 400 ms", holds: addedMs <= 400 },
      note: `${scriptedMs.toFixed(0)} ms after the run's start, and its first send ${plainMs.toFixed(0)} ms after it without a script`,
    };

    const ticking = scriptOf(
      "tickMs: 100, onTick: (stats, ctx) => { ctx.metrics.gauge('flows', stats.flows.length); return undefined; }",
    );
    const share = (await busyShare(["--script", ticking], quick ? 2 : 10)) - (await busyShare([], quick ? 2 : 10));
    yield {
      figure: "1,000 live flows with onTick every 100 ms",
      ...{ measured: `${(share * 100).toFixed(1)} % of a core`, bound: "≤ 5 %", holds: share <= 0.05 },
      note: "mishap and the script's host, less mishap without a script",
    };
  } finally {
    rmSync(into, { recursive: true, force: true });
  }
}
