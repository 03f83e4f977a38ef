/**
 * `mishap run --kernel --executor relay`: connections of programs that carry no interceptor, as those programs see them, and
 * what evidence says of them.
 */
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Evidence } from "../../src/report/schema.js";
import { evidenceOf, freshProject, scratchFolder, segmentFiles, start, startMishap, until } from "./cli-harness.js";
import { users } from "./support/jail.js";
import {
  build,
  cannotBuild,
  hasMptcp,
  kernelWorks,
  movedBy,
  needsKernel,
  type Program,
  relaysOf,
} from "./support/kernel.js";
import { unreachable } from "./support/user-folder.js";

const CLIENT = fileURLToPath(new URL("../programs/relayed.py", import.meta.url));
const RELAY = ["--kernel", "--executor", "relay"];
const folder = scratchFolder();

let server: Server;
let port = 0;
/** Bytes that came to the server, which echoes them. */
let received = 0;
beforeAll(async () => {
  server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("data", ({ length }) => {
      received += length;
    });
    socket.on("error", () => {}).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "::", resolve));
  const address = server.address();
  if (address !== null && typeof address !== "string") port = address.port;
});
afterAll(() => {
  server.close();
});
beforeEach(needsKernel);

interface Told {
  readonly took: number;
  readonly connect: string;
  readonly peer?: [string, number];
  readonly local?: string;
  readonly exchanges: readonly (readonly [number, string])[];
}

const toldBy = (stdout: string): Told[] =>
  stdout
    .trim()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

/** A client under the relay: its connections, each with so many exchanges. */
async function client(
  flags: readonly string[],
  { host = "127.0.0.1", to = port, connections = 1, exchanges = 3, more = [] as string[] } = {},
) {
  const command = ["python3", CLIENT, host, ...[to, connections, exchanges].map(String), ...more];
  const end = await evidenceOf(folder, [...RELAY, ...flags], command);
  return { ...end, told: toldBy(end.stdout) };
}

const texts = (told: readonly Told[]): string[] => told.flatMap(({ exchanges }) => exchanges.map(([, text]) => text));

describe.each(["127.0.0.1", "::1", "::ffff:127.0.0.1"])("towards %s", (host) => {
  it("a program sees its true peer and address, and each way's delay", async () => {
    const { told, evidence } = await client(["--latency", "20ms"], { host });
    const [{ connect, took, peer, local, exchanges } = { connect: "", took: 0, exchanges: [] }] = told;
    expect({ connect, peer, local }).toEqual({ connect: "made", peer: [host, port], local: host });
    for (const each of [took, ...exchanges.map(([ms]) => ms)]) {
      expect(each).toBeGreaterThanOrEqual(40);
      expect(each).toBeLessThan(200);
    }
    expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 8, executor: "relay" }]);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 1, bytes_up: 30, bytes_down: 30 }]);
    expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
  });

  it("a port where nobody listens refuses, as without", async () => {
    const { told } = await client([], { host, to: 1 });
    expect(told).toMatchObject([{ connect: "ECONNREFUSED" }]);
    const { told: late } = await client(["--latency", "30ms"], { host, to: 1 });
    expect(late).toMatchObject([{ connect: "ECONNREFUSED" }]);
    expect(late[0]?.took).toBeGreaterThanOrEqual(60);
    expect(late[0]?.took).toBeLessThan(500);
  });

  it.each([
    ["refused", "ECONNREFUSED"],
    ["unreachable", "EHOSTUNREACH"],
  ])("a connection that is %s has its errno", async (kind, errno) => {
    const { told, evidence } = await client(["--connection-error", kind], { host, connections: 3 });
    expect(told.map(({ connect }) => connect)).toEqual([errno, errno, errno]);
    expect(evidence.faults).toMatchObject([{ applied: 3, of: 3, witnessed: 3 }]);
  });
});

