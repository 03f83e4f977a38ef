// Replays: what a recording decided is decided again at the same places, whatever threads and clocks do, and a program that
// does otherwise is told from one that does not.
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { diffOf, openRecording } from "../../src/recording/index.js";
import { evidenceOf, type Finished, mishap, scratchFolder, start, startMishap } from "./cli-harness.js";
import { echoServer, type Peer } from "./support/programs.js";

const folder = scratchFolder();
const programs = fileURLToPath(new URL("../programs/replay/", import.meta.url));
let server: Peer;
let serial = 0;

beforeAll(async () => {
  server = await echoServer();
});

const hogs: ChildProcess[] = [];
/** Work for every processor. */
function busy(): void {
  for (let i = 0; i < availableParallelism(); i++) hogs.push(spawn("sh", ["-c", "while :; do :; done"]));
}
afterEach(() => {
  for (const hog of hogs.splice(0)) hog.kill("SIGKILL");
});

const newFile = (): string => join(folder, `run-${++serial}.mishap`);
const client = (name: string, ...args: string[]): string[] => {
  const interpreter = name.endsWith(".py") ? "python3" : process.execPath;
  return [interpreter, join(programs, name), String(server.port), ...args];
};

/** A recording of a command, and how it ended. */
async function recorded(flags: readonly string[], command: readonly string[]) {
  const file = newFile();
  const end = await mishap("run", "--quiet", "--record", file, ...flags, "--", ...command);
  return { file, ...end };
}

/** Runs a recording again; how it ended, its evidence, and what was decided then. */
async function replayed(file: string, flags: readonly string[] = [], command?: readonly string[]) {
  const again = newFile();
  const words = command ?? openRecording(file).header?.command ?? [];
  const end = await evidenceOf(folder, ["--replay", file, "--record", again, ...flags], words);
  return { ...end, again };
}

const STORM = [
  ...["--latency", "2ms", "--jitter", "3ms", "--packet-loss", "10%", "--loss-mode", "drop", "--seed", "11"],
  ...["--connection-error", "reset:1%", "--half-open", "20kb", "--timeout.recv", "400ms"],
];

describe("a recording decides again what it decided:", () => {
  it.each([
    ["Python with eight threads", () => client("threads.py"), ["--jitter", "4ms", "--packet-loss", "8%"]],
    [
      "Python, with resets and conversations that end",
      () => client("threads.py"),
      [
        "--jitter",
        "2ms",
        "--connection-error",
        "reset:2%",
        "--session-budget.max-rx",
        "9kb",
        "--session-budget.action",
        "connection_error",
      ],
    ],
    [
      "Node with worker threads",
      () => client("workers.mjs"),
      ["--latency", "3ms", "--jitter", "4ms", "--packet-loss", "8%", "--connection-error", "reset:2%"],
    ],
  ])("%s", async (_, command, flags) => {
    const first = await recorded([...flags, "--seed", "5"], command());
    const before = openRecording(first.file);
    busy();
    for (let time = 0; time < 2; time++) {
      const { code, evidence, again } = await replayed(first.file);
      expect(evidence.replay).toEqual({
        source: first.file,
        decisions: expect.any(Number),
        met: evidence.replay?.decisions,
        unmet: 0,
        unknown: 0,
      });
      expect(evidence.replay?.decisions).toBeGreaterThan(100);
      expect(evidence.determinism.level).toBe("exact");
      expect(code).toBe(first.code);
      const found = diffOf(before, openRecording(again));
      expect(found.differences).toEqual([]);
    }
  });

  it("redis-benchmark at eight clients", async () => {
    const port = server.port + 1 > 65_000 ? server.port - 1 : server.port + 1;
    const redis = start("redis-server", [
      "--port",
      String(port),
      "--save",
      "",
      "--appendonly",
      "no",
      "--bind",
      "127.0.0.1",
    ]);
    try {
      await redis.says("Ready to accept connections");
      const command = ["redis-benchmark", "-p", String(port), "-c", "8", "-n", "160", "-t", "set", "-q"];
      // Which client gets the last requests is a race, unless none is a whole round trip ahead of another.
      const flags = ["--latency", "20ms", "--jitter", "1ms", "--seed", "1"];
      const first = await recorded(flags, command);
      for (let time = 0; time < 2; time++) {
        const { code, evidence, again } = await replayed(first.file);
        expect(evidence.replay).toMatchObject({ met: evidence.replay?.decisions, unmet: 0, unknown: 0 });
        expect(code).toBe(0);
        expect(diffOf(openRecording(first.file), openRecording(again)).differences).toEqual([]);
      }
    } finally {
      redis.child.kill("SIGKILL");
    }
  });

  it("what hung on the clock, too: a schedule, and a budget of time", async () => {
    const flags = ["--latency", "30ms", "--jitter", "20ms", "--schedule", "flapping:20ms/5ms", "--seed", "3"];
    const first = await recorded(flags, client("threads.py"));
    const budget = [
      "--latency",
      "10ms",
      "--session-budget.max-duration",
      "150ms",
      "--session-budget.action",
      "connection_error",
    ];
    const second = await recorded(budget, client("threads.py"));
    busy();
    for (const { file } of [first, second]) {
      const { evidence, again } = await replayed(file);
      expect(evidence.replay).toMatchObject({ met: evidence.replay?.decisions, unmet: 0, unknown: 0 });
      expect(evidence.replay?.decisions).toBeGreaterThan(10);
      expect(diffOf(openRecording(file), openRecording(again)).differences).toEqual([]);
    }
  });

  it("of everything at once", async () => {
    const { file } = await recorded(STORM, client("threads.py"));
    const { evidence, again } = await replayed(file);
    expect(evidence.replay?.divergence).toBeUndefined();
    expect(diffOf(openRecording(file), openRecording(again)).differences).toEqual([]);
    expect(evidence.determinism.reason).toContain("how long a rate or a timeout made it wait hangs on the clock");
  });

  it("with nothing but the file, from anywhere", async () => {
    const { file } = await recorded(["--latency", "5ms", "--packet-loss", "5%"], client("threads.py"));
    const elsewhere = join(folder, "elsewhere");
    mkdirSync(elsewhere);
    const copy = join(elsewhere, "copy.mishap");
    copyFileSync(file, copy);
    const { code, stderr } = await start("sh", [
      "-c",
      `cd ${elsewhere} && exec ${process.execPath} ${MISHAP_MAIN} run --replay copy.mishap`,
    ]).finished;
    expect(code).toBe(0);
    expect(stderr).toMatch(/replay +(\d[\d,]*) of \1 decisions met\n/);
  });

  it("and a flaky failure fails in 20 of 20 replays, on a busy machine", { timeout: 240_000 }, async () => {
    const failure = await flakyFailure();
    busy();
    for (let time = 0; time < 20; time++) {
      const { code, stdout } = await mishap("run", "--quiet", "--replay", failure.file);
      expect(stdout).toBe(failure.stdout);
      expect(code).toBe(4);
    }
  });
});

