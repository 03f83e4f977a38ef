/**
 * `mishap run --kernel --executor relay`: datagrams of programs that carry no interceptor, as those programs see them, their
 * look-ups by DNS, and what evidence says of both.
 */
import { createSocket, type Socket } from "node:dgram";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { evidenceSchema } from "../../src/report/schema.js";
import { evidenceOf, freshProject, MISHAP, scratchFolder, start } from "./cli-harness.js";
import { askingIt, serveNames } from "./support/dns.js";
import { build, cannotBuild, needsKernel, type Program } from "./support/kernel.js";

const CLIENT = fileURLToPath(new URL("../programs/datagrams.py", import.meta.url));
const RELAY = ["--kernel", "--executor", "relay"];
const folder = scratchFolder();

const servers: Socket[] = [];
const ports: Record<string, number> = {};

/** A server outside the run; its port. */
async function serve(address: string, answer: (message: Buffer) => Buffer, port = 0): Promise<number> {
  const server = createSocket(address.includes(":") ? "udp6" : "udp4");
  servers.push(server);
  server.on("message", (message, from) => server.send(answer(message), from.port, from.address));
  await new Promise<void>((resolve) => server.bind(port, address, resolve));
  return server.address().port;
}

beforeAll(async () => {
  const echo = (message: Buffer): Buffer => message;
  ports["127.0.0.1"] = ports["::ffff:127.0.0.1"] = await serve("127.0.0.1", echo);
  ports["::1"] = await serve("::1", echo);
});
afterAll(() => {
  for (const server of servers) server.close();
});
beforeEach(needsKernel);

interface Told {
  readonly peer: readonly [string, number] | null;
  readonly local: string;
  readonly exchanges: readonly (readonly [number, string, readonly [string, number] | null])[];
}

interface Asked {
  readonly host?: string;
  readonly to?: number;
  readonly way?: "connected" | "unconnected";
  readonly count?: number;
  readonly mode?: string;
}

/** A client under the relay. */
async function client(flags: readonly string[], asked: Asked = {}) {
  const { host = "127.0.0.1", way = "connected", count = 3, mode = "0" } = asked;
  const to = asked.to ?? ports[host] ?? 0;
  const command = ["python3", CLIENT, host, String(to), way, String(count), mode];
  const end = await evidenceOf(folder, [...RELAY, ...flags], command);
  const told: Told = JSON.parse(end.stdout);
  return { ...end, told, port: to, texts: told.exchanges.map(([, text]) => text) };
}

describe.each(["127.0.0.1", "::1", "::ffff:127.0.0.1"])("towards %s", (host) => {
  it.each(["connected", "unconnected"] as const)(
    "a socket that is %s sees its true peer, and each way's delay",
    async (way) => {
      const { told, port, texts, evidence } = await client(["--latency", "20ms"], { host, way });
      const nowhere = host === "127.0.0.1" ? "0.0.0.0" : "::";
      const own = way === "connected" ? { peer: [host, port], local: host } : { peer: null, local: nowhere };
      expect(told).toMatchObject(own);
      expect(texts).toEqual(["0", "1", "2"]);
      for (const [ms, , from] of told.exchanges) {
        expect(from).toEqual([host, port]);
        expect(ms).toBeGreaterThanOrEqual(40);
        expect(ms).toBeLessThan(300);
      }
      expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 6, executor: "relay" }]);
      expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 1, bytes_up: 3, bytes_down: 3 }]);
      expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
    },
  );

  it("a port where nobody listens refuses, as without, and as late as an answer", async () => {
    const { texts } = await client([], { host, to: 1 });
    expect(texts).toEqual(["ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"]);
    const { told } = await client(["--latency", "30ms"], { host, to: 1, count: 1 });
    expect(told.exchanges[0]?.[1]).toBe("ECONNREFUSED");
    expect(told.exchanges[0]?.[0]).toBeGreaterThanOrEqual(60);
  });

  it("what is refused has its errno", async () => {
    const { texts, evidence } = await client(["--connection-error", "refused"], { host });
    expect(texts).toEqual(["ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"]);
    expect(evidence.faults).toMatchObject([{ applied: 3 }]);
  });
});

