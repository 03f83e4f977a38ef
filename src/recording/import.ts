/**
 * Recordings from lines of JSON: those of mishap's journal, which say of each decision which flow's and which unit's it
 * was. Without these there is nothing that another run could meet again, and lines that lack them are refused.
 */

import { readFileSync } from "node:fs";
import { arch, availableParallelism, release } from "node:os";
import { gunzipSync } from "node:zlib";
import { z } from "zod";
import { appendEvent, BlockBuilder, type RecordedEvent } from "./events.js";
import { FORMAT_VERSION, type RecordingHeader } from "./format.js";
import { flowKey } from "./key.js";
import { RecordingError } from "./reader.js";
import { CONTINUE, DIRECTIONS, FAULT_WORDS, OPS, STAGES, VERDICTS } from "./words.js";
import { RecordingWriter } from "./writer.js";

const whole = z.int().min(0);
const fields = z.object({
  flow: z.string().min(1),
  direction: z.enum(DIRECTIONS),
  op: z.enum(OPS),
  unit: whole,
  stage: z.enum(STAGES),
  verdict: z.enum(VERDICTS),
  fault: z.enum(FAULT_WORDS).optional(),
  value: z.int(),
  offset: whole.max(0xffff).default(0),
  bytes: whole.max(0xffffffff).default(0),
  at_ns: whole.default(0),
});

const line = fields.refine(({ verdict, fault }) => fault !== undefined || verdict === VERDICTS[CONTINUE], {
  path: ["fault"],
  error: "is missing",
});

/** A line of faultcore's recordings: where a decision was asked for and what it was, in the order of one process. */
const faultcoreLine = z.object({ site: z.string(), decision: z.string() });

/** Lines that were read. */
export interface Imported {
  readonly events: number;
  readonly flows: number;
}

/**
 * Makes a recording of a file of such lines, gzipped or not. Nothing is written unless all of them can be read: rejects
 * with a {@link RecordingError} that names the line.
 */
export async function importLines(from: string, to: string, mishap: string): Promise<Imported> {
  const lines = readLines(from);
  const writer = await RecordingWriter.create(to, headerOf(mishap));
  try {
    const builder = new BlockBuilder();
    const flows = new Set<string>();
    for (const [words, event] of lines) {
      flows.add(words);
      appendEvent(builder.events, { ...event, flow: builder.flowNumber(flowKey(words), words) });
      if (builder.full) await flush(builder, writer);
    }
    await flush(builder, writer);
    await writer.end({});
    return { events: lines.length, flows: flows.size };
  } finally {
    await writer.close();
  }
}

async function flush(builder: BlockBuilder, writer: RecordingWriter): Promise<void> {
  const block = builder.block();
  if (block !== undefined) await writer.write(block);
  builder.clear();
}

function readLines(path: string): [words: string, event: RecordedEvent][] {
  const texts = textOf(path).split("\n");
  return texts.flatMap((text, i) => (text.trim() === "" ? [] : [readLine(text, `${path}:${i + 1}`)]));
}

function textOf(path: string): string {
  const content = readFileSync(path);
  const isGzip = content[0] === 0x1f && content[1] === 0x8b;
  try {
    return (isGzip ? gunzipSync(content) : content).toString("utf8");
  } catch (error) {
    throw new RecordingError(`${path}: cannot be unpacked (${error instanceof Error ? error.message : String(error)})`);
  }
}

function readLine(text: string, where: string): [words: string, event: RecordedEvent] {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch {
    throw new RecordingError(`${where}: is no line of JSON, as \`mishap run --journal FILE\` writes them`);
  }
  const { success, data, error } = line.safeParse(given);
  if (success) return [data.flow, eventOf(data)];
  if (faultcoreLine.safeParse(given).success) {
    throw new RecordingError(
      `${where}: faultcore's events say where in its code a decision was asked for, but neither of which flow nor of ` +
        "which unit, so that no other run could be held against them; record the program with `mishap run --record FILE`",
    );
  }
  const [issue] = error.issues;
  const field = issue?.path.join(".");
  throw new RecordingError(`${where}: ${field ? `${field}: ` : ""}${issue?.message ?? "is no decision"}`);
}

function eventOf(given: z.infer<typeof line>): RecordedEvent {
  return {
    flow: 0,
    op: OPS.indexOf(given.op),
    direction: DIRECTIONS.indexOf(given.direction),
    stage: STAGES.indexOf(given.stage),
    verdict: VERDICTS.indexOf(given.verdict),
    fault: given.fault === undefined ? 0 : FAULT_WORDS.indexOf(given.fault),
    policy: 0,
    unit: given.unit,
    value: given.value,
    offset: given.offset,
    bytes: given.bytes,
    at_ns: given.at_ns,
  };
}

/** What lines do not say is empty: neither the command nor the policies are known. */
function headerOf(mishap: string): RecordingHeader {
  return {
    version: FORMAT_VERSION,
    mishap,
    command: [],
    seed: "0x0",
    policies: [],
    layout_hash: "",
    machine: { kernel: release(), arch: arch(), cpus: availableParallelism(), node: process.version },
    started: new Date().toISOString(),
    record_all: false,
    setpriority: false,
    partial: true,
  };
}
