/**
 * IP addresses as the contract holds them: 16 bytes, IPv4 mapped into IPv6 (::ffff:a.b.c.d), prefixes counted in
 * those 128 bits.
 */

import { isIPv4, isIPv6 } from "node:net";

/** Where the IPv4 part of a mapped address begins, in bits. */
const MAPPED_BITS = 96;

/** An address and how many of its 128 bits must match. */
export interface Network {
  readonly address: Uint8Array;
  readonly prefixLength: number;
}

/** The 16 bytes of an address, or nothing where the text is none. */
export function parseAddress(text: string): Uint8Array | undefined {
  if (isIPv4(text)) {
    const mapped = new Uint8Array(16);
    mapped.set([0xff, 0xff, ...text.split(".").map(Number)], 10);
    return mapped;
  }
  // A zone (fe80::1%eth0) names an interface of one machine, which a rule cannot hold.
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const [head = "", tail] = text.split("::");
  const before = groupBytes(head);
  const after = tail === undefined ? [] : groupBytes(tail);
  const address = new Uint8Array(16);
  address.set(before, 0);
  address.set(after, 16 - after.length);
  return address;
}

function groupBytes(groups: string): number[] {
  if (groups === "") return [];
  return groups.split(":").flatMap((group) => {
    if (group.includes(".")) return group.split(".").map(Number);
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}

/** `10.0.0.0/8`, `2001:db8::/32` or a single address, or nothing where the text is none. Host bits are cleared. */
export function parseNetwork(text: string): Network | undefined {
  const match = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text);
  const address = match?.[1] === undefined ? undefined : parseAddress(match[1]);
  if (match === null || address === undefined) return undefined;
  const offset = isIPv4(match[1] ?? "") ? MAPPED_BITS : 0;
  const prefixLength = match[2] === undefined ? 128 : offset + Number(match[2]);
  if (prefixLength > 128) return undefined;
  return { address: address.map((byte, index) => byte & maskByte(prefixLength - index * 8)), prefixLength };
}

/** A network as {@link parseNetwork} reads it; a single address without its prefix. */
export function formatNetwork({ address, prefixLength }: Network): string {
  const isMapped =
    prefixLength >= MAPPED_BITS && address.subarray(0, 12).every((byte, at) => byte === (at < 10 ? 0 : 0xff));
  const host = isMapped ? address.subarray(12).join(".") : shortest(address);
  return prefixLength === 128 ? host : `${host}/${prefixLength - (isMapped ? MAPPED_BITS : 0)}`;
}

/** An IPv6 address in its shortest form (RFC 5952), which URLs use. */
function shortest(address: Uint8Array): string {
  const hex = Buffer.from(address).toString("hex");
  return new URL(`http://[${hex.replace(/....(?=.)/g, "$&:")}]/`).hostname.slice(1, -1);
}

function maskByte(bits: number): number {
  if (bits >= 8) return 0xff;
  return bits <= 0 ? 0 : (0xff << (8 - bits)) & 0xff;
}
