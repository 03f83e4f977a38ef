/** Files that a command writes what it has to say to. */

import { closeSync, existsSync, ftruncateSync, openSync, unlinkSync, writeSync } from "node:fs";
import { UsageError } from "./errors.js";

/** A file that is known to be writable before anything starts. */
export interface Output {
  readonly file: number;
  write(text: string): void;
  /** Nothing happened: leaves no empty file behind. */
  discard(): void;
}

/** Opens what a flag names; undefined where it was not given. */
export function openOutput(flag: string, path: unknown, example: string | undefined): Output | undefined {
  if (typeof path !== "string") return undefined;
  const existed = existsSync(path);
  let file: number;
  try {
    // A recording is its owner's alone: a command line can hold secrets.
    file = openSync(path, flag === "--json" ? "a" : "w", flag === "--record" ? 0o600 : 0o644);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "it failed";
    throw new UsageError(`${flag} ${path}: cannot be written (${code}); a path such as ./${example} can`);
  }
  return {
    file,
    write: (text) => {
      try {
        ftruncateSync(file, 0);
      } catch {
        // A pipe or a terminal: it has no length.
      }
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
      closeSync(file);
    },
    discard: () => {
      closeSync(file);
      if (!existed) unlinkSync(path);
    },
  };
}
