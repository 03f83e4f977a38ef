// One seed decides alike, however threads and processes interleave; another seed decides otherwise.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { evidenceOf, scratchFolder } from "./cli-harness.js";
import { compile, freePort } from "./support/programs.js";

const folder = scratchFolder();
let program = "";
let serial = 0;

beforeAll(async () => {
  program = await compile(folder, "flows.c");
});

async function journalOf(seed: string, flags: readonly string[], command: readonly string[]): Promise<string[]> {
  const file = join(folder, `journal-${++serial}`);
  const run = await evidenceOf(folder, ["--seed", seed, "--journal", file, ...flags], [program, ...command]);
  expect(run.stderr).not.toContain("journal lost");
  expect(run.code).toBe(0);
  expect(run.evidence.determinism.level).not.toBe("statistical");
  return readFileSync(file, "utf8").split("\n").slice(0, -1).sort();
}

describe.each([
  ["threads", "udp", ["--packet-loss", "10%"], 2],
  ["threads", "tcp", ["--packet-loss", "30%", "--loss-mode", "drop"], 1],
  [
    "processes",
    "udp",
    ["--packet-loss", "50%", "--payload-mutation.type", "corrupt_bytes", "--payload-mutation.prob", "10%"],
    1,
  ],
] as const)("8 %s over %s, %j", (workers, protocol, flags, flows) => {
  it("repeat byte for byte with one seed, and differ with another", async () => {
    const units = 1000;
    const command = [workers, protocol, String(await freePort()), "8", String(flows), String(units)];
    const first = await journalOf("21", flags, command);
    const again = await journalOf("21", flags, command);
    const other = await journalOf("22", flags, command);
    expect(first.length).toBeGreaterThan(8 * flows * units * 0.08);
    expect(new Set(first.map((line) => JSON.parse(line).flow)).size).toBe(8 * flows);
    expect(again.join("\n") === first.join("\n")).toBe(true);
    expect(other.join("\n") === first.join("\n")).toBe(false);
  });
});

it("threads that share a socket lose, hold and double together without losing count", async () => {
  const [workers, flows, units] = [8, 4, 500];
  const faults = ["--packet-loss", "10%", "--packet-reorder", "20%:3", "--packet-duplicate", "20%:1"];
  const command = [program, "shared", "udp", String(await freePort()), ...[workers, flows, units].map(String)];
  const { code, stdout, evidence } = await evidenceOf(folder, ["--seed", "9", ...faults], command);
  expect(code).toBe(0);
  const applied = (name: string): number => evidence.faults.find(({ fault }) => fault === name)?.applied ?? Number.NaN;
  const sent = workers * flows * units;
  expect(applied("packet_loss") / sent).toBeGreaterThan(0.08);
  expect(applied("packet_loss") / sent).toBeLessThan(0.12);
  expect(applied("packet_reorder")).toBeGreaterThan(0);
  expect(Number(stdout)).toBe(sent - applied("packet_loss") + applied("packet_duplicate"));
});
