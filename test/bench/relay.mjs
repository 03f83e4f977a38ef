// What the relay costs a program, and how exact its delays and rates are: the same client bare and under
// `mishap run --kernel --executor relay`, by turns, to one server outside. Needs root. The client is relay.c.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BARE, measure, under } from "./yardstick.mjs";

const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const folder = pathOf("../../build/bench");
const program = join(folder, "relay");
const RELAY = ["--kernel", "--executor", "relay"];
const CONNECTIONS = 20;

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const times = (value) => `${value.toFixed(2)}×`;
const us = (value) => `${Math.round(value)} µs`;

function build() {
  const source = pathOf("relay.c");
  if (existsSync(program) && statSync(source).mtimeMs < statSync(program).mtimeMs) return;
  mkdirSync(folder, { recursive: true });
  const { status, stderr, error } = spawnSync("gcc", ["-std=gnu17", "-O2", "-pthread", "-o", program, source], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the program could not be compiled: ${error?.message ?? stderr}`);
}

/** A command to its end, prefixed; its output. */
function run(prefix, command) {
  const [name, ...args] = [...prefix, ...command];
  const { status, stdout, stderr } = spawnSync(name, args, { encoding: "utf8", timeout: 120_000 });
  if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}

/** So many rounds of a client, bare and relayed by turns, and the median of the second over the first. */
function ratio(rounds, client) {
  const all = Array.from({ length: rounds }, () => [client(BARE), client(under(...RELAY))]);
  return { share: median(all.map(([bare, relayed]) => relayed / bare)), bare: median(all.map(([bare]) => bare)) };
}

/** The figures of the relay. */
export async function* relay({ quick }) {
  if (process.getuid() !== 0) throw new Error("loading programs into the kernel needs root");
  build();
  const server = spawn(program, ["serve"], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [said] = await once(server.stdout, "data");
    const client = (prefix, mode, ...args) =>
      JSON.parse(run(prefix, [program, mode, `${Number(said)}`, ...args.map(String)]));
    for (const delayMs of [1, 10, 50]) yield delay(client, delayMs, quick ? 40 : 400);
    yield beside(2, () => delay(client, 10, quick ? 40 : 400, 5000));
    yield added(client, quick ? 3000 : 30_000);
    const rounds = quick ? 3 : 7;
    const bulk = ratio(rounds, (prefix) => client(prefix, "bulk", 2000).bytes_per_second);
    const mbps = `bare ${Math.round(bulk.bare / 1e6)} MB/s`;
    yield { ...atLeast("bulk TCP through the relay", bulk.share, 0.4), note: mbps };
    const connects = ratio(rounds, (prefix) => client(prefix, "connects", 1).per_second);
    const rate = `bare ${Math.round(connects.bare).toLocaleString("en")} a second`;
    yield { ...atLeast("connections one after the other", connects.share, 0.4), note: rate };
    yield await redis(rounds);
  } finally {
    server.stdin.end();
    server.kill();
  }
  for (const mbps of [10, 100, 1000]) yield rated(mbps);
}

const atLeast = (figure, share, bound) => {
  return { figure, measured: times(share), bound: `≥ ${times(bound)}`, holds: share >= bound };
};

/** How late a round trip is beyond its delays and what it takes bare, which on a busy machine may well be longer. */
function delay(client, delayMs, trips, patienceUs) {
  const pauseUs = 500;
  const bare = client(BARE, "rtt", trips, pauseUs);
  const delayed = client(under(...RELAY, "--latency", `${delayMs}ms`), "rtt", trips, pauseUs);
  const [p50, p99] = [delayed.p50_us - 2000 * delayMs - bare.p50_us, delayed.p99_us - 2000 * delayMs - bare.p99_us];
  const [least50, most50, most99] =
    patienceUs === undefined ? [-100, 700, 1000] : [-patienceUs, patienceUs, patienceUs];
  return {
    figure: `relay, ${delayMs} ms each way: round trip's error p50 / p99`,
    measured: `${us(p50)} / ${us(p99)}`,
    bound: `≤ ${most50} µs / ${most99} µs`,
    holds: p50 <= most50 && p99 <= most99 && p50 >= least50,
    note: `bare ${us(bare.p50_us)} / ${us(bare.p99_us)}`,
  };
}

/** The same with so many processes at work that have the machine to themselves otherwise. */
function beside(hogs, measured) {
  const busy = Array.from({ length: hogs }, () => spawn("sh", ["-c", "while :; do :; done"], { stdio: "ignore" }));
  try {
    const row = measured();
    return { ...row, figure: `${row.figure}, ${hogs} processors busy` };
  } finally {
    for (const hog of busy) hog.kill();
  }
}

function added(client, trips) {
  const all = Array.from({ length: 5 }, () => [
    client(BARE, "rtt", trips, 0).p50_us,
    client(under(...RELAY), "rtt", trips, 0).p50_us,
  ]);
  const more = median(all.map(([bare, relayed]) => relayed - bare));
  return {
    figure: "relay, no delay: added to a round trip",
    ...{ measured: us(more), bound: "≤ 100 µs", holds: more <= 100 },
    note: `bare ${us(median(all.map(([bare]) => bare)))}`,
  };
}

async function redis(rounds) {
  const port = "18199";
  const server = spawn("redis-server", ["--port", port, "--save", "", "--bind", "127.0.0.1"], { stdio: "ignore" });
  try {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const command = ["redis-benchmark", "-p", port, "-c", `${CONNECTIONS}`, "-n", "50000", "-t", "get", "--csv"];
    const perSecond = (prefix) => Number(/"GET","([\d.]+)"/.exec(run(prefix, command))?.[1]);
    const { share, bare } = ratio(rounds, perSecond);
    const note = `bare ${Math.round(bare).toLocaleString("en")} a second`;
    return { ...atLeast(`redis-benchmark, ${CONNECTIONS} clients`, share, 0.45), note };
  } finally {
    server.kill();
  }
}

function rated(mbps) {
  const flags = under(...RELAY, "--uplink.rate", `${mbps}mbps`);
  const [{ bps }] = measure(flags, "rate", { call: "send", chunk: 1400, seconds: 1.2 });
  const error = bps / (mbps * 1e6) - 1;
  return {
    figure: `relay, rate ${mbps.toLocaleString("en")} Mbit/s: slope's error`,
    ...{ measured: `${(error * 100).toFixed(2)} %`, bound: "± 1 %", holds: Math.abs(error) <= 0.01 },
    note: "",
  };
}
