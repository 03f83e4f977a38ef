// What a run leaves behind on the machine: its files in shared memory and the helpers that work beside its programs.
import { readdirSync, readFileSync } from "node:fs";
import { expect } from "vitest";
import { processState, segmentFiles, until } from "../cli-harness.js";

/** The pids of a project's helpers of one kind that still run. */
export function helpersOf(project: string, program: "mishap-courier" | "mishap-janitor"): number[] {
  const segment = `/dev/shm/mishap-${process.geteuid?.()}-${project}-`;
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      const [command = "", argument = ""] = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
      return command.endsWith(`/${program}`) && argument.startsWith(segment) && processState(pid) !== "Z";
    } catch {
      return false; // it is gone
    }
  });
}

/** While a run is under way: its segment with the courier's socket beside it, and both helpers. */
export function expectUnderWay(project: string): void {
  const [segment = "", ...beside] = segmentFiles(project).sort();
  expect(beside).toEqual([`${segment}.courier`]);
  expect(helpersOf(project, "mishap-courier")).toHaveLength(1);
  expect(helpersOf(project, "mishap-janitor")).toHaveLength(1);
}

/** After a run: no file is left now, and its helpers go. */
export async function expectNoTrace(project: string): Promise<void> {
  expect(segmentFiles(project)).toEqual([]);
  await untilNoTrace(project);
}

/** After a run that was killed: what it left is removed, and its helpers go. */
export async function untilNoTrace(project: string): Promise<void> {
  await until("the files are removed", () => segmentFiles(project).length === 0);
  await until("the courier leaves", () => helpersOf(project, "mishap-courier").length === 0);
  await until("the janitor leaves", () => helpersOf(project, "mishap-janitor").length === 0);
}
