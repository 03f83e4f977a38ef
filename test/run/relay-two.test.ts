// Two runs at once, of one user and of two, in one network namespace and in two: each has its own relay, and neither sees,
// faults or accounts for the other's connections.
import { randomBytes } from "node:crypto";
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeEach, describe, expect, it } from "vitest";
import type { Evidence } from "../../src/report/schema.js";
import { evidenceSchema } from "../../src/report/schema.js";
import { freshProject, MISHAP, scratchFolder, start } from "./cli-harness.js";
import { networkApart, notApart } from "./support/apart.js";
import { users } from "./support/jail.js";
import { needsKernel } from "./support/kernel.js";
import { unreachable } from "./support/user-folder.js";

const CLIENT = fileURLToPath(new URL("../programs/relayed.py", import.meta.url));
const ECHO = `
import socket, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
def echo(end):
    try:
        while got := end.recv(1000): end.sendall(got)
    except OSError: pass
while True: threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
`;
/** Three exchanges with a server in its own process, of a socket of some type; how long each took, in ms. */
const TRIPS = `
import socket, sys, threading, time
kind = socket.SOCK_DGRAM if sys.argv[1] == "datagrams" else socket.SOCK_STREAM
end = socket.socket(socket.AF_INET, kind)
end.connect(("127.0.0.1", int(sys.argv[2])))
for _ in range(3):
    start = time.monotonic(); end.send(b"0123456789"); end.recv(100); print((time.monotonic() - start) * 1000)
`;
const folder = scratchFolder();
const EXCHANGES = 12;

beforeEach(needsKernel);

type Place = readonly string[];

const ECHO_DATAGRAMS = `
import socket
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("127.0.0.1", 0))
print(end.getsockname()[1], flush=True)
while True: end.sendto(*end.recvfrom(1000))
`;

/** A server outside mishap, where `place` says; it ends with `end`. */
async function echoAt(place: Place, program = ECHO): Promise<{ port: string; end(): void }> {
  const [command = "", ...args] = [...place, "python3", "-c", program];
  const server = start(command, args);
  const port = new Promise<string>((resolve) => server.child.stdout?.once("data", (data) => resolve(`${data}`.trim())));
  return { port: await port, end: () => server.child.kill("SIGKILL") };
}

interface Run {
  readonly evidence: Evidence;
  /** How long each exchange took, in ms. */
  readonly exchanges: readonly number[];
}

/** A client of so many connections under a latency of its own. */
async function run(place: Place, port: string, latencyMs: number, connections: number, env: object): Promise<Run> {
  chmodSync(folder, 0o777); // whoever the run's user is
  const file = join(folder, `evidence-${randomBytes(4).toString("hex")}.json`);
  const flags = ["--project", freshProject(), "--kernel", "--executor", "relay", "--latency", `${latencyMs}ms`];
  const client = ["python3", CLIENT, "127.0.0.1", port, String(connections), String(EXCHANGES)];
  const words = [...place, process.execPath, MISHAP, "run", "--json", file, ...flags, "--", ...client];
  const [command = "", ...args] = words;
  const { code, stdout, stderr } = await start(command, args, { env }).finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining("latency") });
  const told: { exchanges: [number, string][] }[] = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(told.flatMap(({ exchanges }) => exchanges.filter(([, text]) => text !== "0123456789"))).toEqual([]);
  const evidence = evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  return { evidence, exchanges: told.flatMap(({ exchanges }) => exchanges.map(([ms]) => ms)) };
}

/** Each run's own, and nothing else: flows, bytes, delays. */
function expectOwn({ evidence, exchanges }: Run, latencyMs: number, connections: number): void {
  const bytes = connections * EXCHANGES * 10;
  expect(evidence.coverage).toMatchObject([
    { state: "relayed", flows: connections, bytes_up: bytes, bytes_down: bytes },
  ]);
  expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
  expect(evidence.faults).toMatchObject([{ fault: "latency", applied: connections * (2 + 2 * EXCHANGES) }]);
  expect(exchanges).toHaveLength(connections * EXCHANGES);
  expect(Math.min(...exchanges)).toBeGreaterThanOrEqual(2 * latencyMs);
}

describe.each(["one network namespace", "two"])("in %s", (where) => {
  it.for(["one user", "two users"])("of %s", async (whose, { skip }) => {
    const [, user] = users();
    skip(where === "two" && notApart !== undefined, notApart);
    const refused =
      whose === "two users" && (user === undefined ? "needs root, to be another user too" : unreachable(user));
    skip(typeof refused === "string", refused || "");
    const other =
      whose === "two users" && user !== undefined
        ? { SUDO_UID: `${user.uid}`, SUDO_GID: `${user.gid}`, SUDO_USER: user.name }
        : {};
    const places: readonly [Place, Place] = where === "two" ? [await networkApart(), await networkApart()] : [[], []];
    const servers = [await echoAt(places[0]), await echoAt(places[1])] as const;
    try {
      const [slow, quick] = await Promise.all([
        run(places[0], servers[0].port, 60, 2, {}),
        run(places[1], servers[1].port, 5, 9, other),
      ]);
      expectOwn(slow, 60, 2);
      expectOwn(quick, 5, 9);
      // The slow one's delays are not the quick one's.
      const sorted = [...quick.exchanges].sort((a, b) => a - b);
      expect(sorted[sorted.length >> 1]).toBeLessThan(60);
    } finally {
      for (const server of servers) server.end();
    }
  });
});

describe("a run within a run", () => {
  const under = (latencyMs: number): string[] => [
    ...[process.execPath, MISHAP, "run", "--quiet", "--project", freshProject(), "--kernel", "--executor", "relay"],
    ...["--latency", `${latencyMs}ms`, "--"],
  ];
  it.each(["connections", "datagrams"])("has the delays of both: %s", async (kind) => {
    const server = await echoAt([], kind === "datagrams" ? ECHO_DATAGRAMS : ECHO);
    try {
      const [command = "", ...args] = [...under(20), ...under(10), "python3", "-c", TRIPS, kind, server.port];
      const { code, stdout } = await start(command, args).finished;
      expect(code).toBe(0);
      const times = stdout.trim().split("\n").map(Number);
      expect(times).toHaveLength(3);
      for (const ms of times) expect(ms).toBeGreaterThanOrEqual(60);
    } finally {
      server.end();
    }
  });
});
