// `mishap recording shrink`: the fewest faults that still make a command fail. First with a stand-in for runs, which tells
// the command what it is to meet instead of doing it; then with runs.
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { AttemptError } from "../../src/api/attempt.js";
import { type ShrinkOptions, type Shrunk, shrinkRecording, triesFile } from "../../src/api/shrink.js";
import { openRecording, type RecordingHeader } from "../../src/recording/index.js";
import { blockOf, eventOf, header, record } from "../unit/recording/support/recordings.js";
import { mishap, processState, scratchFolder, startMishap, until } from "./cli-harness.js";
import { echoServer } from "./support/programs.js";

const folder = scratchFolder();
let serial = 0;
const newFolder = (): string => {
  const path = join(folder, String(++serial));
  mkdirSync(path);
  return path;
};

const flows = [
  { key: 11n, words: "tcp:127.0.0.1:80#1@0" },
  { key: 12n, words: "tcp:127.0.0.1:80#2@0" },
];
const FAULTS = 60;
const events = Array.from({ length: FAULTS }, (_, unit) => eventOf({ flow: unit % 2, unit, at_ns: unit }));
const run = join(folder, "run.mishap");
const policies: RecordingHeader["policies"] = [{ slot: 0, name: "run", policy: { packet_loss: "9%", rate: "1mbps" } }];

beforeAll(() => record(run, [blockOf(events, flows)], { ...header, policies }));

