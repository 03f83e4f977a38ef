// One program and one seed by way of the interceptor and of the relay, with the program's calls cut differently in each, and
// what both decided side by side.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { diffOf, openRecording, statsOf } from "../../../src/recording/index.js";
import type { Evidence } from "../../../src/report/schema.js";
import { evidenceOf, start } from "../cli-harness.js";

const PROGRAM = fileURLToPath(new URL("../../programs/alike.py", import.meta.url));

let serial = 0;

/** Starts the server of alike.py, outside mishap; its ports, as the program takes them. */
export async function alikeServer(): Promise<string> {
  const server = start("python3", [PROGRAM, "serve", "1"]);
  let said = "";
  server.child.stdout?.on("data", (data) => {
    said += data;
  });
  await server.says("\n");
  return said.trim();
}

/** How much alike.py does: streams each way and their bytes, talks and their exchanges. */
export interface Load {
  readonly streams?: number;
  readonly bytes?: number;
  readonly talks?: number;
  readonly exchanges?: number;
}

/** The command of alike.py; `cuts` is the seed of how it cuts its calls. */
export function alikeCommand(
  ports: string,
  { streams = 0, bytes = 0, talks = 0, exchanges = 0 }: Load,
  cuts: number,
): string[] {
  return ["python3", PROGRAM, ports, ...[streams, bytes, talks, exchanges, cuts].map(String)];
}

/** A recorded run by an executor. */
export async function decidedBy(
  folder: string,
  executor: "interceptor" | "relay",
  flags: readonly string[],
  command: readonly string[],
): Promise<{ file: string; evidence: Evidence }> {
  const file = join(folder, `decided-${++serial}.mishap`);
  const words = ["--kernel", "--executor", executor, "--record", file, ...flags];
  const { code, stderr, evidence } = await evidenceOf(folder, words, command);
  expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining("seed") });
  const states = new Set(evidence.coverage?.map(({ state }) => state));
  expect([...states]).toEqual([executor === "relay" ? "relayed" : "intercepted"]);
  return { file, evidence };
}

/** Holds two recordings to the same decisions; how many of each fault. */
export function expectAlike(first: string, second: string): Map<string, number> {
  const [a, b] = [openRecording(first), openRecording(second)];
  const { differences, ...counts } = diffOf(a, b);
  expect({ ...counts, differences: differences.slice(0, 5) }).toEqual({
    same: counts.same,
    only_a: 0,
    only_b: 0,
    different: 0,
    differences: [],
  });
  const times = new Map<string, number>();
  for (const { fault = "none", uplink, downlink } of statsOf(b).decisions) {
    times.set(fault, (times.get(fault) ?? 0) + uplink + downlink);
  }
  return times;
}

/** Runs a load both ways; what was decided in both, and how often. */
export async function expectAlikeUnder(
  folder: string,
  ports: string,
  flags: readonly string[],
  load: Load,
): Promise<Map<string, number>> {
  const interceptor = await decidedBy(folder, "interceptor", flags, alikeCommand(ports, load, 1));
  const relay = await decidedBy(folder, "relay", flags, alikeCommand(ports, load, 2));
  return expectAlike(interceptor.file, relay.file);
}
