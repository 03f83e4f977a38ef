// Recordings are read as far as they are whole: cut at every byte, or with bytes changed anywhere behind their start.
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FRAME_HEAD_BYTES, MAGIC } from "../../../src/recording/format.js";
import {
  isGap,
  openRecording,
  type RecordedEvent,
  RecordingError,
  RecordingWriter,
} from "../../../src/recording/index.js";
import { blockOf, endFacts, eventOf, header, record } from "./support/recordings.js";

const folder = mkdtempSync(join(tmpdir(), "mishap-recording-"));
afterAll(() => rmSync(folder, { recursive: true }));

const whole = join(folder, "whole.mishap");
const flows = [
  { key: 11n, words: "tcp:127.0.0.1:80#1@0" },
  { key: 12n, words: "tcp:127.0.0.1:80#2@0" },
];
const blocks: RecordedEvent[][] = [0, 1, 2].map((block) =>
  [0, 1, 2, 3].map((i) => eventOf({ flow: i % 2, unit: 4 * block + i, at_ns: 1000 * (4 * block + i), value: i })),
);
const events = blocks.flat();
let bytes: Buffer;

beforeAll(async () => {
  await record(
    whole,
    blocks.map((each, i) => blockOf(each, i === 0 ? flows : [])),
  );
  bytes = readFileSync(whole);
});

/** What is read of such bytes. */
function read(content: Uint8Array) {
  const path = join(folder, "damaged.mishap");
  writeFileSync(path, content);
  const recording = openRecording(path);
  return { recording, ...recording.wholeness, events: [...recording.events()] };
}

describe("a whole recording", () => {
  it("is read as it was written", () => {
    const recording = openRecording(whole);
    expect(recording.header).toEqual(header);
    expect([...recording.events()]).toEqual(events);
    expect([recording.flow(0), recording.flow(1), recording.flow(2)]).toEqual([...flows, undefined]);
    expect(recording.end).toEqual({ ...endFacts, events: events.length, lost: 0 });
    expect(recording.wholeness).toEqual({
      bytes: bytes.length,
      frames: 5,
      damaged_bytes: 0,
      damaged_frames: 0,
      truncated: false,
      end: true,
    });
  });

  it("is for its owner's eyes", () => {
    expect(statSync(whole).mode & 0o777).toBe(0o600);
  });

  it("can be read while it is written", async () => {
    const path = join(folder, "running.mishap");
    const writer = await RecordingWriter.create(path, header);
    await writer.write(blockOf(blocks[0] ?? [], flows));
    const { wholeness, ...recording } = openRecording(path);
    expect(recording.header).toEqual(header);
    expect(wholeness).toMatchObject({ frames: 2, damaged_bytes: 0, truncated: false, end: false });
    await writer.end(endFacts);
  });

  it("keeps its order, however many writes are under way, and marks its gaps", async () => {
    const path = join(folder, "order.mishap");
    const writer = await RecordingWriter.create(path, header);
    const sizes = [3000, 1, 2000, 10, 1];
    const writes = sizes.map((size, i) =>
      writer.write(blockOf(Array.from({ length: size }, (_, unit) => eventOf({ unit, value: i })))),
    );
    writes.push(writer.gap(7), writer.header({ ...header, policies: [] }));
    await Promise.all([...writes, writer.end(endFacts)]);
    const recording = openRecording(path);
    const parts = [...recording.parts()];
    expect(parts.map((part) => (isGap(part) ? part.lost : part.events.value[0]))).toEqual([0, 1, 2, 3, 4, 7]);
    expect(recording.lost).toBe(7);
    expect(recording.end).toMatchObject({ events: 5012, lost: 7 });
    expect(recording.header?.policies).toEqual([]);
  });

  it("may be longer than what is read at once", async () => {
    const path = join(folder, "long.mishap");
    const writer = await RecordingWriter.create(path, header);
    const random = Array.from({ length: 60_000 }, (_, unit) => eventOf({ unit, value: (unit * 2654435761) % 2 ** 48 }));
    for (let i = 0; i < 5; i++) await writer.write(blockOf(random));
    await writer.end(endFacts);
    const content = readFileSync(path);
    expect(content.length).toBeGreaterThan(2 ** 20);
    content.fill(0, 100, 2 ** 20); // so that the next marker is far away
    const damaged = read(content);
    expect(damaged.events.length).toBeGreaterThanOrEqual(60_000);
    expect(damaged.events.length % 60_000).toBe(0);
    expect(damaged.end).toBe(true);
  });
});

