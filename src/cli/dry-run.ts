/** `mishap run --dry-run`: what a run would do, in words. */

import { describeUnreachable, type Program } from "../api/program.js";
import { type AskedFault, describeFaults, formatDuration, type Policy } from "../policy/index.js";
import { alignColumns } from "../report/format.js";

/** The lines of a dry run, each ended. */
export function describeDryRun(
  command: readonly string[],
  policy: Policy,
  program: Program,
  durationNs: number | undefined,
): string {
  const faults = describeFaults(policy);
  const lines = [`mishap: would run ${command.map(quote).join(" ")} (dry run: nothing was started)`];
  lines.push(
    ...alignColumns([
      ["  program", program.image === program.path ? program.path : `${program.path}, run by ${program.image}`],
      ["  executor", executor(program)],
      ...(faults.length === 0 ? [["  faults", "none asked for"]] : faults.map((fault) => row(fault))),
      ...targetRows(policy),
      ...(policy.written.schedule === undefined ? [] : [["  schedule", scheduleText(policy)]]),
      [
        "  until",
        durationNs === undefined ? "the program ends" : `${formatDuration(durationNs)} passed, or the program ends`,
      ],
    ]),
  );
  return `${lines.join("\n")}\n`;
}

function executor({ unreachable }: Program): string {
  return unreachable === undefined
    ? "interceptor, preloaded into the program and its children"
    : `none: the program would run unfaulted, because ${describeUnreachable(unreachable)}`;
}

function row({ fault, asked, directions }: AskedFault): string[] {
  const where = directions.length === 2 || fault.includes(".") ? "" : ` (${directions.join()})`;
  return ["  fault", `${fault} ${asked}${where}`];
}

function targetRows(policy: Policy): string[][] {
  const targets = policy.written.targets;
  if (targets === undefined) return [["  flows", "every TCP and UDP flow"]];
  return targets.map((target) => ["  flows", typeof target === "string" ? target : keyValues(target)]);
}

function keyValues(fields: object): string {
  return Object.entries(fields)
    .map(([key, value]) => `${key}=${String(value)}`)
    .join(",");
}

function scheduleText(policy: Policy): string {
  const { kind, ...times } = policy.written.schedule ?? { kind: "" };
  return `${kind} ${keyValues(times).replaceAll(",", ", ")}`;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
