/**
 * `mishap recording`: looks at recordings, compares them, and makes them of parts or of a journal. Only `shrink`, which has
 * a file of its own, runs anything.
 */

import type { Command } from "commander";
import { nearest, PolicyError, parseDuration } from "../policy/index.js";
import type { EventFilter, Recording } from "../recording/index.js";
import { printError, UsageError } from "./errors.js";
import { assertOut, cannotRead, open, printJson } from "./recordings.js";
import * as shrink from "./shrink.js";

const EXAMPLES = `
Examples:
  mishap recording stats run.mishap
  mishap recording show run.mishap --verdict drop --limit 20
  mishap recording diff before.mishap after.mishap
  mishap recording cut run.mishap --from 2s --to 3s --out part.mishap
  mishap recording shrink run.mishap --check "npm test"

Exit codes:
  0; 1 for diff where the recordings differ, and for shrink where there is nothing to shrink to; 2 bad usage, or a file that is no recording`;

interface FilterFlags {
  readonly flow?: string;
  readonly stage?: string;
  readonly verdict?: string;
  readonly fault?: string;
  readonly policy?: string;
  readonly from?: string;
  readonly to?: string;
}

interface ShowFlags extends FilterFlags {
  readonly json?: boolean;
  readonly limit?: string;
}

interface Output {
  readonly json?: boolean;
}

const FLAG_EXAMPLES: Readonly<Record<string, string>> = {
  "--flow": "tcp:127.0.0.1:8080",
  "--direction": "uplink",
  "--stage": "chaos_base",
  "--verdict": "drop",
  "--fault": "packet_loss",
  "--policy": "slow_link",
  "--from": "2s",
  "--to": "3s",
  "--limit": "20",
  "--out": "part.mishap",
};

interface Written extends Output {
  readonly out?: string;
}

/** A right value of a flag. */
export function exampleOf(flag: string): string | undefined {
  return FLAG_EXAMPLES[flag] ?? shrink.FLAG_EXAMPLES[flag];
}

/** `mishap recording` alone says what it can do. */
export function prepareArguments(args: readonly string[]): string[] {
  return args.length === 1 ? ["help", ...args] : [...args];
}

/** Adds `recording` and its commands to the program. */
export function define(program: Command): void {
  const recording = program
    .command("recording")
    .summary("show, compare, cut and shrink recordings")
    .description("Looks at recordings of runs (mishap run --record), whole or damaged. Only shrink runs anything.")
    .addHelpText("after", EXAMPLES);
  withFilters(recording.command("show"))
    .summary("print events")
    .description("Prints a recording's events, a line each, in their order.")
    .argument("<file>", "a recording")
    .option("--limit <count>", "no more than so many (20)")
    .option("--json", "as lines of JSON")
    .action(show);
  recording
    .command("stats")
    .summary("sum up what was decided")
    .description("Sums up a recording: decisions by policy, stage, verdict and fault, and the flows with most of them.")
    .argument("<file>", "a recording")
    .option("--json", "as JSON")
    .action(stats);
  recording
    .command("diff")
    .summary("compare two recordings by flow and unit")
    .description(
      "Compares the decisions of two recordings by flow identity and unit, whatever their times; exits 1 where they differ.",
    )
    .argument("<first>", "a recording")
    .argument("<second>", "another")
    .option("--json", "as JSON")
    .action(diff);
  recording
    .command("payload")
    .summary("print what ops carried")
    .description(
      "Prints what ops carried, where it was recorded: how much for each flow, or with --flow and --direction the bytes themselves.",
    )
    .argument("<file>", "a recording made with --record-payload")
    .option("--flow <words>", "of the one flow whose identity contains this (tcp:127.0.0.1:8080)")
    .option("--direction <direction>", "uplink or downlink (uplink)")
    .option("--json", "each op's bytes as a line of JSON, in base64")
    .action(payload);
  withFilters(recording.command("cut"))
    .summary("make a recording of a part")
    .description("Writes the events meant as a recording of their own.")
    .argument("<file>", "a recording")
    .option("--out <file>", "the recording to write (part.mishap)")
    .option("--json", "say what was written as JSON")
    .action(cutOut);
  recording
    .command("import")
    .summary("make a recording of a journal")
    .description("Makes a recording of lines of JSON as `mishap run --journal` writes them, gzipped or not.")
    .argument("<file>", "the lines")
    .option("--out <file>", "the recording to write (part.mishap)")
    .option("--json", "say what was written as JSON")
    .action(importFrom);
  shrink.define(recording);
}

