/** `mishap recording`, as a user runs it. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import {
  FAULT_WORDS,
  OPS,
  openRecording,
  type RecordedEvent,
  RecordingWriter,
  STAGES,
  VERDICTS,
} from "../../src/recording/index.js";
import { blockOf, endFacts, eventOf, header, record } from "../unit/recording/support/recordings.js";
import { MISHAP, mishap, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();
const at = (name: string): string => join(folder, name);
const flows = [
  { key: 11n, words: "tcp:127.0.0.1:80#1@0" },
  { key: 12n, words: "udp:10.0.0.1:53#1@0.1" },
];
const policies = [
  { slot: 0, name: "slow_link", policy: { latency: "100ms" } },
  { slot: 1, name: "lossy", policy: { packet_loss: "1%" } },
];
const numbers = { stage: STAGES, verdict: VERDICTS, fault: FAULT_WORDS, op: OPS };
type Words = Partial<Record<keyof typeof numbers, string>> & Partial<Omit<RecordedEvent, keyof typeof numbers>>;

function decided({ stage, verdict, fault, op, ...rest }: Words): RecordedEvent {
  const words = {
    stage: stage ?? "chaos_base",
    verdict: verdict ?? "drop",
    fault: fault ?? "packet_loss",
    op: op ?? "send",
  };
  const number = (of: keyof typeof numbers): number => {
    const all: readonly string[] = numbers[of];
    return all.indexOf(words[of]);
  };
  const coded = { stage: number("stage"), verdict: number("verdict"), fault: number("fault"), op: number("op") };
  return eventOf({ ...coded, ...rest });
}

const events = [
  decided({ verdict: "delay", fault: "latency", value: 100_000_000, at_ns: 1_000_000 }),
  decided({ unit: 1, policy: 1, at_ns: 2_000_000_000 }),
  decided({ flow: 1, direction: 1, op: "recv", unit: 2, policy: 1, at_ns: 2_500_000_000, bytes: 512 }),
  decided({ flow: 1, stage: "timing", verdict: "delay", fault: "jitter", unit: 3, value: 4_000, at_ns: 4_000_000_000 }),
];
const run = at("run.mishap");

beforeAll(() => record(run, [blockOf(events, flows)], { ...header, policies }));

const lines = (text: string): string[] => text.split("\n").filter((line) => line !== "");
const json = (text: string): unknown[] => lines(text).map((line): unknown => JSON.parse(line));

describe("show", () => {
  it("prints an event a line", async () => {
    const { code, stdout, stderr } = await mishap("recording", "show", run);
    expect([code, stderr]).toEqual([0, ""]);
    expect(lines(stdout).map((line) => line.trim().split(/\s{2,}/))).toEqual([
      [
        "0.001000s",
        "uplink",
        "send",
        "#0",
        "100 B",
        "chaos_base",
        "delay",
        "latency",
        "100.0ms",
        flows[0]?.words,
        "slow_link",
      ],
      ["2.000000s", "uplink", "send", "#1", "100 B", "chaos_base", "drop", "packet_loss", flows[0]?.words, "lossy"],
      ["2.500000s", "downlink", "recv", "#2", "512 B", "chaos_base", "drop", "packet_loss", flows[1]?.words, "lossy"],
      ["4.000000s", "uplink", "send", "#3", "100 B", "timing", "delay", "jitter", "4µs", flows[1]?.words, "slow_link"],
    ]);
  });

  it.each<[flags: string[], units: number[]]>([
    [[], [0, 1, 2, 3]],
    [
      ["--flow", "udp:"],
      [2, 3],
    ],
    [
      ["--flow", "#1"],
      [0, 1, 2, 3],
    ],
    [["--stage", "timing"], [3]],
    [
      ["--verdict", "drop"],
      [1, 2],
    ],
    [
      ["--fault", "packet-loss"],
      [1, 2],
    ],
    [
      ["--policy", "lossy"],
      [1, 2],
    ],
    [
      ["--policy", "1"],
      [1, 2],
    ],
    [
      ["--from", "2s"],
      [1, 2, 3],
    ],
    [["--to", "2s"], [0]],
    [["--from", "2s", "--to", "2.6s", "--flow", "tcp:"], [1]],
    [
      ["--limit", "3"],
      [0, 1, 2],
    ],
    [["--verdict", "delay", "--limit", "1"], [0]],
    [["--verdict", "error"], []],
  ])("%j means units %j", async (flags, units) => {
    const { code, stdout, stderr } = await mishap("recording", "show", run, "--json", ...flags);
    expect([code, stderr]).toEqual([0, ""]);
    expect(json(stdout)).toMatchObject(units.map((unit) => ({ unit })));
  });

  it("has lines for machines, which hold what the journal's do", async () => {
    const { stdout } = await mishap("recording", "show", run, "--json", "--limit", "1");
    expect(json(stdout)).toEqual([
      {
        ...{ flow: "tcp:127.0.0.1:80#1@0", direction: "uplink", op: "send", unit: 0, stage: "chaos_base" },
        ...{ verdict: "delay", fault: "latency", value: 100_000_000 },
        ...{ policy: "slow_link", bytes: 100, at_ns: 1_000_000 },
      },
    ]);
  });

  it("ends when nobody reads on", async () => {
    const long = at("long.mishap");
    await record(long, [blockOf(Array.from({ length: 60_000 }, (_, unit) => eventOf({ unit })))]);
    const child = spawn(process.execPath, [MISHAP, "recording", "show", long], { stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (text) => {
      stderr += text;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect([code, stderr]).toEqual([0, ""]);
  });
});

describe("stats", () => {
  it("sums up", async () => {
    const { code, stdout, stderr } = await mishap("recording", "stats", run);
    expect([code, stderr]).toEqual([0, ""]);
    const [first, ...rows] = lines(stdout);
    expect(first).toBe(`${run}: 4 events in 4.00s · 2 flows · seed 0x7 · curl -s http://127.0.0.1:18080/`);
    expect(rows.map((row) => row.trim().split(/\s{2,}/))).toEqual([
      ["lossy", "chaos_base", "drop", "packet_loss", "1 up", "1 down", "612 B"],
      ["slow_link", "chaos_base", "delay", "latency", "1 up", "0 down", "100 B", "100.0ms"],
      ["slow_link", "timing", "delay", "jitter", "1 up", "0 down", "100 B", "4µs"],
      ["most events:"],
      [flows[0]?.words, "2 events"],
      [flows[1]?.words, "2 events"],
    ]);
  });

  it("is there for machines", async () => {
    const { stdout } = await mishap("recording", "stats", run, "--json");
    expect(JSON.parse(stdout)).toMatchObject({
      file: run,
      header: { seed: "0x7", command: ["curl", "-s", "http://127.0.0.1:18080/"], policies },
      end: { ...endFacts, events: 4, lost: 0 },
      ...{ events: 4, flows: 2, lost: 0, first_ns: 1_000_000, last_ns: 4_000_000_000 },
      decisions: [{ policy: "lossy", uplink: 1, downlink: 1, bytes: 612 }, {}, {}],
      wholeness: { frames: 3, damaged_bytes: 0, end: true },
    });
  });

  it("of nothing is nothing", async () => {
    await record(at("empty.mishap"), []);
    const { code, stdout } = await mishap("recording", "stats", at("empty.mishap"));
    expect([code, lines(stdout).length]).toEqual([0, 1]);
    expect(stdout).toContain("0 events · 0 flows");
  });
});

describe("diff", () => {
  it("finds no difference in what was only slower, in another order, or numbered otherwise", async () => {
    const [one, two] = flows;
    const later = [2, 3, 0, 1].map((i) => {
      const event = events[i] ?? eventOf({});
      return { ...event, flow: 1 - event.flow, at_ns: 2 * event.at_ns, policy: 7 };
    });
    await record(at("later.mishap"), [
      blockOf(
        later,
        [two, one].flatMap((flow) => flow ?? []),
      ),
    ]);
    expect(await mishap("recording", "diff", run, at("later.mishap"))).toEqual({
      code: 0,
      stdout: "4 the same · 0 different · 0 only in the first · 0 only in the second\n",
      stderr: "",
    });
  });

  it("says what only one has and what is different, by time, and exits 1", async () => {
    const changed = [
      decided({ verdict: "delay", fault: "latency", value: 99_000_000, at_ns: 1_000_000 }),
      ...events.slice(2),
      decided({ unit: 9, at_ns: 3_000_000_000 }),
    ];
    await record(at("changed.mishap"), [blockOf(changed, flows)], { ...header, policies });
    const { code, stdout } = await mishap("recording", "diff", run, at("changed.mishap"));
    expect(code).toBe(1);
    const [counts, ...rows] = lines(stdout);
    expect(counts).toBe("2 the same · 1 different · 1 only in the first · 1 only in the second");
    expect(
      rows.map((row) =>
        row
          .trim()
          .split(/\s{2,}/)
          .at(-1),
      ),
    ).toEqual([
      "delay latency 100.0ms → delay latency 99.0ms",
      "drop packet_loss → nothing",
      "nothing → drop packet_loss",
    ]);
    const { stdout: forMachines } = await mishap("recording", "diff", run, at("changed.mishap"), "--json");
    expect(JSON.parse(forMachines)).toMatchObject({
      ...{ same: 2, different: 1, only_a: 1, only_b: 1 },
      differences: [
        { flow: flows[0]?.words, unit: 0, a: { value: 100_000_000 }, b: { value: 99_000_000 } },
        { unit: 1, a: { verdict: "drop" } },
        { unit: 9, b: { verdict: "drop" } },
      ],
    });
  });

  it("leaves out ops that went on where only one recording has them", async () => {
    const all = [...events, decided({ verdict: "continue", stage: "resolve", unit: 50 })];
    await record(at("all.mishap"), [blockOf(all, flows)], { ...header, policies, record_all: true });
    expect((await mishap("recording", "diff", run, at("all.mishap"))).code).toBe(0);
    const { stdout } = await mishap("recording", "show", at("all.mishap"), "--verdict", "continue", "--json");
    expect(json(stdout)).toEqual([expect.not.objectContaining({ fault: expect.anything() })]);
    await record(at("all-changed.mishap"), [blockOf(events, flows)], { ...header, policies, record_all: true });
    expect((await mishap("recording", "diff", at("all-changed.mishap"), at("all.mishap"))).code).toBe(1);
  });
});

describe("cut", () => {
  it("makes a recording of a part", async () => {
    const part = at("part.mishap");
    expect(await mishap("recording", "cut", run, "--out", part, "--flow", "udp:")).toEqual({
      code: 0,
      stdout: `${part}: 2 events\n`,
      stderr: "",
    });
    const cut = openRecording(part);
    expect([...cut.events()]).toEqual(events.slice(2).map((event) => ({ ...event, flow: 0 })));
    expect(cut.flow(0)).toEqual(flows[1]);
    expect(cut.header).toEqual({ ...header, policies, partial: true });
    expect(cut.end).toEqual({ ...endFacts, events: 2, lost: 0 });
  });

  it("of what is not whole is not whole either", async () => {
    const path = at("cut.mishap");
    const writer = await RecordingWriter.create(path, header);
    await writer.write(blockOf(events.slice(0, 1), flows));
    await writer.gap(5);
    await writer.write(blockOf(events.slice(2)));
    await writer.close();
    const { code, stderr } = await mishap("recording", "cut", path, "--out", at("cut2.mishap"), "--to", "10s");
    expect([code, lines(stderr)]).toEqual([
      0,
      [
        `mishap: ${path}: its end is missing: the run was killed or still goes on, or the file was cut`,
        `mishap: ${path}: 5 events could not be recorded in time`,
      ],
    ]);
    const again = openRecording(at("cut2.mishap"));
    expect([again.lost, again.wholeness.end, [...again.events()].length]).toEqual([5, false, 3]);
  });

  it("says for machines what it wrote", async () => {
    const flags = ["--out", at("none.mishap"), "--from", "3600s", "--json"];
    const { code, stdout } = await mishap("recording", "cut", run, ...flags);
    expect([code, JSON.parse(stdout)]).toEqual([0, { file: at("none.mishap"), events: 0, lost: 0 }]);
  });

  it("does not write what it reads", async () => {
    const before = readFileSync(run);
    const { code, stderr } = await mishap("recording", "cut", run, "--out", `${folder}/./run.mishap`);
    expect(code).toBe(2);
    expect(stderr).toContain("is the file that is read; name another");
    expect(readFileSync(run)).toEqual(before);
  });
});

describe("import", () => {
  const journal = [
    '{"flow":"tcp:a:1#1@0","direction":"uplink","op":"send","unit":0,"stage":"chaos_base","verdict":"drop","fault":"packet_loss","value":0}',
    '{"flow":"tcp:a:1#2@0","direction":"downlink","op":"recv","unit":4,"stage":"timing","verdict":"delay","fault":"jitter","value":77,"bytes":9,"at_ns":5}',
  ].join("\n");

  it.each([
    ["plain", (text: string) => Buffer.from(`${text}\n`)],
    [
      "gzipped, a member a line",
      (text: string) => Buffer.concat(text.split("\n").map((line) => gzipSync(`${line}\n`))),
    ],
  ])("takes a journal, %s", async (_, pack) => {
    const [from, to] = [at("journal.jsonl"), at("imported.mishap")];
    writeFileSync(from, pack(journal));
    expect(await mishap("recording", "import", from, "--out", to)).toEqual({
      code: 0,
      stdout: `${to}: 2 events of 2 flows\n`,
      stderr: "",
    });
    const { stdout, stderr } = await mishap("recording", "show", to, "--json");
    expect(stderr).toBe("");
    expect(json(stdout)).toMatchObject(json(journal));
  });

  it("takes what show prints", async () => {
    const { stdout } = await mishap("recording", "show", run, "--json");
    writeFileSync(at("shown.jsonl"), stdout);
    const imported = await mishap("recording", "import", at("shown.jsonl"), "--out", at("shown.mishap"), "--json");
    expect(JSON.parse(imported.stdout)).toEqual({ file: at("shown.mishap"), events: 4, flows: 2 });
    expect(await mishap("recording", "diff", run, at("shown.mishap"))).toMatchObject({ code: 0, stderr: "" });
  });

  it("says why faultcore's recordings are none, and writes nothing", async () => {
    const from = at("run.rr.jsonl.gz");
    const theirs = [
      { site: "connect_pre", decision: "continue", value: 0 },
      { site: "stream_uplink_pre", decision: "delay_ns", value: 42 },
    ];
    writeFileSync(from, Buffer.concat(theirs.map((event) => gzipSync(`${JSON.stringify(event)}\n`))));
    const { code, stderr } = await mishap("recording", "import", from, "--out", at("theirs.mishap"));
    expect(code).toBe(2);
    expect(stderr).toMatch(/^mishap: \S+:1: faultcore's events say .* neither of which flow nor of which unit, .*\n$/);
    expect(existsSync(at("theirs.mishap"))).toBe(false);
  });

  it.each([
    ["no JSON", "x", ":2: is no line of JSON"],
    [
      "another verdict",
      '{"flow":"a","direction":"uplink","op":"send","unit":0,"stage":"timing","verdict":"vanish"}',
      ":2: verdict:",
    ],
    [
      "no reason",
      '{"flow":"a","direction":"uplink","op":"send","unit":0,"stage":"timing","verdict":"drop","value":0}',
      ":2: fault: is missing",
    ],
    ["another thing", "[]", ":2: "],
  ])("says what is wrong with a line: %s", async (_, line, said) => {
    writeFileSync(at("bad.jsonl"), `${journal.split("\n")[0]}\n${line}\n`);
    const { code, stderr } = await mishap("recording", "import", at("bad.jsonl"), "--out", at("bad.mishap"));
    expect(code).toBe(2);
    expect(stderr).toContain(`mishap: ${at("bad.jsonl")}${said}`);
    expect(stderr.trim().split("\n").length).toBe(1);
    expect(existsSync(at("bad.mishap"))).toBe(false);
  });
});

describe("a damaged recording", () => {
  it("is read as far as it is whole, and what is missing is said", async () => {
    const path = at("damaged.mishap");
    await record(path, [blockOf(events.slice(0, 2), flows), blockOf(events.slice(2))], { ...header, policies });
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.subarray(0, bytes.length - 10));
    const { code, stdout, stderr } = await mishap("recording", "show", path, "--json");
    expect([code, json(stdout).length]).toEqual([0, 4]);
    expect(stderr).toMatch(/^mishap: \S+: \d+ of \d+ bytes are not whole \(the last frame cut\), and what they held/);
    expect(stderr).toContain("its end is missing");

    bytes[bytes.indexOf("MARF") + 20] = 0;
    bytes[bytes.lastIndexOf("MARF", -40) - 3] = 0;
    writeFileSync(path, bytes);
    const damaged = await mishap("recording", "stats", path);
    expect(damaged.code).toBe(0);
    expect(damaged.stderr).toMatch(/\d+ of \d+ bytes are not whole \(\d frames? damaged\)/);
    expect(damaged.stderr).toContain("its header is missing: command, seed and policies are not known");
  });
});

describe("bad usage", () => {
  it.each<[args: string[], says: string]>([
    [["show", "/no/such/file"], "/no/such/file: there is no such file"],
    [["show", "/etc/passwd"], "/etc/passwd: is no recording; `mishap run --record FILE` makes one"],
    [["show", "/etc"], "/etc: is not a file, as a recording is"],
    [["show", run, "--stage", "choas_base"], "--stage choas_base: there is none; the nearest is chaos_base"],
    [["show", run, "--fault", "lag"], "--fault lag: there is none; the nearest is "],
    [["show", run, "--policy", "slow-link"], `--policy slow-link: there is none in ${run}; the nearest is slow_link`],
    [["show", run, "--from", "2"], "--from 2: "],
    [["show", run, "--from", "2s", "--to", "1s"], "--to 1s: must be later than --from 2s"],
    [["show", run, "--limit", "0"], "--limit 0: must be a whole number of 1 or more, such as --limit 20"],
    [["cut", run], "--out: is missing; name the recording to write, such as --out part.mishap"],
    [["import", run], "--out: is missing"],
    [["show"], "missing required argument 'file'"],
    [["show", run, "--out"], "--out: no such flag"],
  ])("%j gets one sentence", async (args, says) => {
    const { code, stdout, stderr } = await mishap("recording", ...args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(`mishap: ${says}`);
    expect(stderr.trim().split("\n").length).toBe(1);
  });

  it("alone it says what it can do", async () => {
    const { code, stdout } = await mishap("recording");
    expect(code).toBe(0);
    for (const name of ["show", "stats", "diff", "cut", "import"]) expect(stdout).toContain(`  ${name} `);
  });
});
