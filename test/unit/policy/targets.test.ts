// Target rules: every way to write one, the contract's fields it becomes, and what it may not be.
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { PolicyError } from "../../../src/policy/errors.js";
import { parsePolicy } from "../../../src/policy/schema.js";
import { parseTarget, type TargetFields, targetFromFlag } from "../../../src/policy/targets.js";

const mapped = (...bytes: number[]): number[] => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes];
const none = Array<number>(16).fill(0);
const documentation = [0x20, 0x01, 0x0d, 0xb8, ...Array<number>(11).fill(0), 1];

function shown(text: string): Partial<Omit<TargetFields, "address">> & { address: number[]; ports: string } {
  const { fields } = parseTarget(targetFromFlag(text));
  const { address, port_low, port_high, port_ranges, ...rest } = fields;
  expect(port_low).toHaveLength(8);
  expect(port_high).toHaveLength(8);
  const ranges = port_low.slice(0, port_ranges).map((low, at) => `${low}-${port_high[at]}`);
  return { ...rest, address: [...address], ports: ranges.join(",") };
}

const plain = { address: none, prefix_length: 0, protocol: 0, name_kind: 0, priority: 0, name: "", ports: "" };
const forms: [string, Partial<ReturnType<typeof shown>>][] = [
  ["tcp://10.0.0.0/8", { address: mapped(10, 0, 0, 0), prefix_length: 104, protocol: 1 }],
  ["tcp://10.1.2.3/8", { address: mapped(10, 0, 0, 0), prefix_length: 104, protocol: 1 }],
  ["any://10.1.2.3/31", { address: mapped(10, 1, 2, 2), prefix_length: 127 }],
  ["any://0.0.0.0/0", { address: mapped(0, 0, 0, 0), prefix_length: 96 }],
  ["udp://1.2.3.4:53", { address: mapped(1, 2, 3, 4), prefix_length: 128, protocol: 2, ports: "53-53" }],
  ["any://[2001:db8::1]:443", { address: documentation, prefix_length: 128, ports: "443-443" }],
  ["any://2001:db8::1", { address: documentation, prefix_length: 128 }],
  ["tcp://[2001:db8::1]/128:80-90", { address: documentation, prefix_length: 128, protocol: 1, ports: "80-90" }],
  ["any://[2001:db8::]/33", { address: [0x20, 1, 0x0d, 0xb8, ...Array<number>(12).fill(0)], prefix_length: 33 }],
  ["any://::ffff:1.2.3.4", { address: mapped(1, 2, 3, 4), prefix_length: 128 }],
  ["tcp://API.internal:443", { protocol: 1, name_kind: 1, name: "api.internal", ports: "443-443" }],
  ["tcp://:443", { protocol: 1, ports: "443-443" }],
  ["unix://", { protocol: 3 }],
  ["unix:///run/X*.sock", { protocol: 3, name_kind: 3, name: "/run/X*.sock" }],
  ["hostname=api.internal,port=443,priority=5", { name_kind: 1, name: "api.internal", ports: "443-443", priority: 5 }],
  ["hostname=api.internal.,port=80-90;443", { name_kind: 1, name: "api.internal", ports: "80-90,443-443" }],
  ["sni=*.Example.com,protocol=tcp", { name_kind: 2, name: "*.example.com", protocol: 1 }],
  ["host=10.0.0.1", { address: mapped(10, 0, 0, 1), prefix_length: 128 }],
  ["cidr=10.0.0.0/8,protocol=udp", { address: mapped(10, 0, 0, 0), prefix_length: 104, protocol: 2 }],
  [
    "target=tcp://10.0.0.1,port=80,priority=1",
    { address: mapped(10, 0, 0, 1), prefix_length: 128, protocol: 1, ports: "80-80", priority: 1 },
  ],
];

test.each(forms)("%s", (text, fields) => {
  expect(shown(text)).toEqual({ ...plain, ...fields });
});

test("an object with a port list", () => {
  const { fields } = parseTarget({ host: "10.0.0.1", port: "80,443" });
  expect([fields.port_ranges, fields.port_low.slice(0, 2), fields.port_high.slice(0, 2)]).toEqual([
    2,
    [80, 443],
    [80, 443],
  ]);
  expect(parseTarget({ host: "10.0.0.1", port: 80 }).fields.port_ranges).toBe(1);
});

