/** `mishap recording shrink`: its flags, how far it is, and what it prints; the search itself is src/api/shrink.ts. */

import { accessSync, constants as modes, statSync } from "node:fs";
import { constants } from "node:os";
import { dirname } from "node:path";
import type { Command } from "commander";
import type { ShrinkOptions, Shrunk } from "../api/shrink.js";
import { PolicyError, parseDuration } from "../policy/index.js";
import type { Recording } from "../recording/index.js";
import { formatCount, formatPlural } from "../report/format.js";
import { printError, printToStderr, UsageError } from "./errors.js";
import { assertOut, open, printJson } from "./recordings.js";
import { commandOf, textOf } from "./words.js";

const EXAMPLES = `
Examples:
  mishap run --record run.mishap --packet-loss 5% --connection-error reset:2% -- npm test
  mishap recording shrink run.mishap
  mishap recording shrink run.mishap --check "npm test -- checkout" --repeats 3 --timeout 120s
  mishap run --policies shrunk.yaml --policy shrunk -- npm test

Exit codes:
  0 the smallest subset was written; 1 the command does not fail with all faults, fails without any, or did not fail again
  in the end; 2 bad usage, or a file that is no recording; 125, 126, 127 a try could not be made; 128+n on signal n`;

interface Flags {
  readonly check?: string;
  readonly repeats: string;
  readonly timeout?: string;
  readonly out: string;
  readonly policyOut?: string;
  readonly json?: boolean;
}

/** Right values of its flags. */
export const FLAG_EXAMPLES: Readonly<Record<string, string>> = {
  "--check": '"npm test"',
  "--repeats": "3",
  "--timeout": "30s",
  "--policy-out": "shrunk.yaml",
};

const END_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Adds `shrink` to `recording`. */
export function define(recording: Command): void {
  recording
    .command("shrink")
    .summary("find the fewest faults that still make a command fail")
    .description(
      "Runs the command again and again with fewer of the recorded faults, until it fails with those that are left and with none less.",
    )
    .argument("<file>", "a recording of a run that failed")
    .option("--check <command>", 'what fails, by its exit code, instead of the recorded command ("npm test")')
    .option("--repeats <count>", "take for failing only what fails so many times in a row", "1")
    .option("--timeout <duration>", "take what runs longer for failing (30s)")
    .option("--out <file>", "the recording to write", "shrunk.mishap")
    .option("--policy-out <file>", "the file of policies to write; by default as --out, ending in .yaml (shrunk.yaml)")
    .option("--json", "say what is left as JSON")
    .addHelpText("after", EXAMPLES)
    .action(execute);
}

async function execute(file: string, flags: Flags): Promise<void> {
  const { out } = flags;
  assertOut(out, file);
  const repeats = repeatsOf(flags.repeats);
  const timeoutNs = timeoutOf(flags.timeout);
  const policyOut = policyOutOf(flags);
  for (const [flag, path] of [
    ["--out", out],
    ["--policy-out", policyOut],
  ] as const) {
    assertWritable(flag, path);
  }
  const recording = await open(file);
  const command = checkOf(flags.check, recording);
  const { RecordingError } = await import("../recording/index.js");
  const { shrinkRecording, triesFile } = await import("../api/shrink.js");

  const progress = new Progress();
  const stop = new AbortController();
  const interrupt = (signal: NodeJS.Signals): void => stop.abort(new Interrupted(signal));
  for (const signal of END_SIGNALS) process.on(signal, interrupt);
  const options: ShrinkOptions = {
    ...{ recording, command, repeats, timeoutNs, out, policyOut, signal: stop.signal },
    onStart: ({ faults, unknown, known }) => {
      progress.begin(faults);
      if (unknown > 0)
        printError(`${file}: ${formatPlural(unknown, "fault")} of flows that are not known are left out`);
      if (known > 0) printError(`${triesFile(out)}: goes on, with ${formatTries(known)} known`);
    },
    onProgress: (tries, left) => progress.show(tries, left),
  };
  let shrunk: Shrunk;
  try {
    shrunk = await shrinkRecording(options);
  } catch (error) {
    if (error instanceof Interrupted) {
      error.message = `interrupted after ${formatTries(progress.tries)}; the same command goes on from there, with ${triesFile(out)}`;
    }
    if (error instanceof RecordingError) throw new UsageError(error.message);
    throw error;
  } finally {
    progress.end();
    for (const signal of END_SIGNALS) process.off(signal, interrupt);
  }
  await say(shrunk, file, command, options, flags.json === true);
}

