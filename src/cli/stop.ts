/** `mishap stop`: ends the faults of running runs, from any terminal. */

import type { Command } from "commander";
import { UsageError } from "./errors.js";

/** Adds `stop` to the program. */
export function define(program: Command): void {
  program
    .command("stop")
    .summary("end all faults of a project's runs, now")
    .description("Ends the faults of this project's runs at once; the programs go on, unfaulted.")
    .option("--all", "every run of this user, whatever its project")
    .option("--project <name>", "the project, where it is not this directory's (shop)")
    .addHelpText("after", "\nExamples:\n  mishap stop\n  mishap stop --project shop\n  mishap stop --all")
    .action(async ({ all, project }: { all?: boolean; project?: string }) => {
      if (all && project !== undefined) {
        throw new UsageError(`--project ${project}: --all stops every project; give one of them, such as --all`);
      }
      if (project === "") throw new UsageError('--project "": a project has a name, such as --project shop');
      const { defaultProject } = await import("../api/project.js");
      const { stopRuns } = await import("../api/stop.js");
      const wanted = all ? undefined : (project ?? defaultProject());
      const stopped = stopRuns(wanted);
      for (const run of stopped) process.stdout.write(`stopped ${run.project}, run by pid ${run.ownerPid}\n`);
      if (stopped.length > 0) return;
      process.stdout.write(wanted === undefined ? "nothing is running\n" : `nothing is running in project ${wanted}\n`);
    });
}