const refused: [unknown, string][] = [
  [{ hostname: "a", sni: "b" }, "takes hostname or sni, not both"],
  [{ host: "10.0.0.1", cidr: "10.0.0.0/8" }, "takes host or cidr, not both"],
  [{ host: "10.0.0.1", hostname: "a" }, "takes an address (host, cidr) or a name (hostname, sni), not both"],
  [{ cidr: "10.0.0.0/8", sni: "a" }, "takes an address (host, cidr) or a name (hostname, sni), not both"],
  [{ target: "tcp://10.0.0.1:80", port: "80-90" }, "takes ports from target or from port, not both"],
  [{ target: "tcp://10.0.0.1", protocol: "udp" }, "contradicts protocol udp"],
  [{ target: "tcp://10.0.0.1", host: "10.0.0.2" }, "takes the place from target or from host"],
  [{ target: "unix://", port: 80 }, "takes a unix:// target or network fields, not both"],
  [{}, "names no flows; give it a target, such as tcp://10.0.0.0/8"],
  ["any://", "names no flows"],
  [{ protocol: "any", priority: 3 }, "names no flows"],
  [{ hostname: "a", prot: "tcp" }, 'unknown field "prot"; the nearest is port'],
  [{ hostname: "a", priority: -1 }, "must be a whole number from 0"],
  [{ hostname: "a", protocol: "icmp" }, "must be any, tcp or udp"],
  [{ hostname: "10.0.0.1" }, "an address is a host, not a host name, such as host: 10.0.0.1"],
  [{ hostname: "a..b" }, "a host name is letters, digits and hyphens between dots"],
  [{ hostname: "" }, "a host name is letters"],
  [{ host: "10.0.0.0/8" }, "a host is one address, such as 10.0.0.1"],
  [{ host: "api.internal" }, "a host is one address"],
  [{ cidr: "10.0.0.1" }, "a cidr is an address and the bits that count, such as 10.0.0.0/8"],
  [{ cidr: "10.0.0.0/33" }, "a cidr is an address"],
  ["10.0.0.0/8", "a target starts with tcp://, udp://, any:// or unix://, such as tcp://10.0.0.0/8"],
  ["icmp://10.0.0.1", "a target starts with tcp://"],
  ["tcp://300.1.1.1", "not an address or a network, such as 10.0.0.0/8 or [2001:db8::1]:443"],
  ["tcp://[::1", "not an address or a network"],
  ["tcp://fe80::1%eth0", "not an address or a network"],
  ["tcp://10.0.0.1:http", "a port is a number, a range or a list"],
  ["tcp://10.0.0.1:", "a port is a number"],
  [`unix://${"x".repeat(256)}`, "a path has at most 255 bytes"],
  [7, "must be an object, such as {target: tcp://10.0.0.0/8} or the text tcp://10.0.0.0/8"],
];

test.each(refused)("%o is refused: %s", (rule, sentence) => {
  expect(() => parsePolicy({ latency: "1ms", targets: [rule, "tcp://10.0.0.0/8"] })).toThrow(PolicyError);
  expect(() => parsePolicy({ latency: "1ms", targets: [rule, "tcp://10.0.0.0/8"] })).toThrow(sentence);
});

test.each([
  ["nonsense", "a target is a rule or key=value pairs"],
  ["hostname=a,hostname=b", "gives hostname twice"],
  ["hostnam=a", 'has no key "hostnam"; the nearest is hostname'],
  ["__proto__=a", 'has no key "__proto__"'],
])("on the command line %s is refused: %s", (text, sentence) => {
  expect(() => targetFromFlag(text)).toThrow(sentence);
});

describe("the list", () => {
  const names = (...rules: unknown[]) =>
    parsePolicy({ targets: rules }).fields.targets?.map(({ fields }) => fields.name);

  it("puts higher priorities first and keeps ties as written", () => {
    const order = names(
      { hostname: "low" },
      { hostname: "high", priority: 9 },
      { hostname: "mid1", priority: 5 },
      { hostname: "mid2", priority: 5 },
      "any://last",
    );
    expect(order).toEqual(["high", "mid1", "mid2", "low", "last"]);
  });

  it("holds 1 to 16 rules", () => {
    expect(names(...Array<string>(16).fill("any://a"))).toHaveLength(16);
    expect(() => names(...Array<string>(17).fill("any://a"))).toThrow("takes at most 16 rules");
    expect(() => names()).toThrow("must have at least one rule");
  });
});

it("any IPv4 network keeps its bits, and only those", () => {
  fc.assert(
    fc.property(fc.ipV4(), fc.integer({ min: 0, max: 32 }), (address, bits) => {
      const { fields } = parseTarget(`any://${address}/${bits}`);
      const numeric = (bytes: Iterable<number>) => [...bytes].reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
      const mask = ((1n << BigInt(bits)) - 1n) << BigInt(32 - bits);
      expect(fields.prefix_length).toBe(96 + bits);
      expect(numeric(fields.address.slice(12))).toBe(numeric(address.split(".").map(Number)) & mask);
    }),
  );
});

it("any IPv6 address reads as the bytes of its canonical form", () => {
  fc.assert(
    fc.property(fc.ipV6(), (address) => {
      const canonical = new URL(`http://[${address}]/`).hostname;
      expect(parseTarget(`any://[${address}]:1`).fields.address).toEqual(
        parseTarget(`any://${canonical}:1`).fields.address,
      );
    }),
  );
});

it("whatever is written, only a PolicyError is thrown", () => {
  const rule = fc.oneof(
    fc.string(),
    fc.stringMatching(/^(tcp|udp|any|unix):\/\/[[\]0-9a-f:.*/-]{0,30}$/),
    fc.stringMatching(/^(host|cidr|hostname|sni|port|priority|target)=[0-9a-z:/.;,=-]{0,30}$/),
  );
  fc.assert(
    fc.property(rule, (text) => {
      try {
        parseTarget(targetFromFlag(text));
      } catch (error) {
        expect(error).toBeInstanceOf(PolicyError);
      }
    }),
  );
});
