/**
 * The files that a script is made of: its own and what it imports by relative path, found without running it. They may be
 * read without a permission, file by file, and nothing else of the user's. Packages are not among them: they are read
 * from folders that were granted.
 */

import { readFileSync, realpathSync } from "node:fs";
import { dirname, extname, resolve, sep } from "node:path";
import { init, parse } from "es-module-lexer";
import { strip } from "./host/loader.js";
import type { ScriptProblem } from "./questions.js";

const CODE: ReadonlySet<string> = new Set([".ts", ".mts", ".js", ".mjs"]);
const TYPESCRIPT: ReadonlySet<string> = new Set([".ts", ".mts"]);

/** What a script is made of. */
export interface ScriptGraph {
  /** Real paths, the script's own first. */
  readonly files: readonly string[];
  /** What is in them; those left out that cannot be read. */
  readonly sources: Readonly<Record<string, string>>;
  /** Imports that lead out of the script's folder and of what was granted; the files are not among `files`. */
  readonly problems: readonly ScriptProblem[];
}

/**
 * The graph of a script. A file belongs to it below the script's own folder, or where `granted` says that it may be read.
 * What is not there, or does not parse, is left to whoever loads the script. Throws the system's error for the script
 * itself.
 */
export async function graphOf(script: string, granted: (path: string) => boolean): Promise<ScriptGraph> {
  await init();
  const entry = realpathSync(script);
  const own = `${dirname(entry)}${sep}`;
  const files = new Set([entry]);
  const sources: Record<string, string> = {};
  const problems: ScriptProblem[] = [];
  // Grows while it is walked.
  for (const file of files) {
    const text = textOf(file);
    if (text === undefined) continue;
    sources[file] = text;
    if (!CODE.has(extname(file))) continue;
    for (const { specifier, at, source } of importsOf(file, text)) {
      const path = realPathOf(resolve(dirname(file), specifier));
      if (path === undefined) continue;
      // The real path: a link below the folder does not lead out of it.
      if (path.startsWith(own) || granted(path)) files.add(path);
      else
        problems.push({ message: `imports ${path}, which needs --allow-read=${path}`, file, ...placeOf(source, at) });
    }
  }
  return { files: [...files], sources, problems };
}

interface RelativeImport {
  readonly specifier: string;
  readonly at: number;
  readonly source: string;
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function importsOf(file: string, text: string): RelativeImport[] {
  try {
    const source = TYPESCRIPT.has(extname(file)) ? strip(text, file) : text;
    const [imports] = parse(source, file);
    return imports.flatMap((each) => {
      const specifier = ("specifier" in each ? each.specifier : undefined) ?? "";
      const relative = specifier.startsWith("./") || specifier.startsWith("../");
      return relative ? [{ specifier, at: each.start, source }] : [];
    });
  } catch {
    return [];
  }
}

function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function placeOf(source: string, at: number): { line: number; column: number } {
  const before = source.slice(0, at).split("\n");
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}
