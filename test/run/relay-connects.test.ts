// What connects come to through the relay, held against what they come to without: made, refused, unreachable, prohibited,
// met by silence, by steps, interrupted, from an address of the program's choice; over IPv4, IPv6 and mapped addresses.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { beforeEach, expect, it } from "vitest";
import { freshProject, MISHAP, start } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";

const PROGRAM = fileURLToPath(new URL("../programs/connects.py", import.meta.url));
/** In a network namespace of its own, so that its routes are nobody else's. */
const APART = ["--net", "sh", "-ec", 'python3 "$0" setup; exec "$@"', PROGRAM];

beforeEach(needsKernel);
beforeEach(({ skip }) => {
  const { error, status, stderr } = spawnSync("unshare", [...APART, "true"], { encoding: "utf8" });
  skip(error !== undefined || status !== 0, `no network namespace can be furnished: ${stderr || error?.message}`);
});

type Told = readonly [name: string, outcome: string, seconds: number];

async function tell(command: readonly string[]): Promise<Told[]> {
  const { code, stdout, stderr } = await start("unshare", [...APART, ...command]).finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** No packet can say these: what a route forbids or swallows, and what an address may not reach. docs/kernel.md. */
function asFarAsPacketsSay([name, outcome, seconds]: Told): Told {
  const words = name.startsWith("v6") ? { EINVAL: "ENETUNREACH" } : { EINVAL: "ENETUNREACH", EACCES: "EHOSTUNREACH" };
  return [name, Object.entries(words).find(([from]) => from === outcome)?.[1] ?? outcome, seconds];
}

it("looks as without it", async () => {
  const bare = await tell(["python3", PROGRAM]);
  const flags = ["--project", freshProject(), "--quiet", "--kernel", "--executor", "relay"];
  const relayed = await tell([process.execPath, MISHAP, "run", ...flags, "--", "python3", PROGRAM]);
  expect(bare.length).toBeGreaterThan(70);
  const outcomes = new Set(bare.map(([, outcome]) => outcome));
  for (const one of ["made", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "timeout", "EINTR"]) {
    expect(outcomes).toContain(one);
  }
  const direct = new Set(["v6 link-local without its link"]); // left alone, so that it is the kernel's own
  expect(relayed).toEqual(bare.map((told) => (direct.has(told[0]) ? told : asFarAsPacketsSay(told))));
});
