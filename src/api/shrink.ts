/**
 * Shrinks a recording: tries subsets of its faults with the command, each as a run of its own, and writes the smallest
 * that still makes it fail, as a recording and as a file of policies.
 */

import { createHash } from "node:crypto";
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { asPolicy } from "../recording/as-policy.js";
import { type Atom, type Atoms, atomsOf, writeSubset } from "../recording/atoms.js";
import { openRecording, type Recording } from "../recording/reader.js";
import { type Found, shrink } from "../recording/shrink.js";
import { Tries } from "../recording/tries.js";
import { type AttemptOptions, attempt } from "./attempt.js";

/** What is to be shrunk, and how. */
export interface ShrinkOptions extends Pick<AttemptOptions, "command" | "timeoutNs" | "signal" | "mishap"> {
  readonly recording: Recording;
  /** Only a subset that fails so many times in a row has failed. */
  readonly repeats: number;
  /** The recording to write. */
  readonly out: string;
  /** The file of policies to write. */
  readonly policyOut: string;
  /** Told before the first try. */
  onStart?(start: { faults: number; unknown: number; known: number }): void;
  /** How many subsets were tried so far, and how many faults are left. */
  onProgress?(tries: number, left: number): void;
}

/** What came of it. */
export interface Shrunk {
  /** `passes`, `fails` and `found`; or `empty`: the recording holds no fault. */
  readonly kind: Found["kind"] | "empty";
  readonly faults: number;
  /** Subsets tried, with those known from an earlier search. */
  readonly tries: number;
  /** Where one was found. */
  readonly found?: {
    readonly left: readonly Atom[];
    /** It failed again when it was tried once more. */
    readonly confirmed: boolean;
    /** What was written. */
    readonly recording: Recording;
    readonly atoms: Atoms;
  };
}

/** Where the outcomes of tries are kept while a search goes on. */
export const triesFile = (out: string): string => `${out}.tries`;

/**
 * Shrinks. Rejects with the signal's reason once it is aborted, and with what mishap said where a try could not be made;
 * then the outcomes so far are kept, and the same call goes on from there.
 */
export async function shrinkRecording(options: ShrinkOptions): Promise<Shrunk> {
  const { recording, command, repeats, timeoutNs, out } = options;
  const atoms = atomsOf(recording);
  const faults = atoms.all.length;
  if (faults === 0) return { kind: "empty", faults, tries: 0 };
  const tries = Tries.open(triesFile(out), {
    recording: await hashOf(recording.path),
    command,
    repeats,
    ...(timeoutNs === undefined ? {} : { timeout_ns: timeoutNs }),
  });
  const folder = mkdtempSync(join(tmpdir(), "mishap-shrink-"));
  let isOver = false;
  try {
    options.onStart?.({ faults, unknown: atoms.unknown, known: tries.known });
    const onProgress = (asked: number, left: number): void => options.onProgress?.(asked, left);
    const fails = (kept: readonly Atom[]): Promise<boolean> => failsWith(kept, atoms, folder, options);
    const found = await shrink(atoms.all, fails, tries, { onProgress });
    const result: Shrunk = { kind: found.kind, faults, tries: tries.asked };
    if (found.kind !== "found") {
      isOver = true; // whatever is wrong there is for people to find: next time it may be another
      return result;
    }
    const written = await write(found.left, atoms, options);
    isOver = true;
    return { ...result, found: { left: found.left, confirmed: found.confirmed, ...written } };
  } finally {
    rmSync(folder, { recursive: true, force: true });
    if (isOver) tries.remove();
    else tries.close();
  }
}

/** Whether the command fails with these faults, each time that it is tried. */
async function failsWith(
  kept: readonly Atom[],
  atoms: Atoms,
  folder: string,
  { recording, repeats, command, timeoutNs, signal, mishap }: ShrinkOptions,
): Promise<boolean> {
  const file = join(folder, "subset.mishap");
  await writeSubset(recording, file, atoms, kept);
  for (let time = 0; time < repeats; time++) {
    if (!(await attempt({ command, recording: file, folder, timeoutNs, signal, mishap }))) return false;
  }
  return true;
}

async function write(
  left: readonly Atom[],
  atoms: Atoms,
  { recording, out, policyOut }: ShrinkOptions,
): Promise<{ recording: Recording; atoms: Atoms }> {
  await writeSubset(recording, out, atoms, left);
  const written = openRecording(out);
  const ofWritten = atomsOf(written);
  const firsts = new Set(ofWritten.all.map(({ first }) => first));
  const text = asPolicy(written, recording.path, policyOut, (ordinal) => firsts.has(ordinal));
  writeFileSync(policyOut, text);
  return { recording: written, atoms: ofWritten };
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