function withFilters(command: Command): Command {
  return command
    .option("--flow <words>", "of flows whose identity contains this (tcp:127.0.0.1:8080)")
    .option("--stage <stage>", "of this stage (chaos_base)")
    .option("--verdict <verdict>", "with this verdict (drop)")
    .option("--fault <fault>", "that this fault asked for (packet_loss)")
    .option("--policy <name>", "of this policy, by name or slot (slow_link)")
    .option("--from <time>", "from this time after the start on (2s)")
    .option("--to <time>", "before this time after the start (3s)");
}

async function show(file: string, flags: ShowFlags): Promise<void> {
  const { selection } = await import("../recording/index.js");
  const { eventJson, eventLine } = await import("../recording/text.js");
  const limit = countOf(flags.limit);
  const recording = await open(file);
  const isMeant = selection(recording, await filterOf(flags, recording));
  const lineOf = flags.json === true ? jsonLine(eventJson) : eventLine;
  const out = new Lines();
  for (const { events } of recording.blocks()) {
    for (let i = 0; i < events.count && out.count < limit; i++) {
      if (isMeant(events, i)) out.add(lineOf(recording, events, i));
    }
    if (!(await out.flush()) || out.count >= limit) break;
  }
}

type Describe<Result> = (...of: Parameters<typeof import("../recording/text.js")["eventLine"]>) => Result;

function jsonLine(describe: Describe<object>): Describe<string> {
  return (...of) => JSON.stringify(describe(...of));
}

async function stats(file: string, { json }: Output): Promise<void> {
  const { statsOf } = await import("../recording/index.js");
  const recording = await open(file);
  const summed = statsOf(recording);
  if (json) return printJson({ file, header: recording.header ?? null, end: recording.end ?? null, ...summed });
  const { statsLines } = await import("../recording/text.js");
  process.stdout.write(`${statsLines(recording, summed).join("\n")}\n`);
}

interface PayloadFlags extends Output {
  readonly flow?: string;
  readonly direction?: string;
}

async function payload(file: string, { flow, direction, json }: PayloadFlags): Promise<void> {
  const { carriedBy, DIRECTIONS } = await import("../recording/index.js");
  const meant = direction === undefined ? undefined : numberOf("--direction", direction, DIRECTIONS);
  const recording = await open(file);
  const carried = carriedBy(recording, flow ?? "", meant);
  if (carried.length === 0) throw new UsageError(nothingCarried(recording, flow));
  const out = new Lines();
  if (json === true || flow === undefined || meant === undefined) {
    const { carriedJson, carriedLine } = await import("../recording/text.js");
    for (const each of carried)
      for (const line of json === true ? carriedJson(each) : [carriedLine(each)]) out.add(line);
    await out.flush();
    return;
  }
  const [one, ...others] = carried.filter(({ words }) => carried.length === 1 || words === flow);
  if (one === undefined || others.length > 0) {
    throw new UsageError(`--flow ${flow}: several contain this, such as ${carried[0]?.words}; say which`);
  }
  await out.write(Buffer.concat(one.ops.map(({ bytes }) => bytes)));
}

function nothingCarried({ path, header }: Recording, flow: string | undefined): string {
  if (header?.record_payload !== true) return `${path}: holds no payload; \`mishap run --record-payload\` records it`;
  return flow === undefined
    ? `${path}: nothing was carried`
    : `--flow ${flow}: no such flow carried anything in ${path}`;
}

async function diff(first: string, second: string, { json }: Output): Promise<void> {
  const { diffOf } = await import("../recording/index.js");
  const found = diffOf(await open(first), await open(second));
  if (found.differences.length > 0) process.exitCode = 1;
  if (json) return printJson(found);
  const { diffLines } = await import("../recording/text.js");
  process.stdout.write(`${diffLines(found).join("\n")}\n`);
}

