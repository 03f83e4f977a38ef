/** Recordings that the command line names: opened, and where another one is to be written. */

import { statSync } from "node:fs";
import type { Recording } from "../recording/index.js";
import { printError, UsageError } from "./errors.js";

/** A recording as far as it is whole; what is missing is said on stderr. */
export async function open(file: string): Promise<Recording> {
  const { openRecording, RecordingError } = await import("../recording/index.js");
  const { missingOf } = await import("../recording/text.js");
  try {
    const recording = openRecording(file);
    for (const sentence of missingOf(recording)) printError(sentence);
    return recording;
  } catch (error) {
    if (error instanceof RecordingError) throw new UsageError(error.message);
    throw cannotRead(file, error);
  }
}

/** The system's error about a file that was named, in a sentence. */
export function cannotRead(file: string, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return new UsageError(`${file}: there is no such file`);
  if (code === "EACCES") return new UsageError(`${file}: may not be read or written by this user`);
  return error;
}

/** There is a file to write, and it is not the one that is read. */
export function assertOut(out: string | undefined, file: string): asserts out is string {
  if (out === undefined) {
    throw new UsageError("--out: is missing; name the recording to write, such as --out part.mishap");
  }
  const [from, to] = [file, out].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (from !== undefined && from.ino === to?.ino && from.dev === to.dev) {
    throw new UsageError(`--out ${out}: is the file that is read; name another, such as --out part.mishap`);
  }
}

/** A value as JSON on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
