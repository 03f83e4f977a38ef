/**
 * `mishap run --kernel --executor relay`: what programs accept that carry no interceptor, as their clients outside the run see
 * it, as they see their clients themselves, and what evidence says of it.
 */
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { freshProject, type Running, scratchFolder, start, startMishap, until } from "./cli-harness.js";
import { build, cannotBuild, hasMptcp, needsKernel, orphans, type Program, relaysOf } from "./support/kernel.js";
import { freeTcpPort } from "./support/programs.js";

const CLIENT = fileURLToPath(new URL("../programs/relayed.py", import.meta.url));
const SERVER = fileURLToPath(new URL("../programs/serving.py", import.meta.url));
const folder = scratchFolder();

beforeEach(needsKernel);

/** A server in a run, once it listens. */
class Served {
  readonly port: number;
  readonly project = freshProject();
  readonly running: Running;
  readonly #file = join(folder, `evidence-${randomBytes(4).toString("hex")}.json`);

  private constructor(port: number, flags: readonly string[], command: readonly string[]) {
    this.port = port;
    const words = ["run", "--json", this.#file, "--project", this.project, "--kernel", ...flags, "--", ...command];
    this.running = startMishap(words);
  }

  /** Serves so many connections. */
  static async start(
    flags: readonly string[],
    { address = "127.0.0.1", connections = 1, program = ["python3", SERVER], executor = "relay", port = 0 } = {},
  ): Promise<Served> {
    const at = port || (await freeTcpPort());
    const command = [...program, address, String(at), String(connections)];
    const served = new Served(at, ["--executor", executor, ...flags], command);
    await served.running.says("listening");
    return served;
  }

  /** Its end: what it saw of its clients, and the evidence. */
  async ended(): Promise<{ evidence: Evidence; clients: Client[] }> {
    const { code, stdout, stderr } = await this.running.finished;
    expect({ code, stderr }).toMatchObject({ code: 0 });
    return { clients: ends(stdout), evidence: evidenceSchema.parse(JSON.parse(readFileSync(this.#file, "utf8"))) };
  }

  get relay(): number {
    return relaysOf(this.project)[0] ?? 0;
  }
}

type End = readonly [string, number];
interface Client {
  readonly accepted: End;
  readonly peer: End;
  readonly local: End;
}
const jsonLines = (text: string) =>
  text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
const ends = (stdout: string): Client[] => jsonLines(stdout).filter((line) => "accepted" in line);

interface Told {
  readonly took: number;
  readonly connect: string;
  readonly exchanges: readonly (readonly [number, string])[];
}

/** A client outside the run. */
async function client(port: number, { host = "127.0.0.1", connections = 1, exchanges = 2 } = {}): Promise<Told[]> {
  const words = [CLIENT, host, ...[port, connections, exchanges].map(String)];
  const { code, stdout, stderr } = await start("python3", words).finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return jsonLines(stdout);
}

const texts = (told: readonly Told[]): string[] => told.flatMap(({ exchanges }) => exchanges.map(([, text]) => text));
const times = (told: readonly Told[]): number[] => told.flatMap(({ exchanges }) => exchanges.map(([ms]) => ms));

/** A connection of this process, and what became of it. */
async function connected(port: number, host = "127.0.0.1"): Promise<{ socket: Socket; ended: Promise<string> }> {
  const socket = connect({ port, host, allowHalfOpen: true });
  const ended = new Promise<string>((resolve) => {
    socket.on("error", (error) => resolve("code" in error ? String(error.code) : error.message));
    socket.on("end", () => resolve("end"));
  });
  await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  return { socket, ended };
}

/** One exchange on it, and how long it took. */
async function exchange(socket: Socket): Promise<number> {
  const began = performance.now();
  const came = new Promise((resolve) => socket.once("data", resolve));
  socket.write("0123456789");
  await came;
  return performance.now() - began;
}

describe("programs that a preload cannot enter", () => {
  it.for<Program>(["static-server", "go-server", "uring-server"])("%s", async (program, { skip }) => {
    const missing = cannotBuild(program);
    skip(missing !== undefined, missing);
    const path = await build(folder, program);
    const served = await Served.start(["--latency", "15ms"], { program: [path], connections: 3 });
    const told = await client(served.port, { connections: 3 });
    expect(texts(told)).toEqual(Array.from({ length: 6 }, () => "0123456789"));
    for (const ms of times(told)) expect(ms).toBeGreaterThanOrEqual(30);
    const { evidence, clients } = await served.ended();
    expect(clients.map(({ peer: [address] }) => address)).toEqual(["127.0.0.1", "127.0.0.1", "127.0.0.1"]);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 3, bytes_up: 60, bytes_down: 60 }]);
    expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 12, executor: "relay" }]);
    expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
  });
});

