// The project's figures, measured: each against its bound, and what it is compared with taken in the same run. Prints a
// table; the exit code says only whether everything could be measured.
//
//   npm run bench [-- --only=NAME] [-- --quick]
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { kernel } from "./kernel.mjs";
import { recording } from "./recording.mjs";
import { relay } from "./relay.mjs";
import { scripts } from "./scripts.mjs";
import { BARE, build, instructionsAdded, interleaved, measure, under, yardstick } from "./yardstick.mjs";

const only = process.argv.find((argument) => argument.startsWith("--only="))?.slice("--only=".length);
const quick = process.argv.includes("--quick");
const rounds = quick ? 7 : 21;
const processes = quick ? 1 : 3; // where a program's memory lies moves timings by a few percent: fresh ones even it out

// Every stage has something to do and never does it: chances of nothing, limits never met, no latency, a rate beyond reach.
const NEVER_HITS = [
  ["--latency", "0ms", "--jitter", "0ms", "--packet-loss", "0%", "--burst-loss", "3", "--rate", "100gbps"],
  ["--correlated-loss.p-good-to-bad", "0%", "--correlated-loss.p-bad-to-good", "0%"],
  ["--correlated-loss.loss-good", "0%", "--correlated-loss.loss-bad", "0%"],
  ["--connection-error", "reset:0%", "--half-open", "1000000gb", "--timeout.connect", "1000s"],
  [
    "--session-budget.max-tx",
    "1000000gb",
    "--session-budget.max-rx",
    "1000000gb",
    "--session-budget.max-duration",
    "10000s",
  ],
  ["--payload-mutation.type", "truncate", "--payload-mutation.truncate-size", "1b", "--payload-mutation.prob", "0%"],
  ["--packet-reorder", "0%", "--packet-duplicate", "0%"],
].flat();
const NEVER_HITS_UNIX = [...NEVER_HITS, "--target", "unix://"];
const RESOLVER_TOO = ["--dns.nxdomain", "0%"]; // its targets need host names, so it does not go with unix://

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** Rounds of the bare program beside the same under mishap: [bare, faulted] objects. */
async function sideBySide(flags, mode, options) {
  const all = [];
  for (let i = 0; i < processes; i++) all.push(...(await interleaved([BARE, under(...flags)], mode, options, rounds)));
  return all;
}
/**
 * How a program fares under mishap beside the bare one: both are held against bare system calls that they make between
 * their own, so that where each happened to lie in memory and when it ran cancel out.
 */
const medianRatio = (all, field, direct) =>
  median(all.map(([bare, faulted]) => faulted[field] / faulted[direct] / (bare[field] / bare[direct])));
const medianMore = (all) => median(all.map(([bare, faulted]) => faulted.more_ns - bare.more_ns));

const worst = (added) => [...added].reduce((a, b) => (b[1] > a[1] ? b : a));
const atMost = (value, bound, format) => ({
  measured: format(value),
  bound: `≤ ${format(bound)}`,
  holds: value <= bound,
});
const times = (value) => `${value.toFixed(3)}×`;

async function* instructions() {
  const cases = [
    ["file, read and write", "file", ["--latency", "50ms"], 8],
    ["unix socket, no policy", "unix", [], 40],
    ["TCP socket, no policy", "tcp", [], 40],
    ["UDP socket, no policy", "udp", [], 40],
  ];
  for (const [name, sock, flags, bound] of cases) {
    const [call, added] = worst(instructionsAdded(under(...flags), sock));
    const row = atMost(added, bound, (count) => `${count}`);
    yield { figure: `instructions more a call: ${name}`, ...row, note: `most: ${call}` };
  }
}

async function* pairs() {
  const cases = [
    ["unix pair, no policy", [], "unix", 1.03],
    ["unix pair, all stages", NEVER_HITS_UNIX, "unix", 1.1],
  ];
  for (const [name, flags, sock, bound] of cases) {
    const all = await sideBySide(flags, "pair", { sock, n: quick ? 5000 : 20000 });
    const note = `bare ${median(all.map(([bare]) => bare.pair_ns)).toFixed(0)} ns`;
    yield { figure: `send + recv: ${name}`, ...atMost(medianRatio(all, "pair_ns", "direct_ns"), bound, times), note };
  }
}

