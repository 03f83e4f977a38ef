// Runs recorded: nothing that was decided is missing, a run that is killed leaves what it decided, and a gap is said.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { type EventBlock, openRecording, type Recording } from "../../src/recording/index.js";
import { nameOf, numberOf } from "../../src/segment/index.js";
import { evidenceOf, mishap, scratchFolder, start, startMishap, until } from "./cli-harness.js";
import { compile, freePort } from "./support/programs.js";

const folder = scratchFolder();
let program = "";
let serial = 0;

beforeAll(async () => {
  program = await compile(folder, "flows.c");
});

const WORKERS = 8;
const FLOWS = 2;

/** Threads that send datagrams as fast as they can, each on flows of its own. */
async function sends(units: number, flows = FLOWS): Promise<string[]> {
  return [program, "threads", "udp", String(await freePort()), String(WORKERS), String(flows), String(units)];
}

const newFile = (): string => join(folder, `run-${++serial}.mishap`);

/** Calls back for each event of a recording, with its block and its place there. */
function eachEvent(recording: Recording, visit: (events: EventBlock["events"], at: number) => void): void {
  for (const { events } of recording.blocks()) for (let at = 0; at < events.count; at++) visit(events, at);
}

describe("a recording", () => {
  it("of every op of eight threads at full speed lacks none, in each flow's order", async () => {
    const units = 20_000;
    const file = newFile();
    const command = await sends(units);
    const flags = ["--packet-loss", "10%", "--seed", "0x2a", "--record", file, "--record-all"];
    const { code, evidence } = await evidenceOf(folder, flags, command);
    expect(code).toBe(0);
    expect(evidence.notes).toEqual([]);

    const recording = openRecording(file);
    expect(recording.wholeness).toMatchObject({ damaged_bytes: 0, truncated: false, end: true });
    expect(recording.wholeness.bytes).toBe(statSync(file).size);
    const next = new Map<number, number>();
    let [lost, outOfOrder, other] = [0, 0, 0];
    const drop = numberOf("Verdict", "drop");
    const send = numberOf("OpKind", "send");
    eachEvent(recording, ({ flow, op, unit, verdict, bytes }, at) => {
      const of = flow[at] ?? -1;
      const expected = next.get(of) ?? 0;
      if (unit[at] !== expected) outOfOrder++;
      next.set(of, expected + 1);
      if (verdict[at] === drop) lost++;
      if (op[at] !== send || bytes[at] === 0) other++;
    });
    expect([...next.values()]).toEqual(Array(WORKERS * FLOWS).fill(units));
    expect({ outOfOrder, other }).toEqual({ outOfOrder: 0, other: 0 });
    expect(lost).toBe(evidence.faults[0]?.applied);
    expect(recording.end).toMatchObject({
      exit_code: 0,
      flows: WORKERS * FLOWS,
      events: WORKERS * FLOWS * units,
      lost: 0,
      ops: evidence.ops,
      duration_ms: evidence.duration_ms,
      determinism: evidence.determinism,
    });
  });

  it("holds what the journal holds, in its order, with times and sizes", async () => {
    const file = newFile();
    const journal = join(folder, "lines.jsonl");
    const faults = ["--packet-loss", "20%", "--packet-duplicate", "10%:2", "--packet-reorder", "10%:2"];
    const { evidence } = await evidenceOf(
      folder,
      [...faults, "--record", file, "--journal", journal],
      await sends(500),
    );
    const lines = readFileSync(journal, "utf8").split("\n").slice(0, -1);
    expect(lines.length).toBeGreaterThan(1000);

    const recording = openRecording(file);
    const seen: string[] = [];
    const latest = evidence.duration_ms * 1e6 + 1e9;
    let untimely = 0;
    for (const event of recording.events()) {
      const { unit, value } = event;
      const words = {
        flow: recording.flow(event.flow)?.words,
        direction: nameOf("Direction", event.direction),
        op: nameOf("OpKind", event.op),
        unit,
        stage: nameOf("Stage", event.stage),
        verdict: nameOf("Verdict", event.verdict),
        fault: nameOf("Fault", event.fault),
        value,
      };
      seen.push(JSON.stringify(words));
      if (!(event.at_ns > 0 && event.at_ns < latest) || event.bytes === 0) untimely++;
    }
    expect(seen).toEqual(lines);
    expect(untimely).toBe(0);
  });

  it("begins with what the run was, and nothing of its environment", async () => {
    const file = newFile();
    const secret = "word-of-the-environment";
    const command = await sends(10);
    const flags = ["--packet-loss", "5%", "--target", "udp://127.0.0.1", "--seed", "7", "--record", file];
    const run = startMishap(["run", "--quiet", ...flags, "--", ...command], { env: { MISHAP_TEST_SECRET: secret } });
    expect((await run.finished).code).toBe(0);
    const { header } = openRecording(file);
    expect(header).toMatchObject({ command, seed: "0x7", record_all: false, setpriority: false });
    expect(header?.policies).toEqual([
      { slot: 0, name: "run", policy: { packet_loss: "5%", seed: "7", targets: ["udp://127.0.0.1"] } },
    ]);
    expect(header?.machine.node).toBe(process.version);
    expect(Math.abs(Date.parse(header?.started ?? "") - Date.now())).toBeLessThan(60_000);
    expect(JSON.stringify(header)).not.toContain(secret);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it("of a run that is killed holds what was decided up to its last second", async () => {
    const file = newFile();
    const run = startMishap(["run", "--quiet", "--record", file, "--record-all", "--", ...(await sends(2e9))]);
    try {
      await until("something is recorded", () => existsSync(file) && statSync(file).size > 200_000, 20_000);
      const killed = Date.now();
      process.kill(run.pid, "SIGKILL");
      await until("mishap is gone", () => run.child.signalCode !== null);
      const recording = openRecording(file);
      expect(recording.end).toBeUndefined();
      expect(recording.wholeness).toMatchObject({ end: false });
      let last = 0;
      eachEvent(recording, ({ at_ns }, at) => {
        last = Math.max(last, at_ns[at] ?? 0);
      });
      expect(Date.parse(recording.header?.started ?? "") + last / 1e6).toBeGreaterThan(killed - 1000);
    } finally {
      process.kill(-run.pid, "SIGKILL");
    }
  });

  it("whose reader is stuck holds the program up for a lease, then lets it go on and says what is missing", async () => {
    const file = newFile();
    const units = 120_000;
    const script = `
      import { run } from ${JSON.stringify(fileURLToPath(new URL("../../dist/api/run.js", import.meta.url)))};
      import { parsePolicy } from ${JSON.stringify(fileURLToPath(new URL("../../dist/policy/index.js", import.meta.url)))};
      const [record, ...command] = process.argv.slice(1);
      const done = run({ command, policy: parsePolicy({}), record, recordAll: true });
      setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4000), 300);
      console.log(JSON.stringify(await done));`;
    const args = ["--input-type=module", "-e", script, "--", file, ...(await sends(units, 1))];
    const { stdout, code } = await start(process.execPath, args).finished;
    expect(code).toBe(0);
    const evidence = JSON.parse(stdout);
    const recording = openRecording(file);
    expect(recording.lost).toBeGreaterThan(0);
    expect(evidence.exit_code).toBe(0);
    expect(evidence.notes).toEqual([
      `the recording lacks ${recording.lost} events: there was no room for them within 2 s`,
    ]);
    expect((recording.end?.events ?? 0) + recording.lost).toBe(WORKERS * units);
  });
});

describe("--record", () => {
  it("is refused where it cannot be written, before the program starts", async () => {
    const file = join(folder, "no", "run.mishap");
    const { code, stderr } = await mishap("run", "--record", file, "--", "touch", join(folder, "touched"));
    expect(code).toBe(2);
    expect(stderr).toBe(`mishap: --record ${file}: cannot be written (ENOENT); a path such as ./run.mishap can\n`);
    expect(existsSync(join(folder, "touched"))).toBe(false);
  });

  it("leaves no file of a run that did not begin", async () => {
    const file = newFile();
    expect((await mishap("run", "--record", file, "--", "/dev/null")).code).toBe(126);
    expect(existsSync(file)).toBe(false);
  });

  it.each(["--record-all", "--record-payload"])("is what %s needs", async (flag) => {
    const { code, stderr } = await mishap("run", flag, "--", "true");
    expect(code).toBe(2);
    expect(stderr).toBe(`mishap: ${flag}: says how much is recorded, and --record run.mishap where\n`);
  });
});
