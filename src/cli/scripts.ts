/** Scripts as command lines name them. */

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { UsageError } from "./errors.js";

/** The folder of the ready-made scripts. */
export const READY_MADE = fileURLToPath(new URL("../../scripts/", import.meta.url));

/** A script's path; a ready-made one may be named alone. */
export function findScript(file: string): string {
  for (const path of [resolve(file), `${READY_MADE}${file}.ts`]) if (existsSync(path)) return path;
  throw new UsageError(`${file}: there is no such file; \`mishap script list\` has the ready-made scripts`);
}

/** What `--script-option` gave, each `name=value`. */
export function scriptOptions(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((each) => {
      const at = each.indexOf("=");
      if (at < 1) throw new UsageError(`--script-option ${each}: is name=value, such as tenants=3`);
      return [each.slice(0, at), each.slice(at + 1)];
    }),
  );
}