async function* calls() {
  for (const sock of ["tcp", "udp"]) {
    for (const call of ["send", "write", "sendmsg"]) {
      const all = await sideBySide([...NEVER_HITS, ...RESOLVER_TOO], "pair", { sock, call, n: quick ? 3000 : 5000 });
      const row = atMost(medianMore(all) / 2, 60, (ns) => `${ns.toFixed(0)} ns`);
      const note = `bare pair ${median(all.map(([bare]) => bare.pair_ns)).toFixed(0)} ns`;
      yield { figure: `added a call, all stages: ${sock} ${call}`, ...row, note };
    }
  }
}

async function* bulk() {
  const all = await sideBySide([...NEVER_HITS, ...RESOLVER_TOO], "bulk", { bytes: (quick ? 8 : 32) << 20 });
  const ratio = 1 / medianRatio(all, "carry_ns", "direct_ns");
  yield {
    figure: "bulk TCP, 64 KiB, all stages",
    measured: times(ratio),
    bound: `≥ ${times(0.95)}`,
    holds: ratio >= 0.95,
  };
}

async function* latency() {
  const samples = { 1: 100, 10: 50, 50: 20 };
  const sides = [
    ["send", "uplink", ["send", "write"]],
    ["recv", "downlink", ["recv", "read"]],
  ];
  for (const ms of [1, 10, 50]) {
    for (const [side, direction, names] of sides) {
      for (const call of names) {
        const prefix = under(`--${direction}.latency`, `${ms}ms`);
        const all = [];
        for (let i = 0; i < (quick ? 3 : 7); i++) {
          all.push(...measure(prefix, "delay", { side, call, ask_us: ms * 1000, n: samples[ms] }));
        }
        const of = (which, key) => median(all.map((round) => round[which][key]));
        // The part of the bound that is not the sleep's own lateness.
        const more = { p50_us: 150, p99_us: 1000 };
        const within = (key) => of("call", key) <= of("nanosleep", key) + more[key];
        const us = (which) => `${of(which, "p50_us").toFixed(0)} / ${of(which, "p99_us").toFixed(0)} µs`;
        const earliest = Math.min(...all.map((round) => round.call.min_us));
        yield {
          figure: `latency ${ms} ms, ${call}: error p50 / p99`,
          measured: us("call"),
          bound: `≤ ${us("nanosleep")} + 150 / 1000 µs`,
          holds: earliest >= -100 && within("p50_us") && within("p99_us"),
          note: earliest >= 0 ? "never early" : `early by ${-earliest} µs`,
        };
      }
    }
  }
}

