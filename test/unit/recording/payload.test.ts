// Frames of payload: what goes in comes out, and damaged ones are refused and nothing worse.
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { expect, it } from "vitest";
import { FormatError } from "../../../src/recording/format.js";
import { decodePayload, PayloadBuilder } from "../../../src/recording/payload.js";

const anyPiece = fc.record({
  flow: fc.nat(),
  direction: fc.nat(1),
  begins: fc.boolean(),
  atNs: fc.maxSafeNat(),
  bytes: fc.uint8Array({ maxLength: 88 }).map((bytes) => Buffer.from(bytes)),
});

it("pieces come out as they went in, frame by frame", () => {
  fc.assert(
    fc.property(fc.array(fc.array(anyPiece, { minLength: 1 }), { maxLength: 3 }), (frames) => {
      const builder = new PayloadBuilder();
      for (const pieces of frames) {
        for (const piece of pieces) builder.add(piece);
        const taken = builder.take();
        expect(decodePayload(deflateRawSync(taken ?? new Uint8Array()))).toEqual(pieces);
      }
      expect(builder.take()).toBeUndefined();
    }),
  );
});

it("bytes that are no frame of payload are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, deflated) => {
      try {
        for (const piece of decodePayload(deflated ? deflateRawSync(bytes) : bytes))
          expect(piece.direction).toBeLessThan(2);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }),
  );
});