describe("faults", () => {
  it("an unreachable host has its errno", async () => {
    const { texts } = await client(["--connection-error", "unreachable"]);
    expect(texts).toEqual(["EHOSTUNREACH", "EHOSTUNREACH", "EHOSTUNREACH"]);
  });

  it("what is lost is gone", async () => {
    const { texts, evidence } = await client(["--uplink.packet-loss", "30%", "--seed", "5"], {
      count: 40,
      mode: "burst",
    });
    const [fault] = evidence.faults;
    expect(fault?.applied).toBeGreaterThan(0);
    expect(texts.length).toBe(40 - (fault?.applied ?? 0));
  });

  it("a rate holds", async () => {
    const program = `
import socket, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.connect(("127.0.0.1", ${ports["127.0.0.1"]}))
start = time.monotonic()
for _ in range(60): end.send(b"x" * 1000)
for _ in range(60): end.recv(2000)
print(time.monotonic() - start)
`;
    const { stdout } = await evidenceOf(folder, [...RELAY, "--uplink.rate", "800kbps"], ["python3", "-c", program]);
    expect(Number(stdout)).toBeGreaterThan(0.5); // 480,000 bits, less the burst
    expect(Number(stdout)).toBeLessThan(2);
  });

  it("what is sent twice and comes twice is there four times", async () => {
    const { texts } = await client(["--packet-duplicate", "100%"], { count: 2, mode: "burst" });
    expect([...texts].sort()).toEqual(["0", "0", "0", "0", "1", "1", "1", "1"]);
  });

  it("what is overtaken comes later", async () => {
    const flags = ["--packet-reorder.prob", "30%", "--packet-reorder.max-delay", "200ms", "--seed", "3"];
    const { texts, evidence } = await client(flags, { count: 20, mode: "burst" });
    const numbers = texts.map(Number);
    const sorted = [...numbers].sort((a, b) => a - b);
    expect(sorted).toEqual(Array.from({ length: 20 }, (_, number) => number));
    expect(numbers).not.toEqual(sorted);
    expect(evidence.faults[0]?.applied).toBeGreaterThan(0);
  });

  it("what passes is changed", async () => {
    const truncated = ["type", "truncate", "truncate-size", "1", "target", "downlink_only"];
    const flags = [0, 2, 4].flatMap((at) => [`--payload-mutation.${truncated[at]}`, String(truncated[at + 1])]);
    const { texts } = await client(flags, { count: 12 });
    expect(texts.slice(9)).toEqual(["9", "1", "1"]);
  });

  it("a budget ends the conversation", async () => {
    const flags = ["--session-budget.max-tx", "2b", "--session-budget.action"];
    expect((await client([...flags, "connection_error"])).texts).toEqual(["0", "1", "ECONNREFUSED"]);
    expect((await client([...flags, "drop"])).texts).toEqual(["0", "1", "timeout"]);
  });

  it("are decided as the interceptor does for the same seed", async () => {
    const decisions = async (executor: string): Promise<unknown[]> => {
      const journal = join(folder, `${freshProject()}.jsonl`);
      const faults = ["--latency", "5ms", "--jitter", "4ms", "--packet-loss", "5%", "--packet-duplicate", "10%"];
      const flags = ["--kernel", "--executor", executor, ...faults, "--seed", "11", "--journal", journal];
      const command = ["python3", CLIENT, "127.0.0.1", String(ports["127.0.0.1"]), "connected", "30", "0.05"];
      await evidenceOf(folder, flags, command);
      const lines = readFileSync(journal, "utf8").trim().split("\n");
      const events = lines.map((line) => ({ ...JSON.parse(line), at_ns: 0, at_ms: 0, pid: 0 }));
      // What is sent; how much of it comes back, and in which order, hangs on when the program looks.
      return events.filter((event) => "verdict" in event && event.direction === "uplink");
    };
    const [relay, interceptor] = [await decisions("relay"), await decisions("interceptor")];
    expect(relay.length).toBeGreaterThan(20);
    expect(relay).toEqual(interceptor);
  });
});

describe("programs that a preload cannot enter", () => {
  it.for<Program>(["datagrams-static", "datagrams-go"])("%s", async (program, { skip }) => {
    const missing = cannotBuild(program);
    skip(missing !== undefined, missing);
    const path = await build(folder, program);
    const { evidence, stdout } = await evidenceOf(
      folder,
      [...RELAY, "--latency", "15ms"],
      [path, String(ports["127.0.0.1"]), "5"],
    );
    const { answered, ms } = JSON.parse(stdout);
    expect(answered).toBe(5);
    expect(ms).toBeGreaterThanOrEqual(150);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 1, bytes_up: 5, bytes_down: 5 }]);
    expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
  });
});