async function* links() {
  for (const call of ["poll", "epoll_wait"]) {
    const all = await sideBySide(["--downlink.latency", "50ms"], "ready", { call, n: quick ? 5000 : 20000 });
    const row = atMost(medianMore(all), 15, (ns) => `${ns.toFixed(1)} ns`);
    const note = `bare ${median(all.map(([bare]) => bare.direct_ns)).toFixed(0)} ns`;
    yield { figure: `added to ${call} on an unfaulted flow, another on a link`, ...row, note };
  }
  const sides = [
    ["send", "uplink"],
    ["recv", "downlink"],
  ];
  for (const [side, direction] of sides) {
    const prefix = under(`--${direction}.latency`, "50ms");
    const all = Array.from(
      { length: quick ? 3 : 9 },
      () => measure(prefix, "pipeline", { side, ask_us: 50_000 })[0].late,
    );
    const late = median(all.map((round) => round.p99_us));
    const earliest = Math.min(...all.map((round) => round.min_us));
    yield {
      figure: `ten sends in a row, 50 ms ${direction}: the latest is late by`,
      measured: `${late.toFixed(0)} µs`,
      bound: "≤ 1000 µs",
      holds: late <= 1000 && earliest >= -100,
      note: earliest >= 0 ? "never early" : `early by ${-earliest} µs`,
    };
  }
  for (const [side, direction] of sides) {
    const bytes = (quick ? 64 : 512) << 20;
    const run = (prefix) => measure(prefix, "transfer", { side, bytes })[0].bytes_per_s / 1e6;
    const rounds = Array.from({ length: quick ? 1 : 5 }, () => [
      run(BARE),
      run(under(`--${direction}.latency`, "20ms")),
    ]);
    const [bare, delayed] = [0, 1].map((which) => median(rounds.map((round) => round[which])));
    // More than is under way at once no link carries: the line's 16 MiB, or a receive buffer of 4 MiB, which the kernel doubles.
    const [share, most] = direction === "uplink" ? [0.9, 16 << 20] : [0.5, 8 << 20];
    const least = share * Math.min(bare, most / 1e6 / 0.02);
    yield {
      figure: `bulk TCP through 20 ms ${direction}`,
      ...{ measured: `${delayed.toFixed(0)} MB/s`, bound: `≥ ${least.toFixed(0)} MB/s`, holds: delayed >= least },
      note: `bare ${bare.toFixed(0)} MB/s; ${most >> 20} MiB a 20 ms are ${(most / 1e6 / 0.02).toFixed(0)}`,
    };
  }
}

async function* rate() {
  const lines = [
    [1, 1400],
    ...[10, 100, 1000].flatMap((mbps) => [
      [mbps, 65536],
      [mbps, 1400],
    ]),
  ];
  for (const [mbps, chunk] of lines) {
    const errors = ["send", "write", "writev", "sendmsg"].map((call) => {
      const prefix = under("--uplink.rate", `${mbps}mbps`);
      const slopes = Array.from(
        { length: quick ? 1 : 3 },
        () => measure(prefix, "rate", { call, chunk, seconds: 1.2 })[0].bps,
      );
      const bps = median(slopes);
      return (bps / (mbps * 1e6) - 1) * 100;
    });
    const most = errors.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    const note = `four calls: ${errors.map((error) => error.toFixed(2)).join(", ")}`;
    const row = { measured: `${most.toFixed(2)} %`, bound: "± 1 %", holds: Math.abs(most) <= 1 };
    yield { figure: `rate ${mbps} Mbit/s, ${chunk} B chunks: slope's error`, ...row, note };
  }
}

async function* loss() {
  const n = quick ? 10_000 : 100_000;
  for (const [side, direction] of [
    ["send", "uplink"],
    ["recv", "downlink"],
  ]) {
    for (const percent of [1, 10]) {
      const p = percent / 100;
      const worstOf = new Map();
      let refused = 0;
      for (let seed = 1; seed <= 5; seed++) {
        const flags = [`--${direction}.packet-loss`, `${percent}%`, "--seed", `${seed}`];
        for (const { call, asked, accepted, received } of measure(under(...flags), "loss", { side, n })) {
          refused += asked - accepted;
          const sigmas = Math.abs(asked - received - asked * p) / Math.sqrt(asked * p * (1 - p));
          worstOf.set(call, Math.max(worstOf.get(call) ?? 0, sigmas));
        }
      }
      for (const [call, sigmas] of worstOf) {
        const row = { measured: `${sigmas.toFixed(2)} σ`, bound: "≤ 4.5 σ", holds: sigmas <= 4.5 && refused === 0 };
        const note = refused === 0 ? "five seeds; each send succeeded" : `${refused} sends failed`;
        yield { figure: `loss ${percent} % of ${n.toLocaleString("en")}, ${call}`, ...row, note };
      }
    }
  }
}