async function cutOut(file: string, { out, json, ...flags }: FilterFlags & Written): Promise<void> {
  assertOut(out, file);
  const { cut, RecordingError } = await import("../recording/index.js");
  const { formatPlural } = await import("../report/format.js");
  const recording = await open(file);
  const filter = await filterOf(flags, recording);
  try {
    const { events, lost } = await cut(recording, out, filter);
    if (json) return printJson({ file: out, events, lost });
    if (lost > 0) printError(`${file}: ${formatPlural(lost, "event")} of flows that are not known are left out`);
    process.stdout.write(`${out}: ${formatPlural(events, "event")}\n`);
  } catch (error) {
    if (error instanceof RecordingError) throw new UsageError(error.message);
    throw error;
  }
}

async function importFrom(file: string, { out, json }: Written): Promise<void> {
  assertOut(out, file);
  const { importLines, RecordingError } = await import("../recording/index.js");
  const { formatPlural } = await import("../report/format.js");
  const { version } = await import("./version.js");
  try {
    const { events, flows } = await importLines(file, out, version);
    if (json) return printJson({ file: out, events, flows });
    process.stdout.write(`${out}: ${formatPlural(events, "event")} of ${formatPlural(flows, "flow")}\n`);
  } catch (error) {
    if (error instanceof RecordingError) throw new UsageError(error.message);
    throw cannotRead(file, error);
  }
}

async function filterOf(flags: FilterFlags, recording: Recording): Promise<EventFilter> {
  const { FAULT_WORDS, STAGES, VERDICTS } = await import("../recording/index.js");
  const { flow, stage, verdict, fault, policy, from, to } = flags;
  const [fromNs, toNs] = [timeOf("--from", from), timeOf("--to", to)];
  if (fromNs !== undefined && toNs !== undefined && fromNs >= toNs) {
    throw new UsageError(`--to ${to}: must be later than --from ${from}`);
  }
  return {
    ...(flow === undefined ? {} : { flow }),
    ...(stage === undefined ? {} : { stage: numberOf("--stage", stage, STAGES) }),
    ...(verdict === undefined ? {} : { verdict: numberOf("--verdict", verdict, VERDICTS) }),
    ...(fault === undefined ? {} : { fault: numberOf("--fault", fault, FAULT_WORDS) }),
    ...(policy === undefined ? {} : { policies: slotsOf(policy, recording) }),
    ...(fromNs === undefined ? {} : { fromNs }),
    ...(toNs === undefined ? {} : { toNs }),
  };
}

function numberOf(flag: string, word: string, words: readonly string[]): number {
  const number = words.indexOf(word.replaceAll("-", "_"));
  if (number < 0) throw new UsageError(`${flag} ${word}: there is none; the nearest is ${nearest(word, words)}`);
  return number;
}

function slotsOf(policy: string, { header, path }: Recording): Set<number> {
  const named = header?.policies.filter(({ name }) => name === policy).map(({ slot }) => slot) ?? [];
  if (named.length > 0) return new Set(named);
  if (/^\d{1,5}$/.test(policy)) return new Set([Number(policy)]);
  const names = header?.policies.map(({ name }) => name) ?? [];
  const right =
    names.length === 0 ? "its header names none, so give a slot" : `the nearest is ${nearest(policy, names)}`;
  throw new UsageError(`--policy ${policy}: there is none in ${path}; ${right}`);
}

function timeOf(flag: string, written: string | undefined): number | undefined {
  try {
    return written === undefined ? undefined : parseDuration(written);
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(`${flag} ${written}: ${error.problem}`);
    throw error;
  }
}

function countOf(written: string | undefined): number {
  if (written === undefined) return Number.POSITIVE_INFINITY;
  if (!/^[1-9]\d{0,14}$/.test(written)) {
    throw new UsageError(`--limit ${written}: must be a whole number of 1 or more, such as --limit 20`);
  }
  return Number(written);
}

/** Lines for stdout, as fast as they are read there. */
class Lines {
  /** Added so far. */
  count = 0;
  #text = "";
  #isRead = true;

  constructor() {
    process.stdout.on("error", () => {
      this.#isRead = false;
    });
  }

  add(line: string): void {
    this.count++;
    this.#text += `${line}\n`;
  }

  /** Resolves once they were taken: whether anybody still reads. */
  async flush(): Promise<boolean> {
    const text = this.#text;
    this.#text = "";
    return text === "" ? this.#isRead : this.write(text);
  }

  /** Bytes as they are. */
  async write(bytes: string | Uint8Array): Promise<boolean> {
    if (this.#isRead) await new Promise<void>((resolve) => process.stdout.write(bytes, () => resolve()));
    return this.#isRead;
  }
}