describe("with a stand-in for runs", () => {
  const standIn = join(folder, "stand-in.mjs");
  const log = join(folder, "log");

  beforeAll(() => {
    const reader = fileURLToPath(new URL("../../dist/recording/index.js", import.meta.url));
    writeFileSync(
      standIn,
      `import { spawnSync } from "node:child_process";
      import { appendFileSync, writeFileSync } from "node:fs";
      import { openRecording } from ${JSON.stringify(reader)};
      const words = process.argv.slice(2);
      const [run, replay, recording, lenient, quiet, json, evidence, end, ...command] = words;
      const shape = [run, replay, lenient, quiet, json, end].join(" ");
      if (shape !== "run --replay --replay-lenient --quiet --json --") throw new Error(shape);
      const { header, ...read } = openRecording(recording);
      const units = [...openRecording(recording).events()].map(({ unit }) => unit);
      appendFileSync(${JSON.stringify(log)}, units.join(" ") + "\\n");
      if (!header.partial) throw new Error("is no part");
      if (command[0] === "no-such-program") {
        console.error("something else\\nmishap: no-such-program: not found in PATH");
        process.exit(127);
      }
      const env = { ...process.env, UNITS: " " + units.join(" ") + " ", RATE: header.policies[0].policy.rate ?? "" };
      const { status } = spawnSync(command[0], command.slice(1), { env, stdio: "inherit" });
      writeFileSync(evidence, JSON.stringify({ exit_code: status }));
      process.exit(status);`,
    );
  });

  /** Fails with a code where all of these units meet their fault. */
  const failsWith = (units: readonly number[], then = "exit 1"): string[] => {
    const tests = units.map((unit) => `case "$UNITS" in *" ${unit} "*) ;; *) exit 0 ;; esac`);
    return ["/bin/sh", "-c", [...tests, then].join("; ")];
  };

  interface Attempted {
    readonly shrunk: Shrunk;
    readonly attempts: string[];
    readonly out: string;
    readonly policyOut: string;
  }

  async function shrunkBy(command: readonly string[], options: Partial<ShrinkOptions> = {}): Promise<Attempted> {
    const into = newFolder();
    writeFileSync(log, "");
    const [out, policyOut] = [join(into, "shrunk.mishap"), join(into, "shrunk.yaml")];
    const shrunk = await shrinkRecording({
      ...{ recording: openRecording(run), command, repeats: 1, out, policyOut },
      ...{ signal: new AbortController().signal, mishap: [process.execPath, standIn], ...options },
    });
    return { shrunk, attempts: readFileSync(log, "utf8").split("\n").slice(0, -1), out, policyOut };
  }

  const leftFolders = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith("mishap-shrink-"));

  it("writes what is left, and leaves nothing else", async () => {
    const before = leftFolders();
    const { shrunk, attempts, out, policyOut } = await shrunkBy(failsWith([7, 44]));
    expect(shrunk).toMatchObject({ kind: "found", faults: FAULTS + 1, found: { confirmed: true } });
    expect(attempts.slice(0, 2)).toEqual([events.map(({ unit }) => unit).join(" "), ""]);
    expect(attempts.at(-1)).toBe("7 44");
    expect(attempts.length).toBe(shrunk.tries + 1);
    const written = openRecording(out);
    expect([...written.events()]).toMatchObject([events[7], events[44]].map((event) => ({ unit: event?.unit })));
    expect(written.header).toMatchObject({ partial: true, policies: [{ policy: { packet_loss: "9%" } }] });
    expect(written.header?.policies[0]?.policy.rate).toBeUndefined();
    expect(statSync(out).mode & 0o777).toBe(0o600);
    expect(readFileSync(policyOut, "utf8")).toMatch(/^# .*\n(#.*\n)+\nshrunk:\n {2}packet_loss: 9%\n {2}decisions:\n/);
    expect(existsSync(triesFile(out))).toBe(false);
    expect(leftFolders()).toEqual(before);
  });

  it("keeps what a policy does without any event", async () => {
    const { shrunk, out } = await shrunkBy(["/bin/sh", "-c", 'test -z "$RATE"']);
    expect(shrunk.found?.left.map(({ key }) => key)).toEqual(["policy 0 rate"]);
    expect(openRecording(out).header?.policies[0]?.policy).toEqual({ packet_loss: "9%", rate: "1mbps" });
  });

  it("takes any exit code of the command for its failure, mishap's own too", async () => {
    for (const code of [2, 125, 127]) {
      const { shrunk } = await shrunkBy(failsWith([9], `exit ${code}`));
      expect(shrunk.found?.left).toMatchObject([{ first: 9 }]);
    }
  });

  it("takes what lasts too long for a failure, and ends all of it", async () => {
    const pids = join(folder, "pids");
    writeFileSync(pids, "");
    const hang = `sleep 100 & echo $! >> ${pids}; trap "" TERM; echo $$ >> ${pids}; while :; do sleep 1; done`;
    const recording = join(newFolder(), "one.mishap");
    await record(recording, [blockOf(events.slice(0, 1), flows)]);
    const { shrunk } = await shrunkBy(failsWith([0], hang), { recording: openRecording(recording), timeoutNs: 1e9 });
    expect(shrunk).toMatchObject({ kind: "found", faults: 1, tries: 2, found: { confirmed: true } });
    const started = readFileSync(pids, "utf8").trim().split("\n").map(Number);
    expect(started.length).toBe(4);
    await until("all are gone", () => started.every((pid) => [undefined, "Z"].includes(processState(pid))));
  });

  it("does not take a failure of mishap for one of the command", async () => {
    const failed = shrunkBy(["no-such-program"]);
    await expect(failed).rejects.toThrow(AttemptError);
    await expect(failed).rejects.toMatchObject({ message: "no-such-program: not found in PATH", exitCode: 127 });
  });

  it("says at which end it does not hold, and writes nothing", async () => {
    for (const [command, kind] of [
      ["true", "passes"],
      ["false", "fails"],
    ] as const) {
      const { shrunk, out } = await shrunkBy([command]);
      expect(shrunk).toMatchObject({ kind, faults: FAULTS + 1 });
      expect([existsSync(out), existsSync(triesFile(out))]).toEqual([false, false]);
    }
    const empty = join(newFolder(), "empty.mishap");
    await record(empty, [], { ...header, policies: [] });
    expect((await shrunkBy(["true"], { recording: openRecording(empty) })).shrunk.kind).toBe("empty");
  });

  it("takes for failing only what fails each time, and stops at the first time that it does not", async () => {
    const odd = join(folder, "odd");
    // Every second time it fails for no reason.
    const flaky = `if test -e ${odd}; then rm ${odd}; exit 1; else touch ${odd}; fi; ${failsWith([7]).at(-1)}`;
    const { shrunk, attempts } = await shrunkBy(["/bin/sh", "-c", flaky], { repeats: 2 });
    expect(shrunk.found?.left).toMatchObject([{ first: 7 }]);
    const runsOf = new Map<string, number>();
    for (const units of attempts) runsOf.set(units, (runsOf.get(units) ?? 0) + 1);
    expect(runsOf.get("7")).toBe(4);
  });

  it("goes on where it was interrupted", async () => {
    const command = failsWith([7, 44]);
    const whole = await shrunkBy(command);
    const into = newFolder();
    const outs = { out: join(into, "shrunk.mishap"), policyOut: join(into, "shrunk.yaml") };
    const stop = new AbortController();
    const reason = new Error("enough");
    const before = leftFolders();
    const broken = shrunkBy(command, {
      ...outs,
      signal: stop.signal,
      onProgress: (tries) => tries === 12 && stop.abort(reason),
    });
    await expect(broken).rejects.toBe(reason);
    expect(leftFolders()).toEqual(before);
    expect(readFileSync(triesFile(outs.out), "utf8").split("\n").length).toBe(1 + 12 + 1);
    appendFileSync(triesFile(outs.out), '{"subset":"cu');
    const known: number[] = [];
    const again = await shrunkBy(command, { ...outs, onStart: (start) => known.push(start.known) });
    expect(known).toEqual([12]);
    expect(again.attempts).toEqual(whole.attempts.slice(12));
    expect(again.shrunk.tries).toBe(whole.shrunk.tries);
    expect(existsSync(triesFile(outs.out))).toBe(false);
  });
});

