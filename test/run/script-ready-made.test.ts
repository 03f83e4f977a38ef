/** The ready-made scripts, each on a real program. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { evidenceOf, scratchFolder } from "./cli-harness.js";
import { unjailed } from "./support/user-folder.js";

const EXCHANGES = fileURLToPath(new URL("../programs/exchanges.py", import.meta.url));
const folder = scratchFolder();
const servers: { close(): void }[] = [];
let port = 0;

async function listening(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a server without a port");
  return address.port;
}

beforeAll(async () => {
  port = await listening(createServer((socket) => socket.on("error", () => {}).pipe(socket)));
});
afterAll(() => {
  for (const server of servers) server.close();
});
beforeEach(({ skip }) => skip(unjailed !== undefined, unjailed));

const optionsOf = (options: Record<string, string | number>): string[] =>
  Object.entries(options).flatMap(([name, value]) => ["--script-option", `${name}=${value}`]);

/** A program under a script: what it printed, and the evidence. */
async function under(
  name: string,
  options: Record<string, string | number>,
  command: readonly string[],
  more: readonly string[] = [],
) {
  const flags = ["--seed", "7", "--script", name, "--script-patience", "1s", ...more, ...optionsOf(options)];
  const { stdout, stderr, evidence } = await evidenceOf(folder, flags, command);
  const { script } = evidence;
  if (script === undefined) throw new Error("the evidence has no script");
  expect(script.problems).toEqual([]);
  return { stdout, stderr, script, faults: evidence.faults };
}

/** So many exchanges on one connection: what each took. */
async function exchanges(
  name: string,
  options: Record<string, string | number>,
  count: number,
  pauseMs = 0,
  more: readonly string[] = [],
) {
  const run = await under(name, options, ["python3", EXCHANGES, String(count), String(pauseMs), String(port)], more);
  const [{ connect, took }]: [{ connect: number; took: number[] }] = JSON.parse(run.stdout);
  return { ...run, connect, took };
}

it("brownout slows answers, and refuses connections, while it lasts", async () => {
  const { took, script } = await exchanges("brownout", { period: 1e6, length: 600, slow: 80, refused: 0 }, 30, 40);
  expect(Math.max(...took.slice(0, 5))).toBeGreaterThan(15);
  expect(Math.max(...took.slice(-5))).toBeLessThan(15);
  expect(script.metrics["ops in a brownout"]).toBeGreaterThan(5);
});

it("slow-start gets faster from answer to answer", async () => {
  const { took } = await exchanges("slow-start", { down: 0, warm: 2000, slow: 150 }, 20, 20);
  expect(took[0]).toBeGreaterThan(100);
  expect(took.at(-1)).toBeLessThan(Number(took[0]) / 2);
});

it("gray-replica connects at once, and answers late", async () => {
  const { connect, took, script } = await exchanges("gray-replica", { slow: 60 }, 3);
  expect(Math.min(...took)).toBeGreaterThan(59);
  expect(connect).toBeGreaterThan(0);
  expect(script.metrics).toEqual({ "flows to the gray replica": 1 });
});

it("measured-latency takes a round trip of its trace", async () => {
  const trace: number[] = JSON.parse(
    readFileSync(fileURLToPath(new URL("../../scripts/data/round-trips.json", import.meta.url)), "utf8"),
  );
  const { took } = await exchanges("measured-latency", {}, 5);
  expect(Math.min(...took)).toBeGreaterThan(Math.min(...trace) - 1);
  expect(took[2]).toBeLessThan(Math.max(...trace) + 20);
});

it("measured-latency takes those of a CSV that it may read", async () => {
  const csv = join(folder, "measured.csv");
  writeFileSync(csv, "time,host,rtt\n12:00:01,a.test,80.0\n12:00:02,a.test,84.5\n");
  const { took } = await exchanges("measured-latency", { csv }, 3, 0, [`--allow-read=${csv}`]);
  expect(Math.min(...took)).toBeGreaterThan(79);

  const { stderr, evidence } = await evidenceOf(
    folder,
    ["--script", "measured-latency", ...optionsOf({ csv })],
    ["python3", EXCHANGES, "1", "0", String(port)],
  );
  expect(stderr).toContain(`--allow-read=${csv}`);
  expect(evidence.script?.problems).toMatchObject([{ file: expect.stringContaining("measured-latency.ts"), line: 10 }]);
});