describe("look-ups", () => {
  const asking = (): string[] => askingIt(folder);
  const python = (...names: string[]): string[] => {
    const program = `
import json, socket, sys, time
for name in sys.argv[1:]:
    start = time.monotonic()
    try: found, addresses = "found", len(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM))
    except socket.gaierror as error: found, addresses = "not found" if error.errno == socket.EAI_NONAME else "failed", 0
    print(json.dumps({"name": name, "found": found, "addresses": addresses, "ms": (time.monotonic() - start) * 1000}))
`;
    return ["python3", "-c", program, ...names];
  };
  beforeAll(async () => {
    if (process.getuid?.() === 0) servers.push(await serveNames());
  });

  describe.each(["glibc's", "Go's"])("by %s resolver", (whose) => {
    const look = async (flags: readonly string[], skip: (when: boolean, why?: string) => void) => {
      const names = ["one.example", "two.example"];
      let command = python(...names);
      if (whose === "Go's") {
        const missing = cannotBuild("datagrams-go");
        skip(missing !== undefined, missing);
        command = [await build(folder, "datagrams-go"), ...names];
      }
      const end = await evidenceOf(folder, [...RELAY, ...flags], [...asking(), ...command]);
      const lines = end.stdout.trim().split("\n");
      return { ...end, looks: lines.map((line) => JSON.parse(line)) };
    };

    it("are found", async ({ skip }) => {
      const { looks, evidence } = await look(["--latency", "300ms"], skip);
      expect(looks).toMatchObject([{ found: "found" }, { found: "found" }]);
      expect(looks[1].ms).toBeLessThan(300); // a latency is for what names are looked up for
      expect(evidence.coverage?.map(({ state }) => state)).toEqual(["relayed"]);
    });

    it("take longer", async ({ skip }) => {
      const { looks, evidence } = await look(["--dns.delay", "80ms"], skip);
      expect(looks).toMatchObject([{ found: "found" }, { found: "found" }]);
      for (const { ms } of looks) expect(ms).toBeGreaterThanOrEqual(80);
      expect(evidence.faults[0]?.p50_ns).toBeGreaterThanOrEqual(80e6);
    });

    it("find nothing", async ({ skip }) => {
      const { looks, evidence } = await look(["--dns.nxdomain", "100%", "--target", "hostname=two.example"], skip);
      expect(looks).toMatchObject([{ found: "found" }, { found: "not found" }]);
      expect(evidence.faults).toMatchObject([{ fault: "dns.nxdomain", delivered_ppm: 1e6 }]);
    });

    it("are not answered", async ({ skip }) => {
      const { looks, evidence } = await look(["--dns.timeout", "200ms"], skip);
      expect(looks).toMatchObject([{ found: "failed" }, { found: "failed" }]);
      for (const { ms } of looks) expect(ms).toBeGreaterThanOrEqual(900);
      expect(evidence.faults[0]?.p50_ns).toBeGreaterThanOrEqual(199e6);
    });
  });

  it("name what is talked to, for rules by host", async () => {
    const program = `
import socket, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); end.settimeout(5)
for host in ("127.0.0.1", "echo.example"):
    to = (socket.gethostbyname(host), ${ports["127.0.0.1"]}); start = time.monotonic()
    end.sendto(b"x", to); end.recvfrom(10); print((time.monotonic() - start) * 1000)
    end.close(); end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); end.settimeout(5)
`;
    const flags = [...RELAY, "--latency", "150ms", "--target", "hostname=*.example"];
    const { stdout } = await evidenceOf(folder, flags, [...asking(), "python3", "-c", program]);
    const [before, after] = stdout.trim().split("\n").map(Number);
    expect(before).toBeLessThan(300);
    expect(after).toBeGreaterThanOrEqual(300);
  });
});

