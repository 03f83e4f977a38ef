/** `mishap contract`: prints the layout of the shared memory, as it was compiled. */

import type { Command } from "commander";

/** Adds `contract` to the program. */
export function define(program: Command): void {
  program
    .command("contract")
    .summary("print the layout of the shared memory")
    .description("Prints the layout of the shared memory between mishap's processes, as it was compiled.")
    .option("--json", "for machines")
    .action(async ({ json }: { json?: boolean }) => {
      const { contractDocument, layout } = await import("../segment/index.js");
      process.stdout.write(json ? `${JSON.stringify(layout, null, 2)}\n` : contractDocument(layout));
    });
}
