// Runs test/programs/talk.c, a program that does on sockets what it is told step by step, under mishap and without.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Evidence, FaultEvidence } from "../../../src/report/schema.js";
import { evidenceOf, start } from "../cli-harness.js";
import { compile } from "./programs.js";

/** What one step of the program saw. */
export interface Step {
  readonly step: string;
  readonly result: number;
  readonly errno: string;
  /** When it began, in milliseconds since the first step. */
  readonly at: number;
  readonly ms: number;
  readonly data: string;
}

/** From the beginning of one step to the end of another: from a send until it arrived. */
export function spanMs(first: Step | undefined, last: Step | undefined): number {
  if (first === undefined || last === undefined) throw new Error("a step is missing");
  return last.at + last.ms - first.at;
}

/** A decision in the journal. */
export interface JournalLine {
  readonly flow: string;
  readonly direction: string;
  readonly op: string;
  readonly unit: number;
  readonly stage: string;
  readonly verdict: string;
}

/** A finished run: its steps in order, and its evidence. */
export class Talk {
  readonly steps: readonly Step[];
  readonly evidence: Evidence;
  readonly journal: readonly JournalLine[];

  constructor(stdout: string, evidence: Evidence, journal: readonly JournalLine[]) {
    this.steps = stepsOf(stdout);
    this.evidence = evidence;
    this.journal = journal;
  }

  /** The steps whose text begins so. */
  all(prefix: string): readonly Step[] {
    return this.steps.filter(({ step }) => step.startsWith(prefix));
  }

  /** The only such step. */
  one(prefix: string): Step {
    const [found, another] = this.all(prefix);
    if (found === undefined || another !== undefined) {
      throw new Error(`not exactly one step ${prefix}: ${JSON.stringify(this.steps)}`);
    }
    return found;
  }

  /** As spanMs, for two steps by their prefixes. */
  between(first: string, last: string): number {
    return spanMs(this.one(first), this.one(last));
  }

  /** The evidence of a fault. */
  fault(name: string): FaultEvidence {
    const found = this.evidence.faults.find(({ fault }) => fault === name);
    if (found === undefined) throw new Error(`no evidence of ${name}: ${JSON.stringify(this.evidence)}`);
    return found;
  }
}

function stepsOf(stdout: string): Step[] {
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Step);
}

let serial = 0;

/** The talking program, compiled once for a test file. */
export class Talker {
  readonly #folder: string;
  readonly #program: string;

  private constructor(folder: string, program: string) {
    this.#folder = folder;
    this.#program = program;
  }

  static async in(folder: string): Promise<Talker> {
    return new Talker(folder, await compile(folder, "talk.c"));
  }

  /** The command for these steps. */
  command(steps: readonly string[]): [string, ...string[]] {
    return [this.#program, ...steps];
  }

  /** Under mishap with these flags, with its journal. */
  async under(flags: readonly string[], ...steps: string[]): Promise<Talk> {
    const journal = join(this.#folder, `journal-${++serial}`);
    const run = await evidenceOf(this.#folder, ["--journal", journal, ...flags], this.command(steps));
    const lines = readFileSync(journal, "utf8").split("\n").slice(0, -1);
    return new Talk(
      run.stdout,
      run.evidence,
      lines.map((line) => JSON.parse(line) as JournalLine),
    );
  }

  /** As it is, with other variables in its environment if any are given. */
  async bare(steps: readonly string[], env: Record<string, string> = {}): Promise<readonly Step[]> {
    const { code, stdout, stderr } = await start(this.#program, steps, { env }).finished;
    if (code !== 0) throw new Error(`the program ended with ${code}: ${stderr}`);
    return stepsOf(stdout);
  }
}
