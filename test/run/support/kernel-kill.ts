// What is left when a part of a run with the kernel's side is killed at some moment: nothing in force at once, nothing
// at all once the program is gone.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { expect, type TestContext } from "vitest";
import { Segment } from "../../../src/segment/index.js";
import { freshProject, processState, type Running, startMishap, until } from "../cli-harness.js";
import { cgroupsOf, heldBy, loaded, needsKernel, processesNamed } from "./kernel.js";
import { untilNoTrace } from "./traces.js";

/** Whom to kill. */
export type Victim = "run" | "loader" | "target";

/** The latest moment, in milliseconds after the victim's start: a run takes most of the first to load and start. */
const LATEST_MS = { run: 2000, loader: 1200, target: 800 };
const PATIENCE_MS = 15_000;

/** A program that sends a byte to a peer that echoes, and receives it again, until it is killed. */
const TALK = `
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(20)
while s.send(b"x") and s.recv(1): pass
`;

/** So many moments for each victim, as it.each takes them. */
export function moments(count: number): [Victim, number][] {
  const victims: Victim[] = ["run", "loader", "target"];
  return Array.from({ length: count }, (_, at) => victims.map((victim): [Victim, number] => [victim, at + 1])).flat();
}

/** As needsKernel; and bpftool says what is loaded. */
export function needsKernelAndTool({ skip }: Pick<TestContext, "skip">): void {
  needsKernel({ skip });
  if (spawnSync("bpftool", ["version"]).error) skip("bpftool is not installed");
}

/** Kills a part of a run, by SIGKILL, at a random moment; then the program, if that is still there. */
export async function killAtRandom(victim: Victim, port: number): Promise<void> {
  const project = freshProject();
  const command = ["/usr/bin/python3", "-c", TALK, String(port), project];
  const run = startMishap(["run", "--kernel", "--quiet", "--project", project, "--latency", "5ms", "--", ...command]);
  const find = { run: () => run.pid, loader: () => loaderOf(project), target: () => targetOf(project) };
  await until(`the ${victim} starts`, () => find[victim]() !== undefined, PATIENCE_MS);
  const moment = Math.random() * LATEST_MS[victim];
  const soon = (what: string, holds: () => boolean) =>
    until(`${what} (the ${victim} was killed ${moment.toFixed(1)} ms after its start)`, holds, PATIENCE_MS);
  await new Promise((resolve) => setTimeout(resolve, moment));

  const loader = loaderOf(project);
  const held = loader === undefined ? new Set<string>() : heldBy(loader);
  const pid = find[victim]();
  if (pid !== undefined) kill(pid);

  if (victim !== "target") {
    await soon("it is gone", () => pid === undefined || isOver(pid));
    const target = targetOf(project);
    await soon("no program is attached", () => ![...loaded().keys()].some((id) => held.has(id) && !isMap(id)));
    await soon("the loader is gone", () => loaderOf(project) === undefined);
    if (victim === "run") expect(Segment.list().some((each) => each.project === project && each.inForce)).toBe(false);
    if (target !== undefined) {
      expect(isOver(target)).toBe(false); // what was seen was seen while it lived
      kill(target);
    }
  }
  await endOf(run, project);
  await soon("nothing stays loaded", () => ![...loaded().keys()].some((id) => held.has(id)));
  if (loader !== undefined) await soon("its cgroup is removed", () => cgroupsOf(loader).length === 0);
  await soon("its keeper leaves", () => !processesNamed("mishap-keeper").some((keeper) => speaksOf(keeper, project)));
  await untilNoTrace(project);
}

/** A loader that was killed while the run started the program leaves one that was not there to be killed a moment ago. */
async function endOf(run: Running, project: string): Promise<void> {
  const again = setInterval(() => {
    const late = targetOf(project);
    if (late !== undefined) kill(late);
  }, 200);
  await run.finished.finally(() => clearInterval(again));
}

const isMap = (id: string): boolean => id.startsWith("map:");
const isOver = (pid: number): boolean => ["Z", "X", undefined].includes(processState(pid));

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it ended by itself a moment ago
  }
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
  } catch {
    return []; // it is gone
  }
}

const speaksOf = (pid: number, project: string): boolean => commandLine(pid).some((word) => word.includes(project));

function loaderOf(project: string): number | undefined {
  return processesNamed("mishap-loader").find((pid) => speaksOf(pid, project) && !isOver(pid));
}

function targetOf(project: string): number | undefined {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).find((pid) => {
    const [program, ...args] = commandLine(pid);
    return (program ?? "").endsWith("/python3") && args.includes(project) && !isOver(pid);
  });
}
