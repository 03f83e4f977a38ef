/** Recordings of the tests' own, written by the writer that runs use. */
import fc from "fast-check";
import {
  appendEvent,
  type EventBlock,
  type FlowIdentity,
  newColumns,
  type RecordedEvent,
  type RecordingHeader,
  RecordingWriter,
} from "../../../../src/recording/index.js";

export const header: RecordingHeader = {
  version: 1,
  mishap: "0.1.0",
  command: ["curl", "-s", "http://127.0.0.1:18080/"],
  seed: "0x7",
  policies: [{ slot: 0, name: "run", policy: { latency: "100ms", packet_loss: "1%" } }],
  layout_hash: "0x0123456789abcdef",
  machine: { kernel: "6.1.0", arch: "x64", cpus: 2, node: "v20.20.2" },
  started: "2026-01-02T03:04:05.678Z",
  record_all: false,
  setpriority: false,
};

export const endFacts = {
  exit_code: 0,
  duration_ms: 1234,
  flows: 2,
  ops: 10,
  determinism: { level: "exact", reason: "nothing drew on chance" },
};

/** A block, its events given as objects. */
export function blockOf(
  events: readonly Readonly<RecordedEvent>[],
  flows: readonly FlowIdentity[] = [],
  firstFlow = 0,
): EventBlock {
  const columns = newColumns(events.length);
  for (const event of events) appendEvent(columns, event);
  return { firstFlow, flows, events: columns };
}

/** An event that says nothing but what is given. */
export const eventOf = (given: Partial<RecordedEvent>): RecordedEvent => ({
  flow: 0,
  op: 1,
  direction: 0,
  stage: 2,
  verdict: 2,
  fault: 2,
  policy: 0,
  unit: 0,
  value: 0,
  offset: 0,
  bytes: 100,
  at_ns: 0,
  ...given,
});

/** Writes a recording of blocks, with an end. */
export async function record(path: string, blocks: readonly EventBlock[], facts = header): Promise<void> {
  const writer = await RecordingWriter.create(path, facts);
  for (const block of blocks) await writer.write(block);
  await writer.end(endFacts);
}

const big = fc.oneof(fc.nat(300), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER));

/** Any event that the format has room for. */
export const anyEvent: fc.Arbitrary<RecordedEvent> = fc.record({
  flow: fc.oneof(fc.nat(5), fc.nat(0xffffffff)),
  op: fc.nat(3),
  direction: fc.nat(1),
  stage: fc.nat(8),
  verdict: fc.nat(9),
  fault: fc.nat(16),
  policy: fc.nat(0xffff),
  unit: big,
  value: fc.oneof(
    big,
    big.map((each) => 0 - each),
  ),
  offset: fc.nat(0xffff),
  bytes: fc.nat(0xffffffff),
  at_ns: big,
});

/** Any flow, its words beyond ASCII included. */
export const anyFlow: fc.Arbitrary<FlowIdentity> = fc.record({
  key: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  words: fc.string({ unit: "grapheme", maxLength: 40 }),
});