describe.each(["127.0.0.1", "::1"])("by MPTCP, towards %s", (host) => {
  beforeEach(({ skip }) => skip(!hasMptcp(), "this kernel has no MPTCP"));
  const mptcp = { host, more: ["mptcp"], connections: 2 };

  it("a program is connected at once, and meets each way's delay from then on", async () => {
    const { told, evidence } = await client(["--latency", "20ms"], mptcp);
    expect(told).toMatchObject([
      { connect: "made", peer: [host, port] },
      { connect: "made", peer: [host, port] },
    ]);
    expect(texts(told)).toEqual(Array.from({ length: 6 }, () => "0123456789"));
    for (const [ms] of told.flatMap(({ exchanges }) => exchanges)) expect(ms).toBeGreaterThanOrEqual(40);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 2, bytes_up: 60, bytes_down: 60 }]);
    expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
  });

  it("what would have failed its connect ends it", async () => {
    for (const [flags, to] of [
      [["--connection-error", "refused"], port],
      [["--connection-error", "reset"], port],
      [["--connection-error", "unreachable"], port],
      [[], 1],
    ] as const) {
      const { told } = await client(flags, { ...mptcp, to, exchanges: 1 });
      const outcomes = told.map(({ connect, exchanges }) => (connect === "made" ? exchanges[0]?.[1] : connect));
      for (const outcome of outcomes) expect(["ECONNRESET", "EPIPE"]).toContain(outcome);
    }
  });
});

describe("faults", () => {
  it("a reset ends the connection at its first bytes, and the kernel saw it", async () => {
    const { told, evidence } = await client(["--connection-error", "reset"], { connections: 3, exchanges: 1 });
    expect(texts(told)).toEqual(["ECONNRESET", "ECONNRESET", "ECONNRESET"]);
    expect(evidence.faults).toMatchObject([{ applied: 3, witnessed: 3 }]);
  });

  it("loss is repaired as TCP does, or is for good", async () => {
    // The server's port is in every draw: one connect in 25 loses two SYNs, and takes 3 s.
    const repaired = await client(["--packet-loss", "20%", "--seed", "3"], { exchanges: 20, more: ["patient"] });
    expect(texts(repaired.told)).toEqual(Array.from({ length: 20 }, () => "0123456789"));
    const [fault] = repaired.evidence.faults;
    const late = repaired.told.flatMap(({ exchanges }) => exchanges.filter(([ms]) => ms >= 200));
    expect(fault?.applied).toBeGreaterThan(0);
    expect(late.length).toBeGreaterThan(0);
    expect(late.length).toBeLessThanOrEqual(fault?.applied ?? 0);
    const lost = await client(["--packet-loss", "100%", "--loss-mode", "drop"], { exchanges: 1 });
    expect(lost.told).toMatchObject([{ connect: "timeout" }]);
  });

  it("a rate holds", async () => {
    const program = `
import socket, time
s = socket.create_connection(("127.0.0.1", ${port})); start = time.monotonic(); left = 250_000
import threading
threading.Thread(target=lambda: s.sendall(b"x" * left)).start()
while left: left -= len(s.recv(min(left, 65536)))
print(time.monotonic() - start)
`;
    const { stdout } = await evidenceOf(folder, [...RELAY, "--uplink.rate", "4mbps"], ["python3", "-c", program]);
    expect(Number(stdout)).toBeGreaterThan(0.45);
    expect(Number(stdout)).toBeLessThan(2);
  });

  it("what passes is changed", async () => {
    const truncated = ["type", "truncate", "truncate-size", "4", "target", "downlink_only"];
    const flags = [0, 2, 4].flatMap((at) => [`--payload-mutation.${truncated[at]}`, String(truncated[at + 1])]);
    const { told, evidence } = await client(flags);
    expect(texts(told)).toEqual(["0123", "0123", "0123"]);
    expect(evidence.coverage).toMatchObject([{ bytes_up: 30, bytes_down: 12 }]);
  });

  it("a connect that takes too long times out, and the socket is as it was", async () => {
    const program = `
import select, socket, time
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for blocking in (True, False):
        s = socket.socket(family); s.setsockopt(6, socket.TCP_SYNCNT, 3); s.setsockopt(6, socket.TCP_USER_TIMEOUT, 9000)
        s.setblocking(blocking); start = time.monotonic()
        error = s.connect_ex((host, ${port}))
        if not blocking: select.select([], [s], []); error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        print(error, time.monotonic() - start, s.getsockopt(6, socket.TCP_SYNCNT), s.getsockopt(6, socket.TCP_USER_TIMEOUT))
`;
    const under = async (...flags: string[]): Promise<[Evidence, number[][]]> => {
      const { evidence, stdout } = await evidenceOf(folder, [...RELAY, ...flags], ["python3", "-c", program]);
      const rows = stdout.trim().split("\n");
      return [evidence, rows.map((row) => row.split(" ").map(Number))];
    };
    const [late, tooLate] = await under("--timeout.connect", "300ms", "--latency", "200ms");
    expect(tooLate).toHaveLength(4);
    for (const [error, took, ...options] of tooLate) {
      expect([error, ...options]).toEqual([110, 3, 9000]);
      expect(took).toBeGreaterThanOrEqual(0.3);
      expect(took).toBeLessThan(0.6);
    }
    expect(late.faults).toContainEqual(expect.objectContaining({ fault: "timeout.connect", applied: 4 }));
    expect(late.faults[0]).toMatchObject({ fault: "latency", applied: 0 });
    const [, inTime] = await under("--timeout.connect", "900ms", "--latency", "50ms");
    for (const [error, took, ...options] of inTime) {
      expect([error, ...options]).toEqual([0, 3, 9000]);
      expect(took).toBeLessThan(0.6);
    }
  });

  it("a budget ends the connection, and a half-open one hears nothing any more", async () => {
    const budget = ["--session-budget.max-tx", "15b", "--session-budget.action", "connection_error"];
    expect(texts((await client(budget, { exchanges: 2 })).told)).toEqual(["0123456789", "ECONNRESET"]);
    expect(texts((await client(["--half-open", "15b"], { exchanges: 2 })).told)).toEqual(["01234", "timeout"]);
  });

  it("decides as the interceptor does for the same seed", async () => {
    const decisions = async (executor: string): Promise<unknown[]> => {
      const journal = join(folder, `${freshProject()}.jsonl`);
      const flags = [
        "--latency",
        "5ms",
        "--jitter",
        "4ms",
        "--packet-loss",
        "10%",
        "--seed",
        "11",
        "--journal",
        journal,
      ];
      const command = ["python3", CLIENT, "127.0.0.1", String(port), "2", "25"];
      await evidenceOf(folder, ["--kernel", "--executor", executor, ...flags], command);
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

describe("programs that a preload cannot enter", () => {
  it.for<Program>(["static", "go-static", "uring"])("%s", async (program, { skip }) => {
    const missing = cannotBuild(program);
    skip(missing !== undefined, missing);
    const path = await build(folder, program);
    // The peer gives back what it got.
    const command = [path, String(port), "3", "20000", "20000", "0"];
    const { evidence, stdout } = await evidenceOf(folder, [...RELAY, "--latency", "15ms"], command);
    expect(movedBy(stdout)).toMatchObject([{ flows: 3, up: 60_000, down: 60_000 }]);
    expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: 3, bytes_up: 60_000, bytes_down: 60_000 }]);
    expect(evidence.duration_ms).toBeGreaterThanOrEqual(60);
    expect(evidence.notes).toEqual([]);
  });
});

it("auto leaves to the interceptor what it carries, and has the relay carry the rest", async () => {
  const path = await build(folder, "static");
  const exchange = ["127.0.0.1", String(port), "1", "1"].map(String).join(" ");
  const command = `python3 ${CLIENT} ${exchange}; ${path} ${port} 1 10 10 0`;
  const flags = ["--kernel", "--executor", "auto", "--latency", "20ms"];
  const { evidence, stdout } = await evidenceOf(folder, flags, ["sh", "-c", command]);
  const [told, moved] = stdout.trim().split("\n");
  expect(toldBy(told ?? "")[0]?.took).toBeGreaterThanOrEqual(40);
  expect(movedBy(moved ?? "")).toMatchObject([{ flows: 1, up: 10, down: 10 }]);
  expect(evidence.coverage?.map(({ program, state }) => [program.slice(0, 6), state]).sort()).toEqual([
    ["python", "intercepted"],
    ["static", "relayed"],
  ]);
  // A connect, a send and a receive each way, of each.
  expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 8, executor: "both" }]);
  expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
});

