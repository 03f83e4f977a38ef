/** `mishap doctor`: says what works on this machine, and what it means where something does not. */

import type { Command } from "commander";

/** Adds `doctor` to the program. */
export function define(program: Command): void {
  program
    .command("doctor")
    .summary("say what works on this machine")
    .description("Tries everything a run needs, and says what works and what it means where something does not.")
    .action(async () => {
      const { diagnose } = await import("../api/doctor.js");
      const { alignColumns } = await import("../report/format.js");
      const checks = await diagnose();
      const lines = alignColumns(checks.map(({ name, ok, found }) => [ok ? "ok" : "not ok", name, found]));
      checks.forEach(({ meaning }, at) => {
        process.stdout.write(`${lines[at]}\n${meaning === undefined ? "" : `        → ${meaning}\n`}`);
      });
      process.exitCode = checks.every(({ ok }) => ok) ? 0 : 1;
    });
}
