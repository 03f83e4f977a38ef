/** `mishap doctor`: says what works on this machine, and what it means where something does not. */

import type { Command } from "commander";
import type { Check } from "../api/doctor.js";

const KERNEL_HEADING = "\nThe kernel's side, for mishap run --kernel and mishap observe; nothing else needs it:\n";

/** Adds `doctor` to the program. */
export function define(program: Command): void {
  program
    .command("doctor")
    .summary("say what works on this machine")
    .description(
      "Tries everything a run needs and the hooks of the kernel's side, and says what works and what it means where " +
        "something does not.",
    )
    .action(async () => {
      const { diagnose } = await import("../api/doctor.js");
      const { alignColumns } = await import("../report/format.js");
      const checks = await diagnose();
      const lines = alignColumns(checks.map((check) => [verdict(check), check.name, check.found]));
      const firstOptional = checks.findIndex(({ optional }) => optional);
      checks.forEach(({ meaning }, at) => {
        if (at === firstOptional) process.stdout.write(KERNEL_HEADING);
        process.stdout.write(`${lines[at]}\n${meaning === undefined ? "" : `        → ${meaning}\n`}`);
      });
      process.exitCode = checks.every(({ ok, optional }) => ok || optional) ? 0 : 1;
    });
}

function verdict({ ok, optional }: Check): string {
  if (ok) return "ok";
  return optional ? "no" : "not ok";
}