describe("bad usage", () => {
  it.each<[args: string[], says: string]>([
    [["/no/such/file"], "/no/such/file: there is no such file"],
    [["/etc/passwd"], "/etc/passwd: is no recording"],
    [[run, "--out", run], `--out ${run}: is the file that is read`],
    [[run, "--out", "/no/such/folder/x.mishap"], "--out /no/such/folder/x.mishap: cannot be written"],
    [[run, "--out", join(folder, "x.mishap"), "--policy-out", "x.json"], "--policy-out x.json: must end in .yaml"],
    [[run, "--policy-out", "/no/such/x.yaml"], "--policy-out /no/such/x.yaml: cannot be written"],
    [[run, "--repeats", "0"], "--repeats 0: must be a whole number from 1 to 9999, such as --repeats 3"],
    [[run, "--timeout", "5"], "--timeout 5: "],
    [[run, "--timeout", "0s"], "--timeout 0s: must be longer than nothing"],
    [[run, "--check", " "], '--check "": needs a command'],
    [[run, "--check"], '--check: needs a value, such as --check "npm test"'],
    [[run, "--frob"], "--frob: no such flag"],
  ])("%j gets one sentence", async (args, says) => {
    const { code, stdout, stderr } = await mishap("recording", "shrink", ...args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(`mishap: ${says}`);
    expect(stderr.trim().split("\n").length).toBe(1);
  });

  it("includes a recording that does not say its command, and one without a fault is nothing to shrink", async () => {
    const path = join(newFolder(), "anonymous.mishap");
    await record(path, [], { ...header, command: [], policies: [] });
    const into = ["--out", join(folder, "none.mishap")];
    const unnamed = await mishap("recording", "shrink", path, ...into);
    expect(unnamed).toMatchObject({ code: 2, stdout: "" });
    expect(unnamed.stderr).toContain("does not say which command it is of; say what fails, such as --check");
    const empty = await mishap("recording", "shrink", path, ...into, "--check", "true");
    expect(empty).toMatchObject({ code: 1, stdout: "" });
    expect(empty.stderr).toBe(`mishap: ${path}: holds no fault, so there is nothing to shrink\n`);
  });
});

describe("a client that fails only where two faults come together", () => {
  const client = fileURLToPath(new URL("../programs/replay/flaky.py", import.meta.url));
  const PYTHON = "python3";
  const path = join(folder, "failed.mishap");
  const [out, policyOut] = [join(folder, "found.mishap"), join(folder, "found.yaml")];
  const faults = ["--uplink.latency", "1ms", "--downlink.jitter", "400ms", "--connection-error", "reset:25%"];
  let port = 0; // the same in every run, because it is part of a flow's identity
  let command: string[] = [];

  beforeAll(async () => {
    port = (await echoServer()).port;
    command = [PYTHON, client, String(port)];
    // A seed under which it fails: about every tenth does.
    for (let seed = 1; ; seed++) {
      expect(seed).toBeLessThan(200);
      const flags = ["--quiet", ...faults, "--seed", String(seed), "--record", path];
      if ((await mishap("run", ...flags, "--", ...command)).code === 4) break;
    }
  }, 240_000);

  it("shrinks to exactly these two", async () => {
    const flags = ["--repeats", "2", "--timeout", "30s", "--out", out, "--policy-out", policyOut, "--json"];
    const { code, stdout, stderr } = await mishap("recording", "shrink", path, ...flags);
    expect(code, stderr).toBe(0);
    const said = JSON.parse(stdout);
    expect(said).toMatchObject({ outcome: "found", confirmed: true, file: out, policy_file: policyOut });
    expect(said.faults).toBeGreaterThan(6);
    expect(said.left.length).toBe(2);
    expect(said.left).toMatchObject([
      { flow: `tcp:127.0.0.1:${port}#3@0`, direction: "downlink", op: "recv", verdict: "delay", fault: "jitter" },
      { flow: `tcp:127.0.0.1:${port}#5@0`, verdict: "error", fault: "connection_error" },
    ]);
    expect(stderr).toMatch(
      /^shrink: 0 tries · \d+ of \d+ faults left\n[\s\S]*shrink: \d+ tries · 2 of \d+ faults left\n$/,
    );
    expect([...openRecording(out).events()].length).toBe(2);
  }, 240_000);

  it("fails with what is left, as a recording and as a policy", async () => {
    const replayed = await mishap("run", "--quiet", "--replay", out, "--replay-lenient", "--", ...command);
    expect(replayed).toMatchObject({ code: 4 });
    const policy = ["--policies", policyOut, "--policy", "shrunk"];
    expect(await mishap("run", "--quiet", ...policy, "--", ...command)).toMatchObject({ code: 4 });
  });

  it("says what is left in words, of the check that is given", async () => {
    const flags = ["--check", command.join(" "), "--repeats", "2", "--out", out];
    const { code, stdout } = await mishap("recording", "shrink", path, ...flags);
    expect(code).toBe(0);
    const lines = stdout.trim().split("\n");
    expect(lines.length).toBe(4);
    expect(lines[0]).toContain("jitter");
    expect(lines[1]).toContain("connection_error");
    expect(lines[2]).toMatch(/: 2 of \d+ faults, after \d+ tries$/);
    expect(lines[3]).toContain(`mishap run --policies ${policyOut} --policy shrunk -- ${command.join(" ")}`);
  }, 240_000);

  it("interrupted leaves what it knows, and goes on with it", async () => {
    const into = join(newFolder(), "shrunk.mishap");
    const shrinking = startMishap(["recording", "shrink", path, "--out", into]);
    const known = (): number =>
      existsSync(`${into}.tries`) ? readFileSync(`${into}.tries`, "utf8").split("\n").length - 2 : 0;
    await until("some subsets were tried", () => known() >= 4, 60_000);
    process.kill(shrinking.pid, "SIGINT");
    const { code, stderr } = await shrinking.finished;
    expect(code).toBe(130);
    expect(stderr).toMatch(
      /mishap: interrupted after \d+ tries; the same command goes on from there, with .*\.tries\n$/,
    );
    expect(existsSync(into)).toBe(false);
    const before = known();
    const again = await mishap("recording", "shrink", path, "--out", into);
    expect(again.stderr).toContain(`mishap: ${into}.tries: goes on, with ${before} tries known\n`);
    expect(existsSync(`${into}.tries`)).toBe(false);
  }, 240_000);

  it("is told apart from one that fails for another reason, and one that does not fail", async () => {
    const passes = await mishap("recording", "shrink", path, "--check", "true", "--out", out);
    expect(passes.code).toBe(1);
    expect(passes.stderr).toMatch(
      /mishap: \S+: with all \d+ faults `true` does not fail; was it recorded with the same command\?\n$/,
    );
    const fails = await mishap("recording", "shrink", path, "--check", "false", "--out", out);
    expect(fails.code).toBe(1);
    expect(fails.stderr).toMatch(/`false` fails without any fault, so there is nothing to shrink to\n$/);
    const absent = await mishap("recording", "shrink", path, "--check", "no-such-program-anywhere", "--out", out);
    expect(absent).toMatchObject({ code: 127 });
    expect(absent.stderr).toContain("mishap: no-such-program-anywhere: not found in PATH\n");
  });
});