describe("left alone", () => {
  it("a server in the run answers from its own port, and its client's faults are applied once", async () => {
    const program = `
import socket, threading, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(("127.0.0.1", 0))
def serve():
    while True:
        text, source = server.recvfrom(10); server.sendto(text, source)
threading.Thread(target=serve, daemon=True).start()
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); client.settimeout(5); start = time.monotonic()
client.sendto(b"x", server.getsockname()); _, source = client.recvfrom(10)
print(source == server.getsockname(), (time.monotonic() - start) * 1000)
`;
    const { stdout, evidence } = await evidenceOf(folder, [...RELAY, "--latency", "100ms"], ["python3", "-c", program]);
    const [same, ms] = stdout.trim().split(" ");
    expect(same).toBe("True");
    expect(Number(ms)).toBeGreaterThanOrEqual(200);
    expect(Number(ms)).toBeLessThan(400);
    expect(evidence.faults).toMatchObject([{ applied: 2 }]);
  });

  it("a port that the program chose stays its own", async () => {
    const program = `
import socket
one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
other.bind(("127.0.0.1", 0)); one.bind(("127.0.0.1", 47011)); one.sendto(b"x", other.getsockname())
print(other.recvfrom(10)[1][1])
`;
    const { stdout } = await evidenceOf(folder, [...RELAY, "--latency", "10ms"], ["python3", "-c", program]);
    expect(stdout).toBe("47011\n");
  });
});

describe("a socket that is connected to learn its address", () => {
  const PROBES = `
import json, socket
told = []
for family, host in ((2, "127.0.0.1"), (2, "127.9.9.9"), (2, "0.0.0.0"), (2, "192.0.2.77"), (2, "10.9.8.7"), (2, "255.255.255.255"),
                     (2, "224.0.0.9"), (10, "::1"), (10, "::"), (10, "2001:db8::77"), (10, "fe80::7"), (10, "::ffff:10.9.8.7")):
    end = socket.socket(family, socket.SOCK_DGRAM)
    try:
        end.connect((host, 9)); told.append([end.getsockname()[0], end.getpeername()[0]])
    except OSError as error: told.append(error.errno)
print(json.dumps(told))
`;

  /** In a network of its own, with so much of it set up, with and without the relay. */
  const within = async (setUp: string) => {
    const file = join(folder, `${freshProject()}.json`);
    const run = `"${process.execPath}" "${MISHAP}" run --json ${file} ${RELAY.join(" ")} -- python3 -c "$0"`;
    const tried = ['python3 -c "$0"', run].map(async (command) => {
      const words = ["--net", "sh", "-c", `ip link set lo up; ${setUp}; ${command}`, PROBES];
      const { code, stdout, stderr } = await start("unshare", words).finished;
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
      return JSON.parse(stdout);
    });
    const [bare, relayed] = await Promise.all(tried);
    evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
    return { bare, relayed };
  };

  it.each([
    ["nothing but itself", "true"],
    ["one network", "ip link add one type dummy; ip addr add 192.0.2.1/24 dev one; ip link set one up"],
    [
      "a way to everywhere",
      "ip link add one type dummy; ip addr add 192.0.2.1/24 dev one; ip addr add 10.9.0.1/16 dev one; ip link set one up; ip route add default via 192.0.2.2; ip -6 addr add 2001:db8::1/64 dev one nodad",
    ],
  ])("sees what it would without, on a host with %s", async (_, setUp) => {
    const { bare, relayed } = await within(setUp);
    expect(relayed).toEqual(bare);
  });
});

describe("a relay that is killed", () => {
  it("leaves later datagrams to go direct, and it is said", async () => {
    const project = freshProject();
    const program = `
import glob, os, signal, socket, time
end, connected = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
to = ("127.0.0.1", ${ports["127.0.0.1"]}); connected.connect(to)
for each in (end, connected): each.settimeout(3)
def tried(send):
    try: send(); return True
    except OSError as error: return error.errno
def exchange(): end.sendto(b"x", to); end.recvfrom(10)
def other(): connected.send(b"x"); connected.recv(10)
print(tried(exchange), tried(other))
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try: words = open(path).read()
    except OSError: continue
    if words.startswith("mishap-relay") and "-${project}-" in words: os.kill(int(path.split("/")[2]), signal.SIGKILL)
time.sleep(0.7)
print(tried(exchange), tried(exchange), tried(other))
`;
    const flags = ["--project", project, ...RELAY];
    const { stdout, evidence } = await evidenceOf(folder, flags, ["python3", "-c", program]);
    expect(stdout).toBe("True True\nTrue True 111\n");
    expect(evidence.notes).toContainEqual(expect.stringContaining("the relay was lost"));
    expect(evidence.coverage?.map(({ state }) => state).sort()).toEqual(["escaped", "relayed"]);
  });
});