const MISHAP_MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/** Records the flaky client under chance until it fails. */
async function flakyFailure(): Promise<Finished & { file: string }> {
  const flags = ["--downlink.jitter", "400ms", "--connection-error", "reset:25%"];
  for (let seed = 1; seed < 200; seed++) {
    const run = await recorded([...flags, "--seed", String(seed)], client("flaky.py"));
    if (run.code === 4) return run;
  }
  throw new Error("the flaky client never failed");
}

it("a server that took any free port is known again at another", async () => {
  const flags = ["--latency", "2ms", "--jitter", "2ms", "--packet-loss", "5%", "--seed", "4"];
  const { file } = await recorded(flags, client("threads.py"));
  const other = await echoServer();
  const [python = "", script = ""] = client("threads.py");
  const { code, evidence, again } = await replayed(file, [], [python, script, String(other.port)]);
  expect(code).toBe(0);
  expect(evidence.replay).toMatchObject({ met: evidence.replay?.decisions, unmet: 0, unknown: 0 });
  expect(evidence.replay?.decisions).toBeGreaterThan(100);
  expect(diffOf(openRecording(file), openRecording(again)).differences).toEqual([]);
});

describe("a program that does otherwise", () => {
  it("is ended with exit code 3 where it opens a flow that was not there", async () => {
    const { file } = await recorded(["--latency", "2ms", "--seed", "1"], client("threads.py"));
    const { code, evidence, stderr } = await replayed(file, [], client("threads.py", "4"));
    expect(code).toBe(3);
    const flow = "tcp:127.0.0.1:*#4@0.3";
    expect(evidence.replay?.divergence).toEqual({
      flow,
      recorded: expect.stringContaining("no such flow"),
      seen: "it was opened",
    });
    expect(evidence.determinism.level).toBe("per flow");
    expect(stderr).toContain(`first not as decided: ${flow}: decided was no such flow`);
  });

  it("where it leaves out what was decided", async () => {
    const { file } = await recorded(["--latency", "2ms", "--seed", "1"], client("threads.py"));
    const fewer = await replayed(file, [], client("threads.py", "2"));
    expect(fewer.code).toBe(3);
    expect(fewer.evidence.replay?.divergence).toMatchObject({
      flow: "tcp:127.0.0.1:*#3@0.3",
      seen: "the flow was never opened",
    });
    const shorter = await replayed(file, [], client("threads.py", "3", "5"));
    expect(shorter.code).toBe(3);
    expect(shorter.evidence.replay?.divergence).toMatchObject({
      flow: expect.stringContaining("@0.3"),
      seen: "the flow never came to it",
    });
  });

  it("where every op was recorded, and it does one more", async () => {
    const { file } = await recorded(["--packet-loss", "1%", "--record-all", "--seed", "1"], client("threads.py"));
    expect((await replayed(file)).code).toBe(0);
    const { code, evidence } = await replayed(file, [], client("threads.py", "3", "30"));
    expect(code).toBe(3);
    expect(evidence.replay?.divergence).toMatchObject({
      flow: expect.stringContaining("@0.3"),
      recorded: expect.stringMatching(/^no (send|recv) beyond unit \d+$/),
    });
  });

  it("goes on under --replay-lenient, to its own exit code, and is counted", async () => {
    const { file } = await recorded(["--latency", "2ms", "--seed", "1"], client("threads.py"));
    const { code, evidence } = await replayed(file, ["--replay-lenient"], client("threads.py", "5"));
    expect(code).toBe(0);
    expect(evidence.replay).toMatchObject({ unmet: 0, unknown: 2 });
    expect(evidence.replay?.divergence?.seen).toBe("it was opened");
  });

  it("leaves nothing of it running", async () => {
    const { file } = await recorded(["--latency", "2ms", "--seed", "1"], ["sh", "-c", "true"]);
    const stubborn = `trap '' TERM; python3 ${join(programs, "threads.py")} ${server.port}; sleep 60 & wait`;
    const { code, evidence } = await replayed(file, [], ["sh", "-c", stubborn]);
    expect(code).toBe(3);
    expect(evidence.exit_code).toBe(137);
    expect(evidence.duration_ms).toBeLessThan(20_000);
  });
});

