/**
 * Structs of the contract, encoded and decoded by the layout that the addon exports. Numbers of up to 32 bits are
 * numbers, 64-bit ones bigints, char arrays strings, u8 arrays bytes, everything else lists and nested structs.
 */

/** A field of a struct, as native/contract declares it. */
export interface FieldLayout {
  name: string;
  /** u8, u16, u32, u64, i32, i64, char, or another struct's name. */
  type: string;
  offset: number;
  /** 1, or the length of an array. */
  count: number;
  /** Bytes, all elements together. */
  size: number;
  doc: string;
}

/** A struct of the contract. */
export interface StructLayout {
  name: string;
  size: number;
  doc: string;
  fields: FieldLayout[];
}

/** The whole contract, as the addon exports it. */
export interface Layout {
  abiVersion: number;
  /** FNV-1a over all names, types, offsets and sizes, such as `0x0123456789abcdef`. */
  layoutHash: string;
  structs: StructLayout[];
  /** Name to number for each enum: `enums.Fault.latency`. */
  enums: Record<string, Record<string, number>>;
  constants: Record<string, number>;
}

/** The value of one field. */
export type FieldValue = number | bigint | string | Uint8Array | number[] | bigint[] | StructValue | StructValue[];

/** A struct's fields by name. */
export interface StructValue {
  [field: string]: FieldValue;
}

/** Filled in by whoever writes, and therefore not asked for: padding, sequence locks, who holds a slot, and what a
 * script is asked. */
const filledIn = new Set(["reserved", "seq", "holder", "withdrawn", "script_asks"]);

const scalars: Record<string, { bytes: number; min: bigint; max: bigint }> = {
  u8: { bytes: 1, min: 0n, max: 0xffn },
  u16: { bytes: 2, min: 0n, max: 0xffffn },
  u32: { bytes: 4, min: 0n, max: 0xffffffffn },
  u64: { bytes: 8, min: 0n, max: 0xffffffffffffffffn },
  i32: { bytes: 4, min: -0x80000000n, max: 0x7fffffffn },
  i64: { bytes: 8, min: -0x8000000000000000n, max: 0x7fffffffffffffffn },
};

/** Encodes and decodes the structs of one layout. */
export class Codec {
  readonly #structs: Map<string, StructLayout>;

  constructor(layout: Layout) {
    this.#structs = new Map(layout.structs.map((struct) => [struct.name, struct]));
  }

  /** The layout of a struct. */
  struct(name: string): StructLayout {
    const struct = this.#structs.get(name);
    if (struct === undefined) throw new Error(`the contract has no struct ${name}`);
    return struct;
  }

  /** Bytes of one struct, from `bytes` at `offset`. */
  decode(name: string, bytes: Uint8Array, offset = 0): StructValue {
    const struct = this.struct(name);
    if (bytes.byteLength < offset + struct.size) throw new RangeError(`${name} needs ${struct.size} bytes`);
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const value: StructValue = {};
    for (const field of struct.fields) value[field.name] = this.#decodeField(field, buffer, offset + field.offset);
    return value;
  }

  /** As many structs as the bytes hold. */
  decodeAll(name: string, bytes: Uint8Array): StructValue[] {
    const { size } = this.struct(name);
    return Array.from({ length: Math.floor(bytes.byteLength / size) }, (_, i) => this.decode(name, bytes, i * size));
  }

  /**
   * The struct's bytes. Every field must be given and nothing else, but `seq` and `reserved`, which are zero unless
   * given. Shorter arrays are filled up with zeros.
   */
  encode(name: string, value: StructValue): Uint8Array {
    const bytes = new Uint8Array(this.struct(name).size);
    this.#encodeInto(name, value, bytes, 0, name);
    return bytes;
  }

  /** The structs' bytes, one after the other. */
  encodeAll(name: string, values: readonly StructValue[]): Uint8Array {
    const { size } = this.struct(name);
    const bytes = new Uint8Array(size * values.length);
    for (const [i, value] of values.entries()) this.#encodeInto(name, value, bytes, i * size, `${name}[${i}]`);
    return bytes;
  }

