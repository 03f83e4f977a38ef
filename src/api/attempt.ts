/** One attempt of a command under a recording's decisions: a run of its own, of which only its end is of interest. */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

/** The command line of this mishap. */
export const THIS_MISHAP: readonly string[] = [
  process.execPath,
  fileURLToPath(new URL("../cli/main.js", import.meta.url)),
];

/** An attempt. */
export interface AttemptOptions {
  readonly command: readonly string[];
  /** The recording. */
  readonly recording: string;
  /** A folder for what mishap writes about it, with nothing else in it by these names. */
  readonly folder: string;
  /** A command that takes longer has failed; absent for no limit. */
  readonly timeoutNs?: number | undefined;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** How mishap is started. */
  readonly mishap?: readonly string[] | undefined;
}

/** mishap failed, not the command; the message is what it said. */
export class AttemptError extends Error {
  override readonly name = "AttemptError";
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

const FAILURE_EXIT_CODE = 125;
/** mishap's own exit codes that say what was wrong with the call. */
const SAYING_EXIT_CODES = [2, 125, 126, 127];
/** From asking a command to end until it is ended. */
const GRACE_MS = 2000;

const evidence = z.object({ exit_code: z.int() });

/**
 * Whether the command failed: it exited with anything but 0, or took too long. Rejects with an {@link AttemptError} where
 * mishap failed itself, and with the signal's reason once it is aborted; the command and all that it started in its
 * process group are gone then, as they are when it took too long.
 */
export async function attempt(options: AttemptOptions): Promise<boolean> {
  const { command, recording, folder, timeoutNs, signal, mishap = THIS_MISHAP } = options;
  signal.throwIfAborted();
  const [written, said] = [join(folder, "evidence.json"), join(folder, "stderr")];
  rmSync(written, { force: true });
  const flags = ["run", "--replay", recording, "--replay-lenient", "--quiet", "--json", written];
  const stderr = openSync(said, "w", 0o600); // a pipe would last as long as whatever the command leaves behind
  const [program = "", ...args] = [...mishap, ...flags, "--", ...command];
  const child = spawn(program, args, { detached: true, stdio: ["ignore", "ignore", stderr] });
  closeSync(stderr);
  const tooLong = new AbortController();
  const limit = timeoutNs === undefined ? undefined : setTimeout(() => tooLong.abort(), timeoutNs / 1e6);
  try {
    const code = await endOf(child, AbortSignal.any([signal, tooLong.signal]));
    signal.throwIfAborted();
    if (tooLong.signal.aborted) return true;
    const exitCode = exitCodeIn(written);
    if (exitCode === undefined) throw failureOf(code, said);
    return exitCode !== 0;
  } finally {
    clearTimeout(limit);
  }
}

/** The exit code of a child in a group of its own, which is ended on a signal. */
function endOf(child: ChildProcess, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let last: NodeJS.Timeout | undefined;
    const end = (): void => {
      kill(child, "SIGTERM");
      last = setTimeout(() => kill(child, "SIGKILL"), GRACE_MS);
    };
    const done = (): void => {
      signal.removeEventListener("abort", end);
      clearTimeout(last);
      if (signal.aborted) kill(child, "SIGKILL"); // what has outlived mishap
    };
    signal.addEventListener("abort", end);
    child.once("error", (error) => {
      done();
      reject(error);
    });
    child.once("exit", (code, by) => {
      done();
      resolve(code ?? 128 + (by === null ? 0 : constants.signals[by]));
    });
  });
}

function kill({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, signal);
  } catch {
    // The whole group is gone.
  }
}

/** The command's exit code by the evidence, which is there when and only when the command was run. */
function exitCodeIn(file: string): number | undefined {
  try {
    return evidence.parse(JSON.parse(readFileSync(file, "utf8"))).exit_code;
  } catch {
    return undefined;
  }
}

function failureOf(code: number, said: string): AttemptError {
  const sentences = [...readFileSync(said, "utf8").matchAll(/^mishap: (.+)$/gm)].map(([, sentence = ""]) => sentence);
  const sentence = sentences.at(-1) ?? `mishap run ended with ${code} before the command was run, and did not say why`;
  return new AttemptError(sentence, SAYING_EXIT_CODES.includes(code) ? code : FAILURE_EXIT_CODE);
}