describe("a part of a recording", () => {
  it("is all that happens, and what it does not know is no divergence", async () => {
    const { file } = await recorded(["--latency", "2ms", "--packet-loss", "10%", "--seed", "1"], client("threads.py"));
    const part = newFile();
    await mishap("recording", "cut", file, "--fault", "packet_loss", "--out", part);
    const { code, evidence } = await replayed(part);
    expect(code).toBe(0);
    expect(evidence.replay).toMatchObject({ met: evidence.replay?.decisions, unmet: 0, unknown: 0 });
    expect(evidence.faults.find(({ fault }) => fault === "latency")?.applied).toBe(0);
    expect(evidence.faults.find(({ fault }) => fault === "packet_loss")?.applied).toBe(evidence.replay?.decisions);
  });

  it("may be a policy's list", async () => {
    const flow = `tcp:127.0.0.1:${server.port}`;
    const at = (n: number, rest: object): object => ({
      flow: `${flow}#${n}@0`,
      direction: "downlink",
      op: "recv",
      unit: 0,
      ...rest,
    });
    const policy = {
      latency: "1ms",
      connection_error: { kind: "reset" },
      decisions: [
        at(3, { stage: "chaos_base", verdict: "delay", fault: "latency", value: 300_000_000 }),
        at(5, { stage: "transport", verdict: "error", fault: "connection_error" }),
      ],
    };
    const file = join(folder, "policies.json");
    writeFileSync(file, JSON.stringify({ two: policy }));
    const { code, evidence, stdout } = await evidenceOf(
      folder,
      ["--policies", file, "--policy", "two"],
      client("flaky.py"),
    );
    expect(stdout).toBe("slow [3] reset [5]\n");
    expect(code).toBe(4);
    expect(evidence.replay).toMatchObject({ decisions: 2, met: 2, unmet: 0 });
  });
});

describe("what cannot be replayed is said before anything starts:", () => {
  it.each([
    [["--replay", "nowhere.mishap"], "there is no such file"],
    [["--replay", fileURLToPath(import.meta.url)], "is no recording"],
    [["--replay", "x.mishap", "--latency", "5ms"], "the recording says which faults there are; leave out latency"],
    [["--replay", "x.mishap", "--policy", "lossy_wifi"], "leave out policy"],
    [["--replay-lenient"], "--replay run.mishap which one"],
  ])("%j", async (flags, sentence) => {
    const { code, stderr } = await mishap("run", ...flags, "--", "true");
    expect(code).toBe(2);
    expect(stderr).toContain(sentence);
  });

  it("a recording of a journal", async () => {
    const [journal, file] = [join(folder, "decisions.jsonl"), newFile()];
    await mishap("run", "--quiet", "--journal", journal, "--latency", "1ms", "--", ...client("threads.py"));
    await mishap("recording", "import", journal, "--out", file);
    const { code, stderr } = await startMishap(["run", "--replay", file]).finished;
    expect(code).toBe(2);
    expect(stderr).toContain("holds no policies");
  });
});
