// What a recording takes on disk, how long it takes to sum one up: a million decisions of a plausible mix, written by the
// writer that runs use and read by `mishap recording stats` as a user calls it. And what it costs the program that is
// recorded (recorded-ops.mjs).
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BlockBuilder, FAULT_WORDS, OPS, RecordingWriter, STAGES, VERDICTS } from "../../dist/recording/index.js";
import { recordedOps } from "./recorded-ops.mjs";

const mishap = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const EVENTS = 1_000_000;
const FLOWS = 20;
const [SEND, RECV] = ["send", "recv"].map((word) => OPS.indexOf(word));
const stage = (word) => STAGES.indexOf(word);
const verdict = (word) => VERDICTS.indexOf(word);
const fault = (word) => FAULT_WORDS.indexOf(word);

/** Marsaglia's xorshift: the same numbers on every machine. */
function randomNumbers(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * The decisions of 20 flows under `--jitter 5ms --packet-loss 1% --connection-error reset:0.1%`: for each unit of a
 * flow a jitter drawn in nanoseconds, one in a hundred lost, one in a thousand reset; sizes as a program's, half full
 * segments; from 1 to 20 µs apart.
 */
async function record(path) {
  const random = randomNumbers(0x7f3a);
  const writer = await RecordingWriter.create(path, header());
  const builder = new BlockBuilder();
  const { events } = builder;
  const units = new Float64Array(2 * FLOWS);
  let atNs = 0;
  for (let i = 0; i < EVENTS; i++) {
    const flow = Math.floor(random() * FLOWS);
    const direction = random() < 0.5 ? 0 : 1;
    const chance = random();
    atNs += 1000 + Math.floor(random() * 19_000);
    const at = events.count++;
    events.flow[at] = builder.flowNumber(BigInt(flow + 1), `tcp:127.0.0.1:8080#${flow + 1}@0`);
    events.op[at] = direction === 0 ? SEND : RECV;
    events.direction[at] = direction;
    events.unit[at] = units[2 * flow + direction]++;
    events.bytes[at] = random() < 0.5 ? 1448 : 1 + Math.floor(random() * 1447);
    events.policy[at] = 0;
    events.at_ns[at] = atNs;
    const drawn = Math.floor(random() * 5e6);
    const [of, what, why, value] =
      chance < 0.01
        ? [stage("chaos_base"), verdict("drop"), fault("packet_loss"), 0]
        : chance < 0.011
          ? [stage("transport"), verdict("error"), fault("connection_error"), 0]
          : [stage("timing"), verdict("delay"), fault("jitter"), drawn];
    events.stage[at] = of;
    events.verdict[at] = what;
    events.fault[at] = why;
    events.value[at] = value;
    if (builder.full || i === EVENTS - 1) {
      await writer.write(builder.block());
      builder.clear();
    }
  }
  await writer.end({ exit_code: 0, duration_ms: atNs / 1e6 });
}

function header() {
  const policy = { jitter: "5ms", packet_loss: "1%", connection_error: { kind: "reset", prob: "0.1%" } };
  return {
    ...{ version: 1, mishap: "0", command: ["./app"], seed: "0x7f3a", policies: [{ slot: 0, name: "run", policy }] },
    ...{ layout_hash: "0x0", machine: { kernel: "", arch: "", cpus: 1, node: process.version } },
    ...{ started: new Date(0).toISOString(), record_all: false, setpriority: false },
  };
}

/** Seconds until `mishap recording stats` is done with it; the process's start is counted. */
function secondsOfStats(path) {
  const startedMs = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [mishap, "recording", "stats", path, "--json"]);
  const seconds = (performance.now() - startedMs) / 1000;
  if (status !== 0) throw new Error(`mishap recording stats failed: ${stderr}`);
  const { events } = JSON.parse(stdout);
  if (events !== EVENTS) throw new Error(`mishap recording stats saw ${events} events of ${EVENTS}`);
  return seconds;
}

/** The figures of recordings. */
export async function* recording({ quick }) {
  const folder = mkdtempSync(join(tmpdir(), "mishap-bench-"));
  try {
    const path = join(folder, "run.mishap");
    await record(path);
    const perEvent = statSync(path).size / EVENTS;
    yield {
      figure: "recording of 1 M events: bytes an event",
      ...{ measured: perEvent.toFixed(2), bound: "≤ 12", holds: perEvent <= 12 },
      note: "jitter in ns, 1 % lost, 0.1 % reset, 20 flows",
    };
    const all = Array.from({ length: quick ? 1 : 5 }, () => secondsOfStats(path)).sort((a, b) => a - b);
    const seconds = all[all.length >> 1];
    yield {
      figure: "mishap recording stats of 1 M events",
      ...{ measured: `${seconds.toFixed(2)} s`, bound: "≤ 1 s", holds: seconds <= 1 },
      note: "from the command's start to its end",
    };
    yield* recordedOps({ quick, into: folder });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