it("auto delays a conversation within the run once, at the end that connects", async () => {
  const path = await build(folder, "static");
  const program = `
import socket, subprocess, time
server = socket.create_server(("127.0.0.1", 0)); start = time.monotonic()
client = subprocess.Popen(["${path}", str(server.getsockname()[1]), "1", "10", "10", "0"], stdout=subprocess.DEVNULL)
end, _ = server.accept(); end.recv(10, socket.MSG_WAITALL); end.sendall(b"x" * 10); client.wait()
print(time.monotonic() - start)
`;
  const flags = ["--kernel", "--executor", "auto", "--latency", "200ms"];
  const { evidence, stdout } = await evidenceOf(folder, flags, ["python3", "-c", program]);
  // A round trip to connect, another to exchange.
  expect(Number(stdout)).toBeGreaterThan(0.8);
  expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 4 }]);
});

describe("bytes", () => {
  const program = (bytes: number): string => `
import hashlib, os, socket, threading
data = os.urandom(${bytes}); s = socket.create_connection(("127.0.0.1", ${port})); got = hashlib.sha256()
def send():
    s.sendall(data); s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
while True:
    part = s.recv(100_000)
    if not part: break
    got.update(part)
print(hashlib.sha256(data).hexdigest(), got.hexdigest())
`;
  it.each([
    ["untouched", 50_000_000, []],
    ["with latency, jitter and loss", 5_000_000, ["--latency", "5ms", "--jitter", "3ms", "--packet-loss", "1%"]],
  ] as const)("arrive by their checksum: %s", async (_, bytes, flags) => {
    const { stdout } = await evidenceOf(folder, [...RELAY, ...flags], ["python3", "-c", program(bytes)]);
    const [sent, got] = stdout.trim().split(" ");
    expect(sent).toMatch(/^[0-9a-f]{64}$/);
    expect(got).toBe(sent);
    expect(got).not.toBe(createHash("sha256").digest("hex"));
  });
});

