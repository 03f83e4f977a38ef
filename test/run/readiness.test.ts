// Event loops, sends and endings under delay: test/programs/readiness.cpp checks in every case that bytes, ends and answers
// come when they are due, neither early nor one behind the other, in each way a program can wait for them.
import { beforeAll, describe, expect, it } from "vitest";
import type { Evidence } from "../../src/report/schema.js";
import { evidenceOf, scratchFolder, start } from "./cli-harness.js";
import { compile } from "./support/programs.js";

interface Outcome {
  readonly case: string;
  readonly ok: boolean;
  readonly why: string;
  readonly measured: Readonly<Record<string, number>>;
}

const DELAY = "60";
const BULK = ["bulk", "bulk_small"];
const DATAGRAMS = "udp_exchange";

/** The cases, which the program lists; known before it is compiled, so that each is a test. */
const CASES = [
  ..."poll_level poll_zero timeouts select_many mixed signal_masks".split(" "),
  ..."epoll_level epoll_edge epoll_oneshot epoll_exclusive epoll_nested epoll_dup epoll_fork epoll_close".split(" "),
  ..."epoll_threads one_loop no_spin".split(" "),
  ..."receive_blocking receive_peek receive_waitall receive_timeout receive_lowat receive_fionread".split(" "),
  ..."receive_signal receive_threads receive_fork end_after_data reset_after_data".split(" "),
  ..."connect_good connect_refused accepting".split(" "),
  ..."send_pipelined send_close send_exit send_killed send_exec send_orphan send_fork".split(" "),
  ..."send_whole send_pressure send_file send_cork send_stdio".split(" "),
  ..."udp_waits udp_sends udp_exchange".split(" "),
];

const folder = scratchFolder();
let program = "";

/** One outcome a case, in a process of its own each. */
function outcomes(stdout: string): Map<string, Outcome> {
  const lines = stdout.split("\n").filter((line) => line !== "");
  return new Map(lines.map((line) => JSON.parse(line) as Outcome).map((each) => [each.case, each]));
}

async function under(
  cases: readonly string[],
  flags: readonly string[],
  ...delays: string[]
): Promise<{ outcomes: Map<string, Outcome>; evidence: Evidence }> {
  const run = await evidenceOf(folder, flags, [program, cases.join(","), ...delays]);
  return { outcomes: outcomes(run.stdout), evidence: run.evidence };
}

/** How often a fault took effect. */
function applied(evidence: Evidence, name: string): number {
  return evidence.faults.filter(({ fault }) => fault === name).reduce((sum, each) => sum + each.applied, 0);
}

const passed = (name: string) => expect.objectContaining({ case: name, ok: true, why: "" });

beforeAll(async () => {
  program = await compile(folder, "readiness.cpp");
});

it("drives every case of the program", async () => {
  const { stderr } = await start(program, []).finished;
  const listed = stderr.split("\n").filter((line) => line.startsWith("  "));
  expect(listed.map((line) => line.trim()).sort()).toEqual([...CASES, ...BULK].sort());
});

const settings: [string, string[], string[], string[]][] = [
  ["without mishap", [], [], []],
  ["late on the way in", ["--downlink.latency", `${DELAY}ms`], [DELAY, "0"], ["downlink.latency"]],
  ["late on the way out", ["--uplink.latency", `${DELAY}ms`], ["0", DELAY], ["uplink.latency"]],
  ["late both ways", ["--latency", `${DELAY}ms`], [DELAY, DELAY], ["latency"]],
  ["late both ways, as a server", ["--latency", `${DELAY}ms`], [DELAY, DELAY, "server"], ["latency"]],
];

describe.each(settings)("%s", (_, flags, delays, faults) => {
  let seen: Map<string, Outcome>;

  beforeAll(async () => {
    if (flags.length === 0) {
      seen = outcomes((await start(program, [CASES.join(",")]).finished).stdout);
      return;
    }
    const run = await under(CASES, flags, ...delays);
    seen = run.outcomes;
    for (const fault of faults) expect(applied(run.evidence, fault)).toBeGreaterThan(CASES.length);
    for (const fault of run.evidence.faults) expect(fault.p50_ns).toBeGreaterThanOrEqual(Number(DELAY) * 1e6 - 1e5);
    expect(run.evidence.escaped).toEqual([]);
  }, 180_000);

  it.each(CASES)("%s", (name) => {
    expect(seen.get(name)).toEqual(passed(name));
  });
});

it.each(BULK)("%s: 24 connections exchange 3 MB each way, each byte in its place", async (name) => {
  const bare = outcomes((await start(program, [name]).finished).stdout);
  expect(bare.get(name)).toEqual(passed(name));
  const run = await under([name], ["--latency", "5ms"], "5", "5");
  expect(run.outcomes.get(name)).toEqual(passed(name));
  expect(applied(run.evidence, "latency")).toBeGreaterThan(24 * 2);
});

it.each([
  ["jitter", ["--latency", "30ms", "--jitter", "20ms"], ["jitter"]],
  ["reordering", ["--latency", "10ms", "--packet-reorder", "20%:3:50ms"], ["packet_reorder"]],
  [
    "both",
    ["--latency", "30ms", "--jitter", "20ms", "--packet-reorder", "20%:3:50ms"],
    ["latency", "jitter", "packet_reorder"],
  ],
])("requests and answers by datagram under %s: none is lost, none comes twice", async (_, flags, faults) => {
  const run = await under([DATAGRAMS], flags, "10", "10");
  expect(run.outcomes.get(DATAGRAMS)).toEqual(passed(DATAGRAMS));
  for (const fault of faults) expect(applied(run.evidence, fault)).toBeGreaterThan(0);
});
