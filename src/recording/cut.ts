/** Makes a recording of a part of another. */

import { BlockBuilder, type EventColumns } from "./events.js";
import { type EventFilter, selection } from "./filter.js";
import type { RecordingHeader } from "./format.js";
import { isGap, type Recording, RecordingError } from "./reader.js";
import { RecordingWriter } from "./writer.js";

/** What came of a cut. */
export interface Cut {
  /** Events written. */
  readonly events: number;
  /** Events meant, but of flows whose identity is not whole: they are a gap in the cut. */
  readonly lost: number;
}

/** Whether the event at a place of a block is meant. Asked once for every event, in the order of the file. */
export type IsMeant = (events: EventColumns, at: number) => boolean;

/**
 * Writes the events meant, with the recording's header, its gaps, and its end where it is whole: a part of what is not
 * whole has no end either. Rejects with a {@link RecordingError} where no header is whole.
 */
export function cut(recording: Recording, to: string, filter: EventFilter): Promise<Cut> {
  return writePart(recording, to, (header) => header, selection(recording, filter));
}

/** As {@link cut}, with the events that are meant by another rule, and another header. */
export async function writePart(
  recording: Recording,
  to: string,
  headerOf: (header: RecordingHeader) => RecordingHeader,
  isMeant: IsMeant,
): Promise<Cut> {
  const { header, end, wholeness } = recording;
  if (header === undefined) {
    throw new RecordingError(`${recording.path}: its header is not whole, and a part of it would have none either`);
  }
  const writer = await RecordingWriter.create(to, {
    ...headerOf(header),
    partial: true,
    ...(!recording.portless && { keep_ports: true }),
  });
  try {
    const made = await copy(recording, writer, isMeant);
    if (end !== undefined && wholeness.damaged_bytes === 0) await writer.end(end);
    return made;
  } finally {
    await writer.close();
  }
}

async function copy(recording: Recording, writer: RecordingWriter, isMeant: IsMeant): Promise<Cut> {
  const builder = new BlockBuilder();
  let [events, lost] = [0, 0];
  for (const part of recording.parts()) {
    if (isGap(part)) {
      await writer.gap(part.lost);
      continue;
    }
    let unknown = 0;
    for (let i = 0; i < part.events.count; i++) {
      if (!isMeant(part.events, i)) continue;
      const flow = recording.flow(part.events.flow[i] ?? 0);
      if (flow === undefined) unknown++;
      else append(builder.events, part.events, i, builder.flowNumber(flow.key, flow.words));
    }
    events += builder.events.count;
    lost += unknown;
    const block = builder.block();
    if (block !== undefined) await writer.write(block);
    builder.clear();
    if (unknown > 0) await writer.gap(unknown);
  }
  return { events, lost };
}

function append(to: EventColumns, from: EventColumns, at: number, flow: number): void {
  const end = to.count++;
  for (const column of [
    "op",
    "direction",
    "stage",
    "verdict",
    "fault",
    "policy",
    "unit",
    "value",
    "offset",
    "bytes",
  ] as const) {
    to[column][end] = from[column][at] ?? 0;
  }
  to.at_ns[end] = from.at_ns[at] ?? 0;
  to.flow[end] = flow;
}
