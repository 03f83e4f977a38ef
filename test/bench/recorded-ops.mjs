// What being recorded costs a program that does 200,000 ops a second: the same program under mishap, observed, recorded and
// neither by turns. Under mishap and not recorded it does that many, for the work between its ops is made so.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const pathOf = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const mishap = pathOf("../../dist/cli/main.js");
const folder = pathOf("../../build/bench");
const program = join(folder, "ops");
const OP_NS = 5000;
const FLAGS = ["--packet-loss", "1%", "--seed", "1"];

function build() {
  const source = pathOf("ops.c");
  if (existsSync(program) && statSync(source).mtimeMs < statSync(program).mtimeMs) return;
  mkdirSync(folder, { recursive: true });
  const { status, stderr, error } = spawnSync("gcc", ["-std=gnu17", "-O2", "-o", program, source], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the program could not be compiled: ${error?.message ?? stderr}`);
}

/** Runs the program under mishap; what it printed. */
function run(ops, spins, flags) {
  const args = [mishap, "run", "--quiet", ...FLAGS, ...flags, "--", program, `${ops}`, `${spins}`];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the program ended with ${status}: ${stderr}`);
  return JSON.parse(stdout);
}

/** Spins between two ops, so that each takes OP_NS. */
function calibrated(ops) {
  const bare = run(ops, 0, []);
  return Math.max(0, Math.round((OP_NS - bare.ns / ops) / bare.spin_ns));
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** The figures, written into a folder of the caller's. */
export async function* recordedOps({ quick, into }) {
  build();
  const [ops, rounds] = quick ? [100_000, 1] : [1_000_000, 7];
  const spins = calibrated(ops);
  const ways = {
    "recording all ops": { bound: 1.25, flags: ["--record", join(into, "ops.mishap"), "--record-all"], ratios: [] },
    "observing decisions": { bound: 1.03, flags: ["--journal", join(into, "ops.jsonl")], ratios: [] },
  };
  const rates = [];
  for (let round = 0; round < rounds; round++) {
    const { ns } = run(ops, spins, []);
    rates.push((ops / ns) * 1e9);
    for (const way of Object.values(ways)) way.ratios.push(run(ops, spins, way.flags).ns / ns);
  }
  for (const [what, { bound, ratios }] of Object.entries(ways)) {
    const ratio = median(ratios);
    yield {
      figure: `${what} of a program doing 200,000 a second`,
      ...{ measured: `${ratio.toFixed(3)}×`, bound: `≤ ${bound}×`, holds: ratio <= bound },
      note: `${Math.round(median(rates)).toLocaleString("en")} ops a second without; of them 1 % are lost`,
    };
  }
}