describe("a recording that was cut", () => {
  it("opens at every byte, says what is missing, and has the first events", () => {
    let most = 0;
    for (let length = 0; length < bytes.length; length++) {
      const cut = read(bytes.subarray(0, length));
      expect(cut.events, `${length} bytes`).toEqual(events.slice(0, cut.events.length));
      expect(cut.events.length % 4, `${length} bytes`).toBe(0);
      expect(cut.events.length, `${length} bytes`).toBeGreaterThanOrEqual(most);
      most = cut.events.length;
      expect(cut.end, `${length} bytes`).toBe(false);
      expect(cut.bytes).toBe(length);
      expect(cut.truncated, `${length} bytes`).toBe(cut.damaged_bytes > 0 || length < MAGIC.length);
      expect(cut.damaged_frames, `${length} bytes`).toBe(cut.damaged_bytes > 0 ? 1 : 0);
    }
    expect(most).toBe(events.length);
  });

  it("says so when it is cut while it is read", () => {
    const path = join(folder, "shrinking.mishap");
    writeFileSync(path, bytes);
    const recording = openRecording(path);
    truncateSync(path, Math.floor(bytes.length / 2));
    expect(() => [...recording.events()]).toThrow("was changed while it was read");
  });
});

describe("a recording with bytes changed", () => {
  /** Changes of a file: where, and by which bits. */
  const damage = (length: number) =>
    fc.array(fc.tuple(fc.integer({ min: MAGIC.length, max: length - 1 }), fc.integer({ min: 1, max: 255 })), {
      minLength: 1,
      maxLength: 12,
    });

  function damaged(places: readonly (readonly [number, number])[]): Buffer {
    const content = Buffer.from(bytes);
    for (const [at, bits] of places) content[at] = (content[at] ?? 0) ^ bits;
    return content;
  }

  it("opens, and holds no event that was not written", () => {
    fc.assert(
      fc.property(damage(bytes.length), (places) => {
        const found = read(damaged(places));
        const kept = blocks.filter((block) => found.events.some(({ unit }) => unit === block[0]?.unit));
        expect(found.events).toEqual(kept.flat());
        const same = damaged(places).equals(bytes);
        expect(found.damaged_bytes > 0 && found.damaged_frames > 0).toBe(!same);
        expect(found.frames).toBeLessThanOrEqual(same ? 5 : 4);
      }),
      { numRuns: 2000 },
    );
  });

  it("loses one frame to one byte, wherever it is", () => {
    for (let at = MAGIC.length; at < bytes.length; at++) {
      const found = read(damaged([[at, 0x55]]));
      expect(found.frames, `byte ${at}`).toBe(4);
      expect(found.events.length, `byte ${at}`).toBeGreaterThanOrEqual(8);
      expect(found.damaged_bytes, `byte ${at}`).toBeGreaterThan(FRAME_HEAD_BYTES);
    }
  });

  it("is recognised by its frames when its start is damaged", () => {
    for (let at = 0; at < MAGIC.length; at++) {
      const found = read(damaged([[at, 0x55]]));
      expect(found.events).toEqual(events);
      expect(found.end).toBe(true);
    }
  });

  it("knows the flows of later blocks by their numbers, and those that were lost by none", async () => {
    const path = join(folder, "flows.mishap");
    await record(path, [
      blockOf([eventOf({ flow: 0 })], [flows[0] ?? { key: 0n, words: "" }]),
      blockOf([eventOf({ flow: 1 })], [flows[1] ?? { key: 0n, words: "" }], 1),
    ]);
    const content = readFileSync(path);
    const second = content.indexOf("MARF", MAGIC.length + 1);
    content[second + FRAME_HEAD_BYTES] = (content[second + FRAME_HEAD_BYTES] ?? 0) ^ 1;
    const { recording, events: found } = read(content);
    expect(found.map(({ flow }) => flow)).toEqual([1]);
    expect([recording.flow(0), recording.flow(1)]).toEqual([undefined, flows[1]]);
  });
});

describe("what is no recording", () => {
  it("is refused in a sentence", () => {
    const path = join(folder, "not.mishap");
    writeFileSync(path, "just some text\n");
    expect(() => openRecording(path)).toThrow(RecordingError);
    expect(() => openRecording(path)).toThrow(`${path}: is no recording; \`mishap run --record FILE\` makes one`);
    expect(() => openRecording(folder)).toThrow(`${folder}: is not a file, as a recording is`);
    expect(() => openRecording(join(folder, "none"))).toThrow("ENOENT");
  });

  it("or is one of a later version", async () => {
    const path = join(folder, "later.mishap");
    await record(path, [], { ...header, version: 2 });
    expect(() => openRecording(path)).toThrow("version 2 of the format; this one reads 1");
    writeFileSync(path, Buffer.concat([Buffer.from("MISHAPR"), Buffer.of(3), Buffer.from("something new")]));
    expect(() => openRecording(path)).toThrow("version 3 of the format; this one reads 1");
  });
});