it("a server that listens by MPTCP, as Go's do, is met by TCP", async ({ skip }) => {
  skip(!hasMptcp(), "this kernel has no MPTCP");
  const program = ["sh", "-c", `exec python3 ${SERVER} $0 $1 $2 mptcp`];
  const served = await Served.start(["--latency", "15ms"], { program, connections: 2 });
  for (const ms of times(await client(served.port, { connections: 2 }))) expect(ms).toBeGreaterThanOrEqual(30);
  const { evidence, clients } = await served.ended();
  expect(clients.map(({ accepted: [address] }) => address)).toEqual(["127.0.0.1", "127.0.0.1"]);
  expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 2, bytes_up: 40, bytes_down: 40 }]);
});

describe("a server sees its true client", () => {
  it.each([
    ["127.0.0.1", "127.0.0.1", "127.0.0.1"],
    ["0.0.0.0", "127.0.0.5", "127.0.0.1"],
    ["::1", "::1", "::1"],
    ["::", "::1", "::1"],
    ["::", "127.0.0.1", "::ffff:127.0.0.1"],
  ])("that listens on %s, met at %s", async (address, host, seen) => {
    const served = await Served.start(["--latency", "10ms"], { address });
    const { socket } = await connected(served.port, host);
    expect(await exchange(socket)).toBeGreaterThanOrEqual(20);
    const end: End = [seen, socket.localPort ?? 0];
    const local: End = [seen.startsWith("::ffff:") ? seen : host, served.port];
    socket.end();
    const { evidence, clients } = await served.ended();
    expect(clients).toEqual([{ accepted: end, peer: end, local }]);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 1, bytes_up: 10, bytes_down: 10 }]);
  });

  describe("from another network namespace", () => {
    const name = `mishap${process.pid}`;
    const ip = (...words: string[]): string | undefined => {
      const { status, stderr, error } = spawnSync("ip", words, { encoding: "utf8" });
      return status === 0 ? undefined : (error?.message ?? stderr);
    };
    afterAll(() => {
      ip("netns", "del", name);
    });

    it.for(["10.213.7.1", "fd13:7::1"])("met at %s", async (host, { skip }) => {
      if (ip("netns", "add", name) === undefined) {
        const inside = `${name}b`.slice(0, 15);
        const steps = [
          `link add ${name} type veth peer name ${inside} netns ${name}`,
          `addr add 10.213.7.1/24 dev ${name}`,
          `addr add fd13:7::1/64 dev ${name} nodad`,
          `link set ${name} up`,
          `-n ${name} addr add 10.213.7.2/24 dev ${inside}`,
          `-n ${name} addr add fd13:7::2/64 dev ${inside} nodad`,
          `-n ${name} link set ${inside} up`,
        ];
        const refused = steps.map((step) => ip(...step.split(" "))).find((problem) => problem !== undefined);
        skip(refused !== undefined, `no network of its own: ${refused}`);
      }
      const served = await Served.start(["--latency", "20ms"], { address: host.includes(":") ? "::" : "0.0.0.0" });
      const words = ["netns", "exec", name, "python3", CLIENT, host, String(served.port), "1", "2"];
      const { stdout } = await start("ip", words).finished;
      const told: Told[] = jsonLines(stdout);
      expect(texts(told)).toEqual(["0123456789", "0123456789"]);
      for (const ms of times(told)) expect(ms).toBeGreaterThanOrEqual(40);
      const { clients } = await served.ended();
      const [{ accepted: [address] = [], local: [own] = [] } = {}] = clients;
      expect([address, own]).toEqual([host.replace(/1$/, "2"), host]);
    });
  });
});

