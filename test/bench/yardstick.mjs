// The yardstick, driven: builds test/bench/yardstick.c, runs it bare or under mishap, and reads what it measured.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const source = fileURLToPath(new URL("yardstick.c", import.meta.url));
const folder = fileURLToPath(new URL("../../build/bench", import.meta.url));
/** The program itself. */
export const yardstick = join(folder, "yardstick");
const mishap = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/** The program bare. */
export const BARE = [];
/** The program under `mishap run` with these flags. */
export const under = (...flags) => [process.execPath, mishap, "run", "--quiet", ...flags, "--"];

/** Compiles the yardstick unless that was done already. */
export function build() {
  if (existsSync(yardstick) && statSync(yardstick).mtimeMs > statSync(source).mtimeMs) return;
  mkdirSync(folder, { recursive: true });
  const { status, stderr, error } = spawnSync("cc", ["-O2", "-pthread", "-o", yardstick, source], { encoding: "utf8" });
  if (status !== 0) throw new Error(`the yardstick could not be compiled: ${error?.message ?? stderr}`);
}

/** Runs one measurement to its end; returns the objects it printed. */
export function measure(prefix, mode, options = {}) {
  const [command, ...args] = [...prefix, yardstick, mode, ...pairs(options)];
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", timeout: 120_000 });
  if (status !== 0) throw new Error(`yardstick ${mode} ended with ${status}: ${stderr.trim()}`);
  return stdout.trim().split("\n").map(JSON.parse);
}

/** Rounds on demand from several yardsticks at once, each in turn, so that all meet the same machine. */
export async function interleaved(prefixes, mode, options, rounds) {
  const running = prefixes.map((prefix) => start(prefix, mode, options));
  try {
    for (const each of running) await each.round(); // the first warms up
    const results = [];
    for (let i = 0; i < rounds; i++) {
      const round = new Array(running.length);
      // Every other round runs the other way, so that no place in the order is favoured.
      const order = [...running.keys()];
      if (i % 2 === 1) order.reverse();
      for (const at of order) round[at] = await running[at].round();
      results.push(round);
    }
    return results;
  } finally {
    await Promise.all(running.map((each) => each.end()));
  }
}

function start(prefix, mode, options) {
  const [command, ...args] = [...prefix, yardstick, mode, ...pairs(options)];
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.stdin.on("error", () => {}); // a yardstick that ended is noticed by the line it does not print
  const closed = new Promise((resolve) => child.on("close", resolve));
  return {
    async round() {
      child.stdin.write("\n");
      const { value, done } = await lines.next();
      if (done) throw new Error(`yardstick ${mode} ended before its round`);
      return JSON.parse(value);
    },
    end() {
      child.stdin.end();
      return closed;
    },
  };
}

/**
 * Instructions one more call takes, by call: what a loop of 2n calls executed less what one of n did, over n. Exact, as
 * callgrind counts; what the kernel executes is not in it.
 */
export function instructionsPerCall(prefix, sock) {
  const n = 100;
  const scratch = mkdtempSync(join(tmpdir(), "mishap-bench-"));
  try {
    const callgrind = ["valgrind", "-q", "--tool=callgrind", `--callgrind-out-file=${join(scratch, "out")}`];
    measureQuietly([...prefix, ...callgrind, yardstick, "instructions", `sock=${sock}`, `n=${n}`]);
    const counts = new Map();
    for (const name of readdirSync(scratch)) {
      const text = readFileSync(join(scratch, name), "utf8");
      const label = /^desc: Trigger: Client Request: \w+ (\w+ \d+)$/m.exec(text)?.[1];
      const total = /^totals: (\d+)$/m.exec(text)?.[1];
      if (label && total) counts.set(label, Number(total));
    }
    const calls = [...counts.keys()].filter((label) => label.endsWith(` ${n}`)).map((label) => label.split(" ")[0]);
    if (calls.length === 0) throw new Error("callgrind wrote no counts");
    return new Map(calls.map((call) => [call, (counts.get(`${call} ${2 * n}`) - counts.get(`${call} ${n}`)) / n]));
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** How many instructions more each call takes under mishap than bare. */
export function instructionsAdded(prefix, sock) {
  const bare = instructionsPerCall(BARE, sock);
  return new Map(
    [...instructionsPerCall(prefix, sock)].map(([call, count]) => [
      call,
      Math.round((count - bare.get(call)) * 100) / 100,
    ]),
  );
}

function measureQuietly([command, ...args]) {
  const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8", timeout: 120_000 });
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${error?.message ?? stderr.trim()}`);
}

const pairs = (options) => Object.entries(options).map(([key, value]) => `${key}=${value}`);
