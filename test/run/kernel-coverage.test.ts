// What a preload misses, the kernel sees: under `mishap run --kernel` every program that goes past libc, or that
// cannot be preloaded, gets a coverage line that adds up to exactly the bytes that it says it moved.
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { CoverageRow, Evidence } from "../../src/report/schema.js";
import { evidenceOf, scratchFolder } from "./cli-harness.js";
import { build, cannotBuild, ExchangePeer, type Moved, movedBy, needsKernel, type Program } from "./support/kernel.js";

const CONNECTIONS = 5;
/** The interceptor and nothing else: what it misses stays missed. */
const ALONE = ["--executor", "interceptor"];
const NOBODY = 65534;
/** Longer than it takes to find the sockets of a process that is not intercepted. */
const LINGER_MS = 700;

const folder = scratchFolder();
let peer: ExchangePeer;

beforeAll(async () => {
  peer = await ExchangePeer.start(100_003, 250_007);
});

interface Ran {
  readonly moved: readonly Moved[];
  readonly evidence: Evidence;
  /** By the peer's count. */
  readonly received: number;
}

async function exchangeUnder(flags: readonly string[], command: readonly string[], lingerMs = 0): Promise<Ran> {
  const before = peer.received;
  const run = await evidenceOf(folder, flags, [...command, ...peer.exchange(CONNECTIONS, lingerMs)]);
  expect(run).toMatchObject({ code: 0 });
  return { moved: movedBy(run.stdout), evidence: run.evidence, received: peer.received - before };
}

type State = CoverageRow["state"];

/** The coverage that a program's own account comes to. */
function coverage(program: string, state: State, { pid, flows, up, down }: Moved): object {
  return { program, pid, state, flows, bytes_up: up, bytes_down: down };
}

/** Holds a run's coverage to what its only talking program says of the ways that go past libc and of others, row for row. */
function expectCovered(
  { moved, evidence, received }: Ran,
  program: string,
  past: readonly string[],
  becomes: State,
): void {
  const state = (way: string): State => (past.includes(way) ? becomes : "intercepted");
  const expected = moved.map((each) => coverage(program, state(each.way), each));
  expect(expected.length).toBeGreaterThan(0);
  const covered = [...(evidence.coverage ?? [])].sort((a, b) => b.state.localeCompare(a.state));
  expect(covered, evidence.notes.join("\n")).toEqual(expected);
  expect(moved.reduce((sum, { up }) => sum + up, 0)).toBe(received);
  expect(evidence.notes.join("\n")).not.toMatch(/than the kernel saw/);
}

describe.each([
  ["without a fault", ["--kernel"]],
  ["with delays", ["--kernel", "--latency", "2ms"]],
  ["with delays and jitter at a rate", ["--kernel", "--latency", "2ms", "--jitter", "1ms", "--rate", "200mbps"]],
])("%s", (_, flags) => {
  beforeEach(needsKernel);

  it.for<[Program, readonly string[]]>([
    ["client", []],
    ["static", ["libc"]],
    ["mixed", ["raw"]],
    ["uring", ["io_uring"]],
    ["go-static", ["go"]],
    ["go-dynamic", ["go"]],
  ])("%s: covered to the byte", async ([program, past], { skip }) => {
    const path = await built(program, skip);
    expectCovered(await exchangeUnder([...flags, ...ALONE], [path]), program, past, "escaped");
    if (program !== "mixed") expectCovered(await exchangeUnder(flags, [path]), program, past, "relayed");
  });

  it("connections made past libc are the relay's, whoever uses them then", async ({ skip }) => {
    const { moved, evidence } = await exchangeUnder(flags, [await built("mixed", skip)]);
    expect(evidence.notes.join("\n")).not.toMatch(/than the kernel saw/);
    const flows = (state: State): number | undefined =>
      evidence.coverage?.find((row) => row.program === "mixed" && row.state === state)?.flows;
    // Of those that libc made half were used past it too.
    expect([flows("relayed"), flows("intercepted"), flows("escaped")]).toEqual([10, 10, 5]);
    const sum = (of: "bytes_up" | "bytes_down"): number =>
      (evidence.coverage ?? []).reduce((all, row) => all + row[of], 0);
    expect(sum("bytes_up")).toBe(moved.reduce((all, { up }) => all + up, 0));
    expect(sum("bytes_down")).toBe(moved.reduce((all, { down }) => all + down, 0));
  });

  it("a setuid child: covered to the byte", async ({ skip }) => {
    const command = asChild(await setuidCopy(skip));
    expectCovered(await exchangeUnder([...flags, ...ALONE], command), "setuid", ["libc"], "escaped");
    expectCovered(await exchangeUnder(flags, command), "setuid", ["libc"], "relayed");
  });
});

describe("without the kernel", () => {
  it.for<Program>(["static", "go-static"])("%s is named as escaped, with its peer", async (program, { skip }) => {
    expectNamed(await exchangeUnder([], [await built(program, skip)], LINGER_MS), program, "static");
  });

  it("a setuid child is named as escaped, with its peer", async ({ skip }) => {
    expectNamed(await exchangeUnder([], asChild(await setuidCopy(skip)), LINGER_MS), "setuid", "setuid");
  });

  it("no coverage is claimed", async ({ skip }) => {
    const { evidence } = await exchangeUnder([], [await built("client", skip)]);
    expect(evidence.coverage).toBeUndefined();
  });
});

function expectNamed({ moved, evidence }: Ran, program: string, reason: string): void {
  expect(evidence.escaped.length).toBeGreaterThan(0);
  for (const flow of evidence.escaped) {
    expect(flow).toEqual({ peer: peer.address, pid: moved[0]?.pid, program, reason });
  }
}

/** A shell's child, so that the run's own program is another. */
function asChild(path: string): string[] {
  return ["sh", "-c", '"$@"; exit $?', "sh", path];
}

const building = new Map<Program, Promise<string>>();

/** A program, built once; the test is skipped where it cannot be. */
function built(program: Program, skip: (note: string) => never): Promise<string> {
  const problem = cannotBuild(program);
  if (problem !== undefined) skip(problem);
  const path = building.get(program) ?? build(folder, program);
  building.set(program, path);
  return path;
}

/** The client as another user's setuid program; the test is skipped where there cannot be one. */
async function setuidCopy(skip: (note: string) => never): Promise<string> {
  if (process.getuid?.() !== 0) skip("making a setuid program of another user's needs root");
  const options = spawnSync("findmnt", ["-no", "OPTIONS", "-T", folder], { encoding: "utf8" }).stdout;
  if (options.includes("nosuid")) skip(`${folder} is mounted nosuid`);
  const path = join(folder, "setuid");
  copyFileSync(await built("client", skip), path);
  chownSync(path, NOBODY, NOBODY);
  chmodSync(path, 0o4755);
  return path;
}