it("flaky-wifi loses packets in bursts, as many as its trace", async () => {
  const program = `import socket
sink = socket.socket(type=socket.SOCK_DGRAM); sink.bind(("127.0.0.1", 0))
flow = socket.socket(type=socket.SOCK_DGRAM); flow.connect(sink.getsockname())
for i in range(4000): flow.send(b"x")`;
  const trace: number[] = JSON.parse(
    readFileSync(fileURLToPath(new URL("../../scripts/data/wifi-loss.json", import.meta.url)), "utf8"),
  );
  const lost = trace.reduce((sum, each) => sum + each, 0) / trace.length;
  const { faults } = await under("flaky-wifi", {}, ["python3", "-c", program]);
  const loss = faults.find(({ fault }) => fault === "correlated_loss");
  expect(loss).toMatchObject({ asked: "by the script", of: 4000 });
  expect(Number(loss?.applied) / 4000).toBeGreaterThan(lost / 3);
  expect(Number(loss?.applied) / 4000).toBeLessThan(lost * 3);
});

it("retry-storm refuses connects until clients storm, and then lets them be", async () => {
  const program = `import socket, time
refused = []
for i in range(60):
  try: socket.create_connection(("127.0.0.1", ${port})).close(); refused.append(False)
  except ConnectionRefusedError: refused.append(True)
  time.sleep(0.05)
print(refused[:8].count(True), refused[-8:].count(True))`;
  const { stdout, stderr, script } = await under("retry-storm", { refused: 1, limit: 10 }, ["python3", "-c", program]);
  expect(stdout).toBe("8 0\n");
  expect(script.metrics["retry storms"]).toBeGreaterThan(0);
  expect(stderr).toMatch(/script: \d+ connects in a second: a retry storm/);
});

it("dns-split-brain hides names from some, always the same", async () => {
  const program = `import socket
for i in range(12):
  name = "server-%d.test" % i
  try: socket.getaddrinfo(name, 80); print(name, "found")
  except socket.gaierror as error: print(name, error.errno == socket.EAI_NONAME)`;
  const [once, again] = [
    await under("dns-split-brain", {}, ["python3", "-c", program]),
    await under("dns-split-brain", {}, ["python3", "-c", program]),
  ];
  expect(once.stdout).toBe(again.stdout);
  const hidden = once.faults.find(({ fault }) => fault === "dns.nxdomain");
  expect(hidden?.applied).toBeGreaterThan(0);
  expect(hidden?.applied).toBeLessThan(12);
});

it("tenant-throttle gives a tenant its rate, by the name in its ClientHello", async () => {
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=server-1.test"];
  execFileSync("openssl", [...request, "-keyout", key, "-out", cert], { stdio: "ignore" });
  const options = { key: readFileSync(key), cert: readFileSync(cert) };
  const tlsPort = await listening(
    createTlsServer(options, (socket) => socket.on("error", () => {}).end("x".repeat(16_384))),
  );
  const program = `import socket, ssl, sys, time
context = ssl._create_unverified_context()
for name in sys.argv[1:]:
  start = time.monotonic()
  with context.wrap_socket(socket.create_connection(("127.0.0.1", ${tlsPort})), server_hostname=name) as tls:
    while tls.recv(65536): pass
  print(round((time.monotonic() - start) * 1000))`;
  const { stdout, script } = await under("tenant-throttle", {}, [
    "python3",
    "-c",
    program,
    "server-1.test",
    "other.test",
  ]);
  const [slow = 0, fast = 0] = stdout.trim().split("\n").map(Number);
  expect(slow).toBeGreaterThan(450); // 18 KB at 256 kbit a second
  expect(fast).toBeLessThan(slow / 2);
  expect(script.metrics["flows of server-1.test"]).toBe(1);
});

it("breaking-point finds where a service does half as much", async () => {
  const program = `import socket, time
end = time.monotonic() + 6.5
connection = socket.create_connection(("127.0.0.1", ${port}))
while time.monotonic() < end:
  connection.sendall(b"x" * 100)
  connection.recv(100)
  time.sleep(0.1)`;
  const { stderr, script } = await under("breaking-point", { max: 400, steps: 4, step: 1 }, ["python3", "-c", program]);
  expect(stderr).toMatch(/script: breaks between \d+ and \d+ ms of latency/);
  // 0.1 s between answers: twice the time, and so half as much, at some 50 ms each way.
  expect(script.metrics["breaking point in ms"]).toBeGreaterThanOrEqual(25);
  expect(script.metrics["breaking point in ms"]).toBeLessThanOrEqual(125);
});