describe("faults, as a client outside sees them", () => {
  it("loss is repaired as TCP does", async () => {
    const served = await Served.start(["--packet-loss", "20%", "--seed", "3"]);
    const told = await client(served.port, { exchanges: 20 });
    expect(texts(told)).toEqual(Array.from({ length: 20 }, () => "0123456789"));
    const { evidence } = await served.ended();
    const late = times(told).filter((ms) => ms >= 200);
    expect(late.length).toBeGreaterThan(0);
    expect(late.length).toBeLessThanOrEqual(evidence.faults[0]?.applied ?? 0);
  });

  it("a rate holds", async () => {
    const served = await Served.start(["--downlink.rate", "4mbps"]);
    const { socket } = await connected(served.port);
    const began = performance.now();
    let left = 250_000;
    socket.write(Buffer.alloc(left));
    await new Promise<void>((resolve) => {
      socket.on("data", ({ length }) => {
        left -= length;
        if (left === 0) resolve();
      });
    });
    const took = performance.now() - began;
    socket.end();
    await served.ended();
    expect(took).toBeGreaterThan(450);
    expect(took).toBeLessThan(2500);
  });

  it("what passes is changed", async () => {
    const truncated = ["type", "truncate", "truncate-size", "4", "target", "uplink_only"];
    const flags = [0, 2, 4].flatMap((at) => [`--payload-mutation.${truncated[at]}`, String(truncated[at + 1])]);
    const served = await Served.start(flags);
    expect(texts(await client(served.port))).toEqual(["0123", "0123"]);
    const { evidence } = await served.ended();
    expect(evidence.coverage).toMatchObject([{ state: "relayed", bytes_up: 20, bytes_down: 20 }]);
    expect(evidence.notes).toEqual([]);
  });

  it("a reset ends a connection at its first bytes, a budget behind its last", async () => {
    const served = await Served.start(["--connection-error", "reset"], { connections: 2 });
    expect(texts(await client(served.port, { connections: 2, exchanges: 1 }))).toEqual(["ECONNRESET", "ECONNRESET"]);
    expect((await served.ended()).evidence.faults).toMatchObject([{ applied: 2 }]);
    const budget = ["--session-budget.max-tx", "10b", "--session-budget.action", "connection_error"];
    const bounded = await Served.start(budget);
    expect(texts(await client(bounded.port))).toEqual(["0123456789", "ECONNRESET"]);
    await bounded.ended();
  });

  it("a connection that is reset before it is accepted is the relay's still", async () => {
    const program = ["sh", "-c", `exec python3 ${SERVER} $0 $1 $2 late`];
    const served = await Served.start(["--connection-error", "reset"], { program });
    expect(texts(await client(served.port, { exchanges: 1 }))).toEqual(["ECONNRESET"]);
    const { coverage, escaped, notes } = (await served.ended()).evidence;
    expect({ coverage, escaped, notes }).toMatchObject({ coverage: [{ state: "relayed" }], escaped: [], notes: [] });
  });

  it("a half-open connection is heard no more", async () => {
    const served = await Served.start(["--half-open", "15b"], { connections: 1 });
    expect(texts(await client(served.port))).toEqual(["01234", "timeout"]);
    process.kill(served.running.pid, "SIGTERM");
    await served.running.finished;
  });

  it("decides as the interceptor does for the same seed", async () => {
    const port = await freeTcpPort();
    const decisions = async (executor: string): Promise<unknown[]> => {
      const journal = join(folder, `${freshProject()}.jsonl`);
      const faults = ["--latency", "5ms", "--jitter", "4ms", "--packet-loss", "10%", "--seed", "11"];
      const served = await Served.start([...faults, "--journal", journal], { executor, port, connections: 2 });
      await client(port, { connections: 2, exchanges: 25 });
      await served.ended();
      const lines = readFileSync(journal, "utf8").trim().split("\n");
      return lines
        .map((line) => ({ ...JSON.parse(line), at_ns: 0, at_ms: 0, pid: 0 }))
        .filter((event) => "verdict" in event);
    };
    const [relay, interceptor] = [await decisions("relay"), await decisions("interceptor")];
    expect(relay.length).toBeGreaterThan(50);
    expect(relay).toEqual(interceptor);
  });
});

describe("a conversation within the run is faulted once", () => {
  it.each(["relay", "auto"])("under %s", async (executor) => {
    const inside = ["sh", "-c", `python3 ${SERVER} $0 $1 1 & sleep 1; python3 ${CLIENT} $0 $1 1 2; wait`];
    const served = await Served.start(["--latency", "100ms"], { program: inside, executor });
    const { stdout } = await served.running.finished;
    const told: Told[] = jsonLines(stdout).filter((line) => "connect" in line);
    const [{ took } = { took: 0 }] = told;
    for (const ms of [took, ...times(told)]) {
      expect(ms).toBeGreaterThanOrEqual(200);
      expect(ms).toBeLessThan(390);
    }
    const { evidence, clients } = await served.ended();
    expect(clients).toMatchObject([{ peer: ["127.0.0.1", expect.any(Number)] }]);
    expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 6 }]);
  });

  it("a static server's, whose client the interceptor carries", async () => {
    const path = await build(folder, "static-server");
    const inside = ["sh", "-c", `${path} $0 $1 1 & sleep 1; python3 ${CLIENT} $0 $1 1 2; wait`];
    const served = await Served.start(["--latency", "100ms"], { program: inside, executor: "auto" });
    const { evidence } = await served.ended();
    expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 6 }]);
    expect(evidence.coverage).toContainEqual(expect.objectContaining({ state: "intercepted", bytes_up: 20 }));
  });
});