/** A policy file in a folder of its own, for as long as `use` takes. */
async function withPolicies(policies, use) {
  const folder = mkdtempSync(join(tmpdir(), "mishap-bench-"));
  try {
    const file = join(folder, "policies.json");
    writeFileSync(file, JSON.stringify(policies));
    return await use(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function* policies() {
  yield* contexts();
  yield* manyPolicies();
  yield* published();
}

async function* contexts() {
  const cost = fileURLToPath(new URL("../programs/api-cost.mjs", import.meta.url));
  const [command, ...args] = [...under(), process.execPath, cost];
  const rounds = Array.from({ length: quick ? 1 : 3 }, () => {
    const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`contexts could not be measured: ${stderr.trim()}`);
    return JSON.parse(stdout);
  });
  for (const way of Object.keys(rounds[0])) {
    const us = median(rounds.map((round) => round[way])) / 1000;
    yield { figure: `entering and leaving a context: ${way}`, ...atMost(us, 5, (value) => `${value.toFixed(2)} µs`) };
  }
}

/** 10,000 flows, by turns: of one policy with one rule, and of 1,024 policies with 16 rules each, of which the last holds. */
async function* manyPolicies() {
  const faults = { packet_loss: "0%", rate: "100gbps" };
  const others = Array.from({ length: 15 }, (_, at) => ({ target: `udp://10.${at}.0.0/16`, priority: 20 - at }));
  const here = { target: "udp://127.0.0.0/8", priority: 1 };
  const one = { one: { ...faults, targets: [here] } };
  const many = Object.fromEntries(
    Array.from({ length: 1024 }, (_, at) => [`policy_${at}`, { ...faults, targets: [...others, here] }]),
  );
  const { layoutHash } = JSON.parse(
    spawnSync(process.execPath, [under()[1], "contract", "--json"], { encoding: "utf8" }).stdout,
  );
  const cost = (file, count) => {
    const options = { flows: 10_000, n: quick ? 100_000 : 400_000, policies: count, hash: layoutHash };
    return measure(under("--policies", file), "flows", options)[0].send_ns;
  };
  const rounds = await withPolicies(one, (few) =>
    withPolicies(many, (lots) => Array.from({ length: quick ? 3 : 9 }, () => [cost(few, 1), cost(lots, 1024)])),
  );
  const ratio = median(rounds.map(([few, lots]) => lots / few));
  const note = `${median(rounds.map(([few]) => few)).toFixed(0)} ns a send with one policy`;
  yield { figure: "a send, 1,024 policies × 16 rules, 10,000 flows", ...atMost(ratio, 1.1, times), note };
}

/** From a publication's end to the first send that meets it, in another process. */
async function* published() {
  const publisher = fileURLToPath(new URL("publisher.mjs", import.meta.url));
  const [command, ...args] = [...under(), process.execPath, publisher, yardstick, quick ? "100" : "1000"];
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`publications could not be measured: ${stderr.trim()}`);
  const lateUs = JSON.parse(stdout).sort((a, b) => a - b);
  const at = (share) => lateUs[Math.min(lateUs.length - 1, Math.floor(share * lateUs.length))];
  const row = atMost(at(0.99), 50, (us) => `${us.toFixed(1)} µs`);
  yield {
    figure: "a changed policy, to its first send in another process: p99",
    ...row,
    note: `p50 ${at(0.5).toFixed(1)} µs`,
  };
}

const figures = {
  instructions,
  pairs,
  calls,
  bulk,
  latency,
  links,
  rate,
  loss,
  policies,
  kernel: () => kernel({ quick }),
  recording: () => recording({ quick }),
  relay: () => relay({ quick }),
  scripts: () => scripts({ quick }),
};

if (only !== undefined && !(only in figures)) {
  console.error(`--only=${only} is not a figure: say one of ${Object.keys(figures).join(", ")}`);
  process.exit(2);
}
build();
console.log("| figure | measured | bound | holds | |\n|---|---|---|---|---|");
for (const [name, figure] of Object.entries(figures)) {
  if (only !== undefined && only !== name) continue;
  try {
    for await (const { figure: what, measured, bound, holds, note = "" } of figure()) {
      console.log(`| ${what} | ${measured} | ${bound} | ${holds ? "yes" : "NO"} | ${note} |`);
    }
  } catch (error) {
    console.error(`${name} could not be measured: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
