// The format by itself: whatever is encoded is decoded, and its numbers mean what the contract says.
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { eventAt, MAX_BLOCK_EVENTS, newColumns } from "../../../src/recording/events.js";
import {
  checksumOf,
  decodeColumns,
  decodeEnd,
  decodeEvents,
  decodeFrameHead,
  decodeGap,
  decodeHeader,
  encodeEnd,
  encodeEvents,
  encodeFrame,
  encodeGap,
  encodeHeader,
  FormatError,
  FRAME_HEAD_BYTES,
  MAX_PAYLOAD_BYTES,
} from "../../../src/recording/format.js";
import { VarintReader, VarintWriter } from "../../../src/recording/varint.js";
import { DIRECTIONS, FAULT_WORDS, OPS, STAGES, VERDICTS } from "../../../src/recording/words.js";
import { layout } from "../../../src/segment/index.js";
import { anyEvent, anyFlow, blockOf, endFacts, eventOf, header } from "./support/recordings.js";

describe("varints", () => {
  it("hold every whole number up to 2^53", () => {
    fc.assert(
      fc.property(fc.array(fc.maxSafeInteger()), (values) => {
        const writer = new VarintWriter();
        for (const value of values) writer.signed(value);
        for (const value of values) writer.unsigned(Math.abs(value));
        const reader = new VarintReader(writer.bytes);
        expect(values.map(() => reader.signed())).toEqual(values);
        expect(values.map(() => reader.unsigned())).toEqual(values.map((value) => Math.abs(value)));
        expect(reader.done).toBe(true);
      }),
    );
  });

  it("are what docs/recording.md says", () => {
    const writer = new VarintWriter();
    writer.unsigned(300);
    for (const value of [0, -1, 1, -2, -65]) writer.signed(value);
    expect([...writer.bytes]).toEqual([0xac, 0x02, 0, 1, 2, 3, 0x81, 0x01]);
  });

  it.each([-1, 0.5, 2 ** 53, Number.NaN])("refuse %d", (value) => {
    expect(() => new VarintWriter().unsigned(value)).toThrow(RangeError);
  });

  it("end where they say", () => {
    expect(() => new VarintReader(Uint8Array.of(0x80)).unsigned()).toThrow("end within a number");
    expect(() => new VarintReader(new Uint8Array(9).fill(0xff)).unsigned()).toThrow("beyond 2^53");
  });
});

describe("events", () => {
  it("are decoded as they were encoded", () => {
    fc.assert(
      fc.property(fc.array(anyEvent), fc.array(anyFlow), fc.nat(0xffffff), (events, flows, firstFlow) => {
        const block = decodeEvents(deflateRawSync(encodeEvents(blockOf(events, flows, firstFlow))));
        expect(block.flows).toEqual(flows);
        if (flows.length > 0) expect(block.firstFlow).toBe(firstFlow);
        expect(Array.from({ length: block.events.count }, (_, i) => eventAt(block.events, i))).toEqual(events);
      }),
    );
  });

  it("that the format has no room for are refused", () => {
    const encode = (given: object): Buffer => encodeEvents(blockOf([eventOf(given)]));
    for (const given of [
      { op: 4 },
      { direction: 2 },
      { stage: 32 },
      { verdict: 16 },
      { unit: -1 },
      { value: 2 ** 53 },
    ]) {
      expect(() => encode(given), JSON.stringify(given)).toThrow(RangeError);
    }
    const tooMany = newColumns(MAX_BLOCK_EVENTS + 1);
    tooMany.count = MAX_BLOCK_EVENTS + 1;
    expect(() => encodeEvents({ firstFlow: 0, flows: [], events: tooMany })).toThrow("65536");
  });

  it("never come of bytes that are none: they are read, or a FormatError says why not", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          const { events } = decodeEvents(deflateRawSync(bytes));
          expect(events.count).toBeLessThanOrEqual(MAX_BLOCK_EVENTS);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("leave room for columns of a later version", () => {
    const bytes = encodeEvents(blockOf([eventOf({ unit: 7 })]));
    const later = decodeColumns(Buffer.concat([bytes, Buffer.of(2, 1, 2)]));
    expect(eventAt(later.events, 0)).toEqual(eventOf({ unit: 7 }));
  });
});

describe("facts", () => {
  it("are decoded as they were encoded", () => {
    expect(decodeHeader(encodeHeader(header))).toEqual(header);
    expect(decodeGap(encodeGap({ lost: 3 }))).toEqual({ lost: 3 });
    const end = { ...endFacts, events: 10, lost: 0 };
    expect(decodeEnd(encodeEnd(end))).toEqual(end);
  });

  it("keep to what they are: no other field gets into a recording", () => {
    const more = { ...header, environment: { SECRET: "1" } };
    expect(decodeHeader(encodeHeader(more))).toEqual(header);
  });

  it("that do not hold what they should are refused", () => {
    expect(() => decodeHeader(encodeGap({ lost: 3 }))).toThrow(FormatError);
    expect(() => decodeGap(Buffer.from("no deflate"))).toThrow(FormatError);
  });
});

describe("frames", () => {
  it("say what they hold", () => {
    const payload = Buffer.from("payload");
    const frame = encodeFrame(2, payload);
    expect(frame.toString("latin1", 0, 4)).toBe("MARF");
    expect(frame.readUInt32LE(0)).toBe(0x4652414d);
    expect(decodeFrameHead(frame, 0)).toEqual({ kind: 2, payloadBytes: 7, checksum: checksumOf(2, payload) });
    expect(frame.subarray(FRAME_HEAD_BYTES)).toEqual(payload);
    expect(checksumOf(2, payload)).not.toBe(checksumOf(3, payload));
    expect(() => encodeFrame(2, Buffer.alloc(MAX_PAYLOAD_BYTES + 1))).toThrow(RangeError);
  });
});

describe("the words of a recording", () => {
  it("are the contract's", () => {
    const { OpKind, Direction, Stage, Verdict, Fault } = layout.enums;
    const numbered = (words: readonly string[]): object => Object.fromEntries(words.map((word, i) => [word, i]));
    expect(OpKind).toMatchObject(numbered(OPS));
    expect(Direction).toMatchObject(numbered(DIRECTIONS));
    expect(Stage).toMatchObject(numbered(STAGES));
    expect(Verdict).toMatchObject(numbered(VERDICTS));
    expect(Fault).toMatchObject(numbered(FAULT_WORDS));
  });
});