describe("left alone", () => {
  it("listeners that the interceptor carries, under auto, while others are relayed", async () => {
    const served = await Served.start(["--latency", "20ms"], { executor: "auto" });
    for (const ms of times(await client(served.port))) expect(ms).toBeGreaterThanOrEqual(40);
    const { evidence } = await served.ended();
    expect(evidence.coverage).toMatchObject([{ state: "intercepted", flows: 1, bytes_up: 20, bytes_down: 20 }]);
    expect(evidence.faults).toMatchObject([{ applied: 4, executor: "interceptor" }]);
  });

  /** Servers outside and inside of the run that share a port; how long clients' exchanges with `host` took. */
  const sharing = async (others: string, ours: string, hosts: readonly string[], before: boolean) => {
    const port = await freeTcpPort();
    const listen = async (): Promise<Running> => {
      const other = start("python3", [SERVER, others, String(port), "100", "shared"]);
      await other.says("listening");
      return other;
    };
    const earlier = before ? await listen() : undefined;
    const program = ["sh", "-c", `exec python3 ${SERVER} $0 $1 $2 shared`];
    const served = await Served.start(["--latency", "100ms"], { program, address: ours, connections: 100, port });
    const other = earlier ?? (await listen());
    const took: number[] = [];
    for (const host of hosts) took.push(...times(await client(port, { host, exchanges: 1 })));
    process.kill(served.running.pid, "SIGTERM");
    const { stdout } = await served.running.finished;
    other.child.kill("SIGKILL");
    return { took, inside: ends(stdout).length, outside: ends((await other.finished).stdout).length };
  };

  it.each([true, false])("a port that others share at this address: they were first: %s", async (before) => {
    const hosts = Array.from({ length: 8 }, () => "127.0.0.1");
    const { took, inside, outside } = await sharing("127.0.0.1", "127.0.0.1", hosts, before);
    for (const ms of took) expect(ms).toBeLessThan(100);
    expect(inside + outside).toBe(8);
  });

  it.each([true, false])("an address of its own that another listens on: it was first: %s", async (before) => {
    const { took, inside, outside } = await sharing("127.0.0.2", "0.0.0.0", ["127.0.0.2", "127.0.0.3"], before);
    expect([inside, outside]).toEqual([1, 1]);
    expect(took[0]).toBeLessThan(100);
    expect(took[1]).toBeGreaterThanOrEqual(200);
  });

  it("a port where nobody listens any more, also one that the kernel chose", async () => {
    const file = join(folder, freshProject());
    const program = `
import socket, time
listener = socket.create_server(("127.0.0.1", 0)); port = listener.getsockname()[1]; listener.close()
open("${file}", "w").write(str(port)); print("listening", flush=True); time.sleep(4)
`;
    const served = await Served.start([], { program: ["python3", "-c", program] });
    const port = Number(readFileSync(file, "utf8"));
    expect(await client(port)).toMatchObject([{ connect: "ECONNREFUSED" }]);
    await served.ended();
  });
});

describe("bytes", () => {
  it.each([
    ["untouched", 50_000_000, []],
    ["with latency, jitter and loss", 5_000_000, ["--latency", "5ms", "--jitter", "3ms", "--packet-loss", "1%"]],
  ] as const)("arrive by their checksum: %s", async (_, size, flags) => {
    const served = await Served.start(flags);
    const { socket } = await connected(served.port);
    const sent = randomBytes(size);
    const got = createHash("sha256");
    socket.end(sent);
    for await (const part of socket) got.update(part);
    expect(got.digest("hex")).toBe(createHash("sha256").update(sent).digest("hex"));
    const { evidence } = await served.ended();
    expect(evidence.coverage).toMatchObject([{ state: "relayed", bytes_up: size, bytes_down: size }]);
    expect(evidence.notes).toEqual([]);
  });
});

describe("a relay that", () => {
  it("is killed ends its connections in a reset; later ones go direct, and it is said", async () => {
    const served = await Served.start(["--latency", "50ms"], { connections: 2 });
    const { socket, ended } = await connected(served.port);
    expect(await exchange(socket)).toBeGreaterThanOrEqual(100);
    process.kill(served.relay, "SIGKILL");
    expect(await ended).toBe("ECONNRESET");
    for (const ms of times(await client(served.port))) expect(ms).toBeLessThan(100);
    const { evidence } = await served.ended();
    expect(evidence.notes).toContainEqual(expect.stringContaining("the relay was lost"));
    expect(evidence.coverage?.map(({ state }) => state).sort()).toEqual(["escaped", "relayed"]);
  });

  it("hangs makes nobody wait for long whose connection it does not have", async () => {
    const served = await Served.start(["--latency", "50ms"], { connections: 1 });
    const { relay } = served;
    process.kill(relay, "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 600));
    for (const ms of times(await client(served.port))) expect(ms).toBeLessThan(100);
    process.kill(relay, "SIGCONT");
    await served.ended();
  });
});

it("nothing is left", async () => {
  const served = await Served.start(["--latency", "10ms"]);
  await client(served.port);
  await served.ended();
  await until("the relay is gone", () => relaysOf(served.project).length === 0);
  await until("nothing is loaded", () => orphans().length === 0);
});
