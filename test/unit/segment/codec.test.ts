// Structs go into bytes and come back by the exported layout alone.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Codec, codec, type Layout, layout, type StructValue } from "../../../src/segment/index.js";

const limits: Record<string, [bigint, bigint]> = {
  u8: [0n, 2n ** 8n - 1n],
  u16: [0n, 2n ** 16n - 1n],
  u32: [0n, 2n ** 32n - 1n],
  u64: [0n, 2n ** 64n - 1n],
  i32: [-(2n ** 31n), 2n ** 31n - 1n],
  i64: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Any value of a struct that the layout allows. */
function anyStruct(name: string): fc.Arbitrary<StructValue> {
  const one = (type: string): fc.Arbitrary<number | bigint | StructValue> => {
    const limit = limits[type];
    if (limit === undefined) return anyStruct(type);
    const value = fc.bigInt({ min: limit[0], max: limit[1] });
    return type.endsWith("64") ? value : value.map(Number);
  };
  const fields = codec.struct(name).fields.map(({ name: field, type, count, size }) => {
    if (type === "char") {
      const text = fc.string({ unit: "grapheme", maxLength: size }).map((s) => s.replaceAll("\0", ""));
      return [field, text.filter((s) => Buffer.byteLength(s) < size)];
    }
    if (count === 1) return [field, one(type)];
    if (type === "u8") return [field, fc.uint8Array({ minLength: count, maxLength: count })];
    return [field, fc.array(one(type), { minLength: count, maxLength: count })];
  });
  return fc.record(Object.fromEntries(fields)) as fc.Arbitrary<StructValue>;
}

/** A row of zeros. */
function emptyRow(): StructValue {
  return codec.decode("Row", new Uint8Array(codec.struct("Row").size));
}

describe("the codec", () => {
  for (const name of ["Row", "Target", "Header", "Flow", "Event", "Process"]) {
    it(`gives back every ${name} that it was given`, () => {
      fc.assert(
        fc.property(anyStruct(name), (value) => {
          const bytes = codec.encode(name, value);
          expect(bytes.length).toBe(codec.struct(name).size);
          expect(codec.decode(name, bytes)).toEqual(value);
        }),
        { numRuns: 50 },
      );
    });
  }

  it("fills in the sequence lock and reserved fields, at every depth, and shorter lists", () => {
    const { seq: _seq, reserved: _reserved, ...row } = emptyRow();
    const { reserved: _up, ...up } = row.up as StructValue;
    const bytes = codec.encode("Row", { ...row, up, inject_data: new Uint8Array([1, 2]), inject_length: 2 });
    const decoded = codec.decode("Row", bytes);
    expect(decoded.seq).toBe(0);
    expect((decoded.inject_data as Uint8Array).slice(0, 3)).toEqual(new Uint8Array([1, 2, 0]));
  });

  const wrong: [string, StructValue, string][] = [
    ["a missing field", { seed: undefined as unknown as bigint }, "Row.seed is missing"],
    ["an unknown field", { sed: 1n }, "Row has no field sed"],
    ["an unknown field within", { up: { ...(emptyRow().up as StructValue), lag: 1 } }, "Row.up has no field lag"],
    ["a number for a bigint", { seed: 1 }, "Row.seed must be a whole bigint"],
    ["a bigint for a number", { faults: 1n }, "Row.faults must be a whole number"],
    ["a fraction", { faults: 1.5 }, "Row.faults must be a whole number"],
    ["a number too large", { loss_mode: 256 }, "Row.loss_mode must be 0 to 255, not 256"],
    ["a negative one", { seed: -1n }, "Row.seed must be 0 to 18446744073709551615, not -1"],
    ["a text too long", { name: "x".repeat(64) }, "Row.name must be shorter than 64 bytes"],
    ["a text with NUL", { name: "a\0b" }, "Row.name must be text without NUL characters"],
    ["a list too long", { replace_find: new Uint8Array(33) }, "Row.replace_find must hold at most 32 elements"],
    ["a number for a struct", { down: 3 }, "Row.down must be an object with the fields of RowDirection"],
  ];
  for (const [what, change, message] of wrong) {
    it(`refuses ${what}`, () => {
      expect(() => codec.encode("Row", { ...emptyRow(), ...change })).toThrow(message);
    });
  }

  it("refuses bytes too short and structs it does not know", () => {
    expect(() => codec.decode("Row", new Uint8Array(10))).toThrow("Row needs 552 bytes");
    const empty: Layout = { ...layout, structs: [] };
    expect(() => new Codec(empty).struct("Row")).toThrow("the contract has no struct Row");
  });
});
