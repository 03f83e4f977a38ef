// What the kernel's side costs a program that is not preloaded, and what it bears: the loader is started as a run
// starts it, and test/bench/kernel.cpp runs beside it, inside of its cgroup and outside. Needs root.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startLoader } from "../../dist/kernel/loader.js";
import { under } from "./yardstick.mjs";

const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const folder = pathOf("../../build/bench");
const program = join(folder, "kernel");
const sources = ["kernel.cpp", "../programs/kernel/rows.h", "../../native/contract/kernel.h"].map(pathOf);
const SEGMENT = `/dev/shm/mishap-${process.getuid()}-bench-${process.pid.toString(16).padStart(8, "0")}`;
const SETTLED_MS = 1500; // by then a run has no more to do than it has all the time
const [FIRST_CORE, TRIPS] = ["0", "30000"];

function build() {
  const isNewer = (source) => statSync(source).mtimeMs > statSync(program).mtimeMs;
  if (existsSync(program) && !sources.some(isNewer)) return;
  mkdirSync(folder, { recursive: true });
  const args = ["-std=c++20", "-O2", "-pthread", `-I${pathOf("../../native")}`, "-o", program, sources[0]];
  const { status, stderr, error } = spawnSync("g++", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the program could not be compiled: ${error?.message ?? stderr}`);
}

/** The loader as a run has it, for as long as `use` takes. */
async function withLoader(use) {
  const user = ["--uid", `${process.getuid()}`, "--gid", `${process.getgid()}`];
  const loader = await startLoader(["run", "--segment", SEGMENT, ...user, "--for", `${process.pid}`, "--arrivals"]);
  try {
    return await use(loader);
  } finally {
    loader.close();
    await loader.ended;
  }
}

/** Runs the program to its end, prefixed; returns what it printed. */
async function run(prefix, ...args) {
  const [command, ...rest] = [...prefix, program, ...args];
  const child = spawn(command, rest, {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, MISHAP_SEGMENT: SEGMENT },
  });
  return { finished: finish(child) };
}

async function finish(child) {
  let stdout = "";
  child.stdout.on("data", (text) => {
    stdout += text;
  });
  const [status] = await once(child, "close");
  if (status !== 0) throw new Error(`the program ended with ${status}`);
  return JSON.parse(stdout);
}

/** The same, born in the loader's cgroup. */
async function runInside(loader, prefix, ...args) {
  await loader.join(process.pid);
  const { finished } = await run(prefix, ...args);
  await loader.leave(process.pid);
  return finished;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const times = (value) => `${value.toFixed(3)}×`;

/** The figures of the kernel's side. */
export async function* kernel({ quick }) {
  if (process.getuid() !== 0) throw new Error("loading programs into the kernel needs root");
  build();
  for (const protocol of ["tcp", "udp"]) yield await pingpong(protocol, quick ? 9 : 21);
  for (const protocol of ["tcp", "udp"]) yield await beside(protocol, quick ? 5 : 15);
  yield await connections(20_000, quick ? 2 : 10);
}

/** Bare, inside and outside by turns; nothing is loaded while the bare one runs. */
async function pingpong(protocol, rounds) {
  const pinned = ["taskset", "-c", FIRST_CORE];
  const args = ["pingpong", protocol, TRIPS];
  const bare = async () => (await (await run(pinned, ...args)).finished).trip_ns;
  const watched = () =>
    withLoader(async (loading) => {
      const inside = (await runInside(loading, pinned, ...args)).trip_ns;
      return { inside, outside: await bare() };
    });
  const all = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 0 ? await bare() : undefined;
    const { inside, outside } = await watched();
    const alone = first ?? (await bare());
    all.push({ alone, inside: inside / alone, outside: outside / alone });
  }
  const ratio = median(all.map(({ inside }) => inside));
  const alone = median(all.map((round) => round.alone));
  return {
    figure: `64-byte ping-pong, tag and observe in force: ${protocol.toUpperCase()}`,
    ...{ measured: times(ratio), bound: `≤ ${times(1.1)}`, holds: ratio <= 1.1 },
    note: `bare ${alone.toFixed(0)} ns; a program outside ${times(median(all.map(({ outside }) => outside)))}`,
  };
}

/** A program of nobody's, alone and beside a run whose connections the relay carries. */
async function beside(protocol, rounds) {
  const bare = async () =>
    (await (await run(["taskset", "-c", FIRST_CORE], "pingpong", protocol, TRIPS)).finished).trip_ns;
  const all = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 0 ? await bare() : undefined;
    const [mishap, ...flags] = under("--kernel", "--executor", "relay", "--quiet");
    const watched = spawn(mishap, [...flags, "sh", "-c", "echo; exec sleep 60"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(watched.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    const with_ns = await bare();
    watched.kill();
    await once(watched, "close");
    const alone_ns = first ?? (await bare());
    all.push({ alone_ns, share: with_ns / alone_ns });
  }
  const share = median(all.map((each) => each.share));
  return {
    figure: `64-byte ping-pong beside a run under the relay: ${protocol.toUpperCase()}`,
    ...{ measured: times(share), bound: `≤ ${times(1.02)}`, holds: share <= 1.02 },
    note: `bare ${median(all.map(({ alone_ns }) => alone_ns)).toFixed(0)} ns`,
  };
}

/** The machine may not be up to the rate, which a bare run before it shows. */
async function connections(rate, seconds) {
  const { per_second: bare } = await (await run([], "connections", `${rate}`, `${seconds}`)).finished;
  const { made, seen } = await withLoader(async (loading) => {
    const made = await runInside(loading, [], "connections", `${rate}`, `${seconds}`);
    return { made, seen: (await loading.flows()).summary };
  });
  const sockets = made.sockets + 1; // the listener too
  const [owned, told] = [made.right === made.sockets, seen.closed + seen.lost_events + seen.without_row === sockets];
  const count = (value) => value.toLocaleString("en");
  return {
    figure: `${count(rate)} connections a second for ${seconds} s: events lost`,
    measured: `${count(seen.lost_events)} of ${count(sockets)}`,
    bound: "none, or counted",
    holds: owned && told && made.per_second >= 0.95 * bare,
    note: `${count(Math.round(made.per_second))} a second, bare ${count(bare)}; owner right for ${count(made.right)} of ${count(made.sockets)} sockets${told ? "" : `; ${count(seen.closed)} told`}`,
  };
}
