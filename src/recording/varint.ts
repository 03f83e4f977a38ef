/**
 * Whole numbers of 0 to 2^53 - 1 as varints: seven bits a byte, the lowest first, the top bit set on all bytes but the
 * last; signed ones in zigzag order (0, -1, 1, -2, …). Numbers beyond 32 bits are computed without bit operations,
 * which JavaScript cuts there.
 */

/** Seven bits a byte of a zigzag number below 2^54. */
const LONGEST_VARINT = 8;

/** The bytes hold no varint where one should be. */
export class VarintError extends Error {
  override readonly name = "VarintError";
}

/** Bytes that grow as varints are appended. */
export class VarintWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** What was written, valid until the next write. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Appends a whole number of 0 to 2^53 - 1. Throws a RangeError for any other. */
  unsigned(value: number): void {
    if (!(value >= 0 && Number.isSafeInteger(value))) throw new RangeError(`${value} is not a whole number below 2^53`);
    this.#reserve(LONGEST_VARINT);
    this.#append(value);
  }

  /** Appends a whole number of -(2^53 - 1) to 2^53 - 1, in zigzag order. */
  signed(value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not a whole number within ±2^53`);
    this.#reserve(LONGEST_VARINT);
    const negative = value < 0;
    const magnitude = negative ? -value - 1 : value;
    // The first byte has six bits of the magnitude above its sign, so that nothing here needs more than 53 bits.
    const low = (magnitude % 64) * 2 + (negative ? 1 : 0);
    if (magnitude < 64) {
      this.#bytes[this.#length++] = low;
      return;
    }
    this.#bytes[this.#length++] = low | 0x80;
    this.#append(Math.floor(magnitude / 64));
  }

  /** Appends bytes as they are. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Appends bytes, their number before them. */
  prefixed(bytes: Uint8Array): void {
    this.unsigned(bytes.length);
    this.raw(bytes);
  }

  #append(value: number): void {
    let rest = value;
    for (; rest >= 0x8000_0000; rest = Math.floor(rest / 128)) this.#bytes[this.#length++] = (rest % 128) | 0x80;
    for (; rest >= 128; rest >>>= 7) this.#bytes[this.#length++] = (rest & 127) | 0x80;
    this.#bytes[this.#length++] = rest;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + more));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}

/** Reads varints from bytes. Throws a {@link VarintError} where there is none. */
export class VarintReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Whether all bytes were read. */
  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** What {@link VarintWriter.unsigned} appended. */
  unsigned(): number {
    const first = this.#next();
    return first < 128 ? first : this.#rest(first & 127, 128);
  }

  /** What {@link VarintWriter.signed} appended. */
  signed(): number {
    const first = this.#next();
    const low = (first & 127) >> 1;
    const magnitude = first < 128 ? low : this.#rest(low, 64);
    return (first & 1) === 1 ? -magnitude - 1 : magnitude;
  }

  /** So many bytes as they are, shared with those that are read. */
  raw(length: number): Uint8Array {
    if (length > this.#bytes.length - this.#at) throw new VarintError(`${length} bytes are not there`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** Bytes that have their number before them. */
  prefixed(): Uint8Array {
    return this.raw(this.unsigned());
  }

  #rest(low: number, unit: number): number {
    let [value, scale] = [low, unit];
    for (;;) {
      const byte = this.#next();
      value += (byte & 127) * scale;
      if (value > Number.MAX_SAFE_INTEGER) throw new VarintError("a number is beyond 2^53");
      if (byte < 128) return value;
      scale *= 128;
    }
  }

  #next(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw new VarintError("the bytes end within a number");
    this.#at++;
    return byte;
  }
}
