/**
 * Which project a run belongs to when nobody says: the package or repository around the working directory.
 */

import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The name in the nearest package.json or the name of the nearest repository's root; else the directory's own. */
export function defaultProject(directory = process.cwd()): string {
  for (let at = directory; ; at = dirname(at)) {
    const named = packageName(join(at, "package.json"));
    if (named !== undefined) return named === "" ? nameOf(at) : named;
    if (existsSync(join(at, ".git"))) return nameOf(at);
    if (dirname(at) === at) return nameOf(directory);
  }
}

/** The package's name, empty when it has none, undefined when there is no package here. */
function packageName(file: string): string | undefined {
  try {
    const content: unknown = JSON.parse(readFileSync(file, "utf8"));
    const name = typeof content === "object" && content !== null && "name" in content ? content.name : "";
    return typeof name === "string" ? name : "";
  } catch {
    return existsSync(file) ? "" : undefined;
  }
}

function nameOf(directory: string): string {
  return basename(directory) || "root";
}