describe("what a program sent before its end", () => {
  it("leaves as late as it is, and the run waits for it", async () => {
    const before = received;
    const program = `
import socket
socket.create_connection(("127.0.0.1", ${port})).sendall(b"x" * 50_000)
`;
    const { evidence } = await evidenceOf(folder, [...RELAY, "--uplink.latency", "700ms"], ["python3", "-c", program]);
    await until("all has come", () => received - before === 50_000);
    expect(evidence.faults).toMatchObject([{ fault: "uplink.latency" }]);
    expect(evidence.faults[0]?.applied).toBeGreaterThanOrEqual(2); // the connect, and the bytes in one read or more
    expect(evidence.faults[0]?.p50_ns).toBeGreaterThanOrEqual(690e6);
    expect(evidence.notes).toEqual([]);
  });

  it("comes whole to a peer that reads slowly", async () => {
    const size = 12_000_000; // more than all that is between them has room for
    let came = 0;
    const slow = createServer((socket) => {
      socket.on("data", ({ length }) => {
        came += length;
        socket.pause();
        setTimeout(() => socket.resume(), 5);
      });
    });
    await new Promise<void>((resolve) => slow.listen(0, "127.0.0.1", resolve));
    const end = new Promise((resolve) =>
      slow.once("connection", (socket) => socket.once("end", () => resolve("end")).once("error", resolve)),
    );
    const to = slow.address();
    if (to === null || typeof to === "string") throw new Error("no port");
    const program = `
import socket
socket.create_connection(("127.0.0.1", ${to.port})).sendall(b"x" * ${size})
`;
    await evidenceOf(folder, RELAY, ["python3", "-c", program]);
    expect(await end).toBe("end");
    expect(came).toBe(size);
    slow.close();
  });
});

describe("a relay that", () => {
  const SIGKILL = 9;
  const SIGSTOP = 19;

  it("is killed ends its connections in a reset; later ones go direct, and it is said", async () => {
    const { told, evidence } = await client([], { connections: 12, exchanges: 2, more: [String(SIGKILL)] });
    expect(told[0]?.exchanges.map(([, text]) => text)).toEqual(["0123456789", "ECONNRESET"]);
    expect(texts(told.slice(8))).toEqual(Array.from({ length: 8 }, () => "0123456789"));
    expect(evidence.notes).toContainEqual(expect.stringContaining("the relay was lost"));
    expect(evidence.coverage?.map(({ state }) => state).sort()).toEqual(["escaped", "relayed"]);
  });

  it("is killed while connects wait for it has them refused at once, not at their next SYN", async () => {
    const program = `
import errno, json, os, signal, socket, subprocess, threading, time
relay = int(subprocess.check_output(["pgrep", "-f", "^mishap-relay " + os.environ["MISHAP_SEGMENT"]]))
def attempt(host):
    end = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    failed = end.connect_ex((host, ${port}))
    ends.append((errno.errorcode.get(failed, failed), time.monotonic() - killed < 0.8))
ends = []
hosts = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]
threads = [threading.Thread(target=attempt, args=[host]) for host in hosts]
for thread in threads: thread.start()
time.sleep(0.1)
killed = time.monotonic()
os.kill(relay, signal.SIGKILL)
for thread in threads: thread.join()
print(json.dumps(ends))
`;
    const lost = ["--packet-loss", "100%", "--loss-mode", "drop"];
    const { stdout } = await evidenceOf(folder, [...RELAY, ...lost], ["python3", "-c", program]);
    expect(JSON.parse(stdout)).toEqual(Array.from({ length: 3 }, () => ["ECONNREFUSED", true]));
  });

  it("hangs is ended: its connections are reset within a moment, and later ones go direct", async () => {
    const { told } = await client([], { connections: 4, exchanges: 2, more: [String(SIGSTOP)] });
    expect(told[0]?.exchanges.map(([, text]) => text)).toEqual(["0123456789", "ECONNRESET"]);
    expect(told[0]?.exchanges[1]?.[0]).toBeLessThan(1500);
    expect(texts(told.slice(1))).toEqual(Array.from({ length: 6 }, () => "0123456789"));
  });
});