/** A signal asked for the end. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly exitCode: number;

  constructor(signal: NodeJS.Signals) {
    super("interrupted");
    this.exitCode = 128 + constants.signals[signal];
  }
}

async function say(
  { kind, faults, tries, found }: Shrunk,
  file: string,
  command: readonly string[],
  { out, policyOut, repeats }: ShrinkOptions,
  asJson: boolean,
): Promise<void> {
  const words = textOf(command);
  const sentences = {
    found: `${out}: did not fail when it was tried once more, so the command's failures are not steady; raise --repeats, such as --repeats ${3 * repeats}`,
    empty: `${file}: holds no fault, so there is nothing to shrink`,
    passes: `${file}: with all ${formatPlural(faults, "fault")} \`${words}\` does not fail; was it recorded with the same command?`,
    fails: `${file}: \`${words}\` fails without any fault, so there is nothing to shrink to`,
  };
  if (found?.confirmed !== true) {
    process.exitCode = 1;
    printError(sentences[kind]);
  }
  if (asJson) {
    const { leftJson } = await import("../recording/left.js");
    const left = found === undefined ? {} : { left: leftJson(found.recording, found.atoms) };
    const written = found === undefined ? {} : { file: out, policy_file: policyOut, confirmed: found.confirmed };
    return printJson({ outcome: kind, faults, tries, ...written, ...left });
  }
  if (found === undefined) return;
  const { leftLines } = await import("../recording/left.js");
  const lines = [
    ...leftLines(found.recording, found.atoms),
    `${out}: ${formatCount(found.left.length)} of ${formatPlural(faults, "fault")}, after ${formatTries(tries)}`,
    `${policyOut}: the same as a policy; \`mishap run --policies ${policyOut} --policy shrunk -- ${words}\``,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function checkOf(check: string | undefined, { header, path }: Recording): string[] {
  if (check !== undefined && check.trim() === "") {
    throw new UsageError('--check "": needs a command, such as --check "npm test"');
  }
  if (header === undefined)
    throw new UsageError(`${path}: its header is not whole, and nothing can be shrunk without it`);
  if (check !== undefined) return commandOf(check);
  if (header.command.length > 0) return header.command;
  throw new UsageError(`${path}: does not say which command it is of; say what fails, such as --check "npm test"`);
}

function repeatsOf(written: string): number {
  if (/^[1-9]\d{0,3}$/.test(written)) return Number(written);
  throw new UsageError(`--repeats ${written}: must be a whole number from 1 to 9999, such as --repeats 3`);
}

function timeoutOf(written: string | undefined): number | undefined {
  if (written === undefined) return undefined;
  try {
    const timeoutNs = parseDuration(written);
    if (timeoutNs > 0 && timeoutNs / 1e6 < 2 ** 31) return timeoutNs;
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(`--timeout ${written}: ${error.problem}`);
    throw error;
  }
  throw new UsageError(`--timeout ${written}: must be longer than nothing and shorter than 24 days, such as 30s`);
}

function policyOutOf({ out, policyOut }: Flags): string {
  if (policyOut === undefined) return `${out.replace(/\.mishap$/, "")}.yaml`;
  if (/\.ya?ml$/i.test(policyOut)) return policyOut;
  throw new UsageError(`--policy-out ${policyOut}: must end in .yaml, such as --policy-out shrunk.yaml`);
}

/** Known before the first try: the search may take hours. */
function assertWritable(flag: "--out" | "--policy-out", path: string): void {
  const status = statSync(path, { throwIfNoEntry: false });
  try {
    if (status?.isDirectory()) throw new Error("a folder");
    accessSync(status === undefined ? dirname(path) : path, modes.W_OK);
    accessSync(dirname(path), modes.W_OK | modes.X_OK); // the outcomes of tries are kept there too
  } catch {
    const right = flag === "--out" ? "shrunk.mishap" : "shrunk.yaml";
    throw new UsageError(`${flag} ${path}: cannot be written; a path such as ./${right} can`);
  }
}

const formatTries = (count: number): string => `${formatCount(count)} ${count === 1 ? "try" : "tries"}`;

const BAR = 10;
const DEFAULT_COLUMNS = 80;

/** How far it is, on stderr: on a terminal one line that is drawn anew, else a line each time that fewer are left. */
class Progress {
  tries = 0;
  readonly #redraws = process.stderr.isTTY && process.env.TERM !== "dumb";
  #all = 0;
  #said = Number.POSITIVE_INFINITY;

  begin(all: number): void {
    this.#all = all;
  }

  show(tries: number, left: number): void {
    this.tries = tries;
    const gone = this.#all === 0 ? 0 : Math.floor((BAR * (this.#all - left)) / this.#all);
    const bar = `[${"#".repeat(gone)}${"-".repeat(BAR - gone)}]`;
    const words = [`shrink: ${formatTries(tries)}`, `${formatCount(left)} of ${formatPlural(this.#all, "fault")} left`];
    if (this.#redraws) {
      const line = [...words, bar].join(" · ").slice(0, (process.stderr.columns || DEFAULT_COLUMNS) - 1);
      printToStderr(`\r\u001b[K${line}`);
    } else if (left < this.#said) {
      printToStderr(`${words.join(" · ")}\n`);
    }
    this.#said = left;
  }

  /** Takes the line away again. */
  end(): void {
    if (this.#redraws) printToStderr("\r\u001b[K");
  }
}
