/** The texts of target rules: `tcp://10.0.0.0/8`, host names, addresses and networks, and what each may not be. */

import { type Network, parseNetwork } from "./addresses.js";
import type { PROTOCOLS } from "./contract.js";
import { PolicyError } from "./errors.js";
import { type PortRange, parsePorts } from "./units.js";

/** The rule that error sentences suggest. */
export const RULE_EXAMPLE = "tcp://10.0.0.0/8";
const MAX_NAME_BYTES = 255;
const MAX_HOSTNAME = 253;

/** A protocol that a rule can name. */
export type Protocol = keyof typeof PROTOCOLS;

/** What a rule's text says. */
export interface Selector {
  readonly protocol: Protocol;
  readonly network?: Network;
  readonly hostname?: string;
  readonly ports?: PortRange[];
  readonly path?: string;
}

/** Throws the sentence that says what is wrong with `written`. */
export function refuse(problem: string, written: unknown): never {
  throw new PolicyError("", problem, written);
}

/** `tcp://10.0.0.0/8`, `any://[2001:db8::1]:443`, `unix:///run/x*.sock` */
export function parseRule(written: unknown): Selector {
  const match = typeof written === "string" ? /^(any|tcp|udp|unix):\/\/(.*)$/s.exec(written) : null;
  if (match === null)
    return refuse(`a target starts with tcp://, udp://, any:// or unix://, such as ${RULE_EXAMPLE}`, written);
  const [, protocol = "any", rest = ""] = match;
  if (protocol === "unix") return { protocol, ...(rest !== "" && { path: parsePath(rest, written) }) };
  const { host, ports } = splitPort(rest);
  return {
    protocol: protocol as Protocol,
    ...(host !== "" && parseHost(host, written)),
    ...(ports !== undefined && { ports: parsePorts(ports) }),
  };
}

/** Splits `host:port`. Brackets hold an IPv6 address; without them its last colon is no port's. */
function splitPort(rest: string): { host: string; ports?: string } {
  const bracketed = /^\[([^\]]*)\](\/[^:]*)?(?::(.*))?$/s.exec(rest);
  if (bracketed !== null) {
    const host = `${bracketed[1] || "[]"}${bracketed[2] ?? ""}`;
    return { host, ...(bracketed[3] !== undefined && { ports: bracketed[3] }) };
  }
  const colon = rest.lastIndexOf(":");
  if (colon === -1 || rest.indexOf(":") !== colon) return { host: rest };
  return { host: rest.slice(0, colon), ports: rest.slice(colon + 1) };
}

function parseHost(host: string, written: unknown): Pick<Selector, "network" | "hostname"> {
  const network = parseNetwork(host);
  if (network !== undefined) return { network };
  const meantAddress = /[/:[\]]/.test(host) || /^[\d.]+$/.test(host);
  if (meantAddress) refuse("not an address or a network, such as 10.0.0.0/8 or [2001:db8::1]:443", written);
  return { hostname: parseHostname(host) };
}

/** A host name or a pattern with `*`, in lower case. */
export function parseHostname(written: unknown): string {
  const name = typeof written === "string" ? written.toLowerCase().replace(/\.$/, "") : "";
  const label = "[a-z0-9_*]([a-z0-9_*-]*[a-z0-9_*])?";
  if (name.length > MAX_HOSTNAME || !new RegExp(`^${label}(\\.${label})*$`).test(name)) {
    refuse("a host name is letters, digits and hyphens between dots, * for any run, such as *.internal", written);
  }
  if (/^[\d.]+$/.test(name)) refuse("an address is a host, not a host name, such as host: 10.0.0.1", written);
  return name;
}

function parsePath(path: string, written: unknown): string {
  if (path.includes("\0") || Buffer.byteLength(path) > MAX_NAME_BYTES) {
    refuse(`a path has at most ${MAX_NAME_BYTES} bytes, none of them NUL, such as unix:///run/*.sock`, written);
  }
  return path;
}

/** One address, without a prefix. */
export function parseOneAddress(written: unknown): Network {
  const network = typeof written === "string" && !written.includes("/") ? parseNetwork(written) : undefined;
  return network ?? refuse("a host is one address, such as 10.0.0.1 (a name is hostname, a network is cidr)", written);
}

/** A network, with its prefix. */
export function parseCidr(written: unknown): Network {
  const network = typeof written === "string" && written.includes("/") ? parseNetwork(written) : undefined;
  return network ?? refuse("a cidr is an address and the bits that count, such as 10.0.0.0/8", written);
}