it("a mishap that has none does without, unless it was asked for", async () => {
  const [here, place] = [fileURLToPath(new URL("../../", import.meta.url)), join(folder, "without")];
  mkdirSync(join(place, "build/Release"), { recursive: true });
  cpSync(join(here, "dist"), join(place, "dist"), { recursive: true });
  for (const file of ["package.json", "node_modules"]) symlinkSync(join(here, file), join(place, file));
  for (const file of ["mishap.node", "mishap-janitor", "mishap-loader", "mishap-courier", "libmishap-interceptor.so"])
    copyFileSync(join(here, "build/Release", file), join(place, "build/Release", file));
  const run = (...flags: string[]): ReturnType<typeof startMishap>["finished"] =>
    start(process.execPath, [join(place, "dist/cli/main.js"), "run", "--kernel", ...flags, "--", "true"]).finished;
  expect(await run()).toMatchObject({
    code: 0,
    stderr: expect.stringContaining(
      "note: the relay is not to be had: relay: mishap-relay: No such file or directory; what the interceptor cannot enter runs unfaulted",
    ),
  });
  expect(await run("--executor", "auto")).toMatchObject({
    code: 125,
    stderr: expect.stringContaining("the relay is not to be had"),
  });
});

describe("under sudo", () => {
  it("the relay is the invoking user's, without a right, and closed to that user's programs", async ({ skip }) => {
    const [, user] = users();
    skip(user === undefined, "needs root, to be another user too");
    const refused = user && unreachable(user);
    skip(refused !== undefined, refused);
    const program = `
import os, socket, subprocess
socket.create_connection(("127.0.0.1", ${port})).sendall(b"x")
pid = int(subprocess.check_output(["pgrep", "-f", "^mishap-relay " + os.environ["MISHAP_SEGMENT"]]))
lines = open(f"/proc/{pid}/status").read().splitlines()
print(os.getuid(), *(line.split()[1] for line in lines if line.startswith(("Uid:", "CapPrm:", "CapEff:"))))
for look in (lambda: os.listdir(f"/proc/{pid}/fd"), lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR)):
    try:
        print(look())
    except PermissionError:
        print("refused")
`;
    const env = { SUDO_UID: "65534", SUDO_GID: "65534", SUDO_USER: "nobody" };
    const words = ["run", "--project", freshProject(), ...RELAY, "--latency", "10ms", "--", "python3", "-c", program];
    const { code, stdout, stderr } = await startMishap(words, { env }).finished;
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: "65534 65534 0000000000000000 0000000000000000\nrefused\nrefused\n",
    });
    expect(stderr).toMatch(/coverage +python3\S* \(pid \d+\) +relayed/);
  });
});

describe("afterwards", () => {
  it("nothing is left, of a run that was killed neither", async () => {
    const project = freshProject();
    const command = ["python3", CLIENT, "127.0.0.1", String(port), "1", "1"];
    const ended = startMishap(["run", "--project", project, ...RELAY, "--", ...command]);
    expect((await ended.finished).code).toBe(0);
    expect(relaysOf(project)).toEqual([]);
    const running = startMishap(["run", "--project", project, ...RELAY, "--", "sleep", "1"]);
    await until("the relay is there", () => relaysOf(project).length === 1);
    process.kill(running.pid, "SIGKILL");
    await running.finished;
    await until("the relay is gone", () => relaysOf(project).length === 0);
    await until("the segment is gone", () => segmentFiles(project).length === 0, 10_000);
  });
});

describe("the command", () => {
  it.runIf(kernelWorks)("says what does not go together", async () => {
    const tries = [
      [["--executor", "relay"], "--executor relay: the kernel hands connections to the relay, so add --kernel"],
      [["--kernel", "--executor", "proxy"], "--executor proxy: it is interceptor, relay or auto"],
      [[...RELAY, "--script", "brownout"], "--executor relay: only the interceptor asks a script"],
    ] as const;
    for (const [flags, sentence] of tries) {
      const end = await startMishap(["run", ...flags, "--", "true"]).finished;
      expect(end).toMatchObject({ code: 2, stderr: expect.stringContaining(sentence) });
    }
  });
});
