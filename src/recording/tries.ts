/**
 * What was tried and how it ended, kept in a file beside the result, so that a search that was broken off goes on where
 * it was. The file holds for one recording, one command, and one way to try it.
 */

import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { z } from "zod";
import { RecordingError } from "./reader.js";

/** What an outcome hangs on beside the faults. */
export interface TriesOf {
  /** A hash of the recording. */
  readonly recording: string;
  readonly command: readonly string[];
  readonly repeats: number;
  /** Absent for no limit. */
  readonly timeout_ns?: number;
}

const firstLine = z.object({
  recording: z.string(),
  command: z.array(z.string()),
  repeats: z.int(),
  timeout_ns: z.number().optional(),
});
const outcomeLine = z.object({ subset: z.string(), failed: z.boolean() });

/** Outcomes of tries, by what was tried. */
export class Tries {
  readonly #path: string;
  readonly #file: number;
  readonly #outcomes: Map<string, boolean>;
  readonly #asked = new Set<string>();

  private constructor(path: string, file: number, outcomes: Map<string, boolean>) {
    this.#path = path;
    this.#file = file;
    this.#outcomes = outcomes;
  }

  /**
   * Goes on with a file, or begins it where it is missing or of something else. Throws a {@link RecordingError} for one
   * that holds anything but tries, and the system's error for one that cannot be written.
   */
  static open(path: string, of: TriesOf): Tries {
    const outcomes = readOutcomes(path, of);
    // Its owner's alone: a command line can hold secrets. Written anew, so that a line that was cut is gone.
    const file = openSync(path, "w", 0o600);
    const tries = new Tries(path, file, outcomes);
    tries.#write(of);
    for (const [subset, failed] of outcomes) tries.#write({ subset, failed });
    return tries;
  }

  /** How many different subsets were asked for since it was opened. */
  get asked(): number {
    return this.#asked.size;
  }

  /** How many outcomes it knows. */
  get known(): number {
    return this.#outcomes.size;
  }

  /** Whether these faults made the command fail; undefined where they were not tried yet. */
  outcome(keys: readonly string[]): boolean | undefined {
    return this.#outcomes.get(hashOf(keys));
  }

  /** Takes down how a try of these faults ended. */
  add(keys: readonly string[], failed: boolean): void {
    const subset = hashOf(keys);
    this.#asked.add(subset);
    if (this.#outcomes.has(subset)) return;
    this.#outcomes.set(subset, failed);
    this.#write({ subset, failed });
  }

  /** Leaves the file, for a later search. */
  close(): void {
    closeSync(this.#file);
  }

  /** Removes the file. */
  remove(): void {
    this.close();
    rmSync(this.#path, { force: true });
  }

  #write(line: object): void {
    writeSync(this.#file, `${JSON.stringify(line)}\n`);
  }
}

function readOutcomes(path: string, of: TriesOf): Map<string, boolean> {
  const outcomes = new Map<string, boolean>();
  const [first, ...lines] = linesOf(path);
  if (first === undefined) return outcomes;
  const head = firstLine.safeParse(parsed(first));
  if (!head.success) {
    throw new RecordingError(`${path}: is in the way: outcomes of tries are kept there, and it holds something else`);
  }
  if (JSON.stringify(head.data) !== JSON.stringify(firstLine.parse(of))) return outcomes;
  for (const line of lines) {
    const { success, data } = outcomeLine.safeParse(parsed(line)); // the last may have been cut
    if (success) outcomes.set(data.subset, data.failed);
  }
  return outcomes;
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Of a set, whatever its order. */
function hashOf(keys: readonly string[]): string {
  const hash = createHash("sha256");
  for (const key of [...keys].sort()) hash.update(`${key}\n`);
  return hash.digest("base64url");
}