  #decodeField(field: FieldLayout, bytes: Buffer, at: number): FieldValue {
    if (field.type === "char") {
      const text = bytes.subarray(at, at + field.size);
      const end = text.indexOf(0);
      return text.toString("utf8", 0, end < 0 ? text.length : end);
    }
    if (field.count === 1) return this.#decodeOne(field.type, bytes, at);
    if (field.type === "u8") return new Uint8Array(bytes.subarray(at, at + field.size));
    const each = field.size / field.count;
    const values = Array.from({ length: field.count }, (_, i) => this.#decodeOne(field.type, bytes, at + i * each));
    return values as number[] | bigint[] | StructValue[];
  }

  #decodeOne(type: string, bytes: Buffer, at: number): number | bigint | StructValue {
    switch (type) {
      case "u8":
        return bytes.readUInt8(at);
      case "u16":
        return bytes.readUInt16LE(at);
      case "u32":
        return bytes.readUInt32LE(at);
      case "i32":
        return bytes.readInt32LE(at);
      case "u64":
        return bytes.readBigUInt64LE(at);
      case "i64":
        return bytes.readBigInt64LE(at);
      default:
        return this.decode(type, bytes, at);
    }
  }

  #encodeInto(name: string, value: StructValue, bytes: Uint8Array, at: number, path: string): void {
    const struct = this.struct(name);
    const known = new Set(struct.fields.map((field) => field.name));
    const unknown = Object.keys(value).find((key) => !known.has(key));
    if (unknown !== undefined) throw new TypeError(`${path} has no field ${unknown}`);
    for (const field of struct.fields) {
      const given = Object.hasOwn(value, field.name) ? value[field.name] : undefined;
      if (given !== undefined) this.#encodeField(field, given, bytes, at + field.offset, `${path}.${field.name}`);
      else if (!filledIn.has(field.name)) throw new TypeError(`${path}.${field.name} is missing`);
    }
  }

  #encodeField(field: FieldLayout, value: FieldValue, bytes: Uint8Array, at: number, path: string): void {
    if (field.type === "char") {
      const text = typeof value === "string" ? Buffer.from(value, "utf8") : undefined;
      if (text === undefined || text.includes(0)) throw new TypeError(`${path} must be text without NUL characters`);
      if (text.length >= field.size) throw new RangeError(`${path} must be shorter than ${field.size} bytes`);
      bytes.set(text, at);
      return;
    }
    if (field.count === 1) {
      this.#encodeOne(field.type, value, bytes, at, path);
      return;
    }
    if (!Array.isArray(value) && !(value instanceof Uint8Array)) throw new TypeError(`${path} must be a list`);
    if (value.length > field.count) throw new RangeError(`${path} must hold at most ${field.count} elements`);
    const each = field.size / field.count;
    for (const [i, one] of value.entries()) this.#encodeOne(field.type, one, bytes, at + i * each, `${path}[${i}]`);
  }

  #encodeOne(type: string, value: FieldValue, bytes: Uint8Array, at: number, path: string): void {
    const scalar = scalars[type];
    if (scalar === undefined) {
      if (typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
        throw new TypeError(`${path} must be an object with the fields of ${type}`);
      }
      this.#encodeInto(type, value, bytes, at, path);
      return;
    }
    const wanted = scalar.bytes === 8 ? "bigint" : "number";
    if (typeof value !== wanted || (typeof value === "number" && !Number.isInteger(value))) {
      throw new TypeError(`${path} must be a whole ${wanted}`);
    }
    const whole = BigInt(value as number | bigint);
    if (whole < scalar.min || whole > scalar.max) {
      throw new RangeError(`${path} must be ${scalar.min} to ${scalar.max}, not ${whole}`);
    }
    let rest = BigInt.asUintN(8 * scalar.bytes, whole);
    for (let i = 0; i < scalar.bytes; i++, rest >>= 8n) bytes[at + i] = Number(rest & 0xffn);
  }
}
