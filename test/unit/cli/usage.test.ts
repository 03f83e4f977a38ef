// What bad input gets: exit 2, one sentence that names the flag, the value and a right one, and no program started.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { main } from "../../../src/cli/program.js";
import { policyFlags } from "../../../src/policy/index.js";

const folder = mkdtempSync(join(tmpdir(), "mishap-usage-"));
afterAll(() => rmSync(folder, { recursive: true }));

// Its end would be exit 127: anything else means that it was never looked for.
const PROGRAM = ["--", "/no/such/program"];

async function usage(...args: string[]): Promise<{ code: number; said: string[] }> {
  const said: string[] = [];
  const code = await main(args, (message) => said.push(message));
  return { code, said };
}

describe("a bad flag", () => {
  const cases: [args: string[], names: string[]][] = [
    [
      ["--latency", "100"],
      ["--latency 100", "100ms"],
    ],
    [
      ["--latency", "-5ms"],
      ["--latency -5ms", "5ms"],
    ],
    [
      ["--latency", "5m"],
      ["--latency 5m", "such as"],
    ],
    [["--latency=5 parsecs"], ["--latency 5 parsecs", "such as"]],
    [
      ["--latency", "5ms", "--latency", "6ms"],
      ["--latency", "once"],
    ],
    [
      ["--jitter", ""],
      ['--jitter ""', "such as"],
    ],
    [
      ["--packet-loss", "101%"],
      ["--packet-loss 101%", "such as"],
    ],
    [
      ["--packet-loss", "1"],
      ["--packet-loss 1", "1%"],
    ],
    [
      ["--packet-loss", "-1%"],
      ["--packet-loss -1%", "1%"],
    ],
    [
      ["--rate", "10"],
      ["--rate 10", "10mbps"],
    ],
    [
      ["--rate", "10MB/s"],
      ["--rate 10MB/s", "such as"],
    ],
    [
      ["--uplink.rate", "fast"],
      ["--uplink.rate fast", "such as"],
    ],
    [
      ["--burst-loss", "2.5"],
      ["--burst-loss 2.5", "such as"],
    ],
    [
      ["--loss-mode", "vanish"],
      ["--loss-mode vanish", "retransmit"],
    ],
    [
      ["--timeout.connect", "0ms"],
      ["--timeout.connect 0ms", "such as"],
    ],
    [
      ["--connection-error", "angry:10%"],
      ["--connection-error angry:10%", "refused"],
    ],
    [
      ["--connection-error", "refused:200%"],
      ["--connection-error refused:200%", "such as"],
    ],
    [
      ["--half-open", "0kb"],
      ["--half-open 0kb", "such as"],
    ],
    [
      ["--session-budget.action", "drop"],
      ["--session-budget", "1mb"],
    ],
    [
      ["--session-budget.max-tx", "1mb", "--session-budget.budget-timeout", "1s"],
      ["budget-timeout 1s", "timeout"],
    ],
    [
      ["--payload-mutation.type", "shred"],
      ["--payload-mutation.type shred", "truncate"],
    ],
    [
      ["--target", "10.0.0.0/8"],
      ["--target 10.0.0.0/8", "tcp://10.0.0.0/8"],
    ],
    [
      ["--target", "tcp://10.0.0.0/33", "--latency", "1ms"],
      ["--target tcp://10.0.0.0/33", "such as"],
    ],
    [
      ["--target", "port=443", "--latency", "1ms"],
      ["--target port=443", "such as"],
    ],
    [
      ["--schedule", "sometimes"],
      ["--schedule sometimes", "ramp:30s"],
    ],
    [
      ["--schedule", "spike:5s/30s"],
      ["--schedule spike:5s/30s", "such as"],
    ],
    [
      ["--seed", "seven"],
      ["--seed seven", "such as"],
    ],
    [
      ["--duration", "30"],
      ["--duration 30", "such as"],
    ],
    [
      ["--duration", "0s"],
      ["--duration 0s", "30s"],
    ],
    [
      ["--project", ""],
      ['--project ""', "shop"],
    ],
    [
      ["--json", "/no/such/folder/evidence.json", "--quiet", "-x"],
      ["-x", "no such flag"],
    ],
    [
      ["--latecy", "5ms"],
      ["--latecy", "--latency"],
    ],
    [["--latency"], ["--latency", "--"]],
  ];

  it.each(cases)("%j is refused in one sentence", async (args, names) => {
    const { code, said } = await usage("run", ...args, ...PROGRAM);
    expect(said).toHaveLength(1);
    for (const name of names) expect(said[0]).toContain(name);
    expect(said[0]).not.toMatch(/\n|\bat .*:\d+/);
    expect(code).toBe(2);
  });

  it.each(policyFlags.filter(({ boolean }) => !boolean).map((flag) => [flag.name, flag.example] as const))(
    "%s without a value says one",
    async (name, example) => {
      const { code, said } = await usage("run", name);
      expect(said).toEqual([`${name}: needs a value, such as ${name} ${example}`]);
      expect(code).toBe(2);
    },
  );

  it("writes no evidence and starts nothing", async () => {
    const { code } = await usage(
      "run",
      "--json",
      join(folder, "e.json"),
      "--latency",
      "100",
      "--",
      "touch",
      join(folder, "t"),
    );
    expect(code).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each(["--json", "--journal"])("%s that cannot be written is found before the program starts", async (flag) => {
    const { code, said } = await usage("run", flag, join(folder, "no", "file"), "--", "touch", join(folder, "t"));
    expect(said[0]).toContain(`${flag} ${join(folder, "no", "file")}: cannot be written (ENOENT)`);
    expect(code).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("the command line", () => {
  it.each([
    [["run"], "run needs a program to start, such as mishap run --latency 100ms -- curl"],
    [["rum"], "rum: no such command; did you mean run?"],
    [["frobnicate"], "frobnicate: no such command; `mishap help` lists them"],
    [["stop", "--all", "--project", "x"], "--project x: --all stops every project"],
    [["completion", "tcsh"], "'tcsh' is invalid for argument 'shell'. Allowed choices are bash, zsh, fish."],
    [["completion"], "missing required argument 'shell'"],
    [["contract", "more"], "contract: too many arguments"],
  ])("%j says what would be right", async (args, sentence) => {
    const { code, said } = await usage(...args);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(sentence);
    expect(code).toBe(2);
  });

  it("says with the shell's exit codes what cannot be started", async () => {
    expect(await usage("run", "no-such-program-anywhere")).toEqual({
      code: 127,
      said: ["no-such-program-anywhere: not found in PATH"],
    });
    expect(await usage("run", "--", folder)).toEqual({
      code: 126,
      said: [`cannot execute ${folder}: it is a directory`],
    });
  });
});
