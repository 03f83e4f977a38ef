// The table of real programs: every client under every fault, seen by what the program itself reports (exit code,
// message, body, time) and by evidence that agrees. The servers run outside mishap.
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { type Finished, MISHAP, scratchFolder, start } from "./cli-harness.js";
import { type Client, clients, type Report } from "./programs/clients.js";
import { BODY, type Servers, startServers } from "./programs/servers.js";

const ADDRESS = "127.0.0.1";
/** Resolves without a network, from a hosts file that a mount namespace of its own shows; curl answers localhost itself. */
const NAME = "mishap.test";
const DNS_DELAY_MS = 700;
const LATENCY_MS = 600;
/** How much later than asked is still right: process start-ups, a busy machine. */
const PATIENCE_MS = 2000;
const RATE_BPS = 200_000;
/** What the line takes at once: more than 10 ms carry, because at least one segment. */
const RATE_BURST_BYTES = 1448;

const folder = scratchFolder();
const hosts = join(folder, "hosts");
const table = clients(folder);
let servers: Servers;

/** What makes a mount namespace, as root or as a user; undefined where the kernel allows neither. */
const unshare = ["-m", "-rm"].find(
  (flag) => spawnSync("unshare", [flag, "mount", "--bind", "/etc/hosts", "/etc/hosts"]).status === 0,
);
const inNamespace = ["unshare", unshare ?? "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts];

beforeAll(async () => {
  writeFileSync(hosts, `127.0.0.1 localhost\n127.0.0.1 ${NAME}\n`);
  execFileSync("javac", ["-d", folder, fileURLToPath(new URL("programs/UrlClient.java", import.meta.url))]);
  servers = await startServers();
});
afterAll(() => servers?.stop());

interface Outcome extends Finished {
  readonly body: string;
  /** As the program measured it. */
  readonly elapsedMs: number;
}

async function run(host: string, command: readonly string[]): Promise<Outcome> {
  const [program = "", ...args] = host === NAME ? [...inNamespace, ...command] : command;
  const noProxy = { http_proxy: undefined, HTTP_PROXY: undefined, all_proxy: undefined, ALL_PROXY: undefined };
  const running = start(program, args, { env: { LC_ALL: "C.UTF-8", ...noProxy } });
  onTestFinished(() => {
    if (running.child.exitCode === null && running.child.signalCode === null) process.kill(-running.pid, "SIGKILL");
  });
  const end = await running.finished;
  return {
    ...end,
    body: end.stdout.trimEnd(),
    elapsedMs: Number(/elapsed_s=([\d.]+)/.exec(end.stderr)?.[1]) * 1000,
  };
}

async function runFaulted(client: Client, host: string, flags: readonly string[]) {
  const file = join(folder, `evidence-${randomBytes(4).toString("hex")}.json`);
  const mishap = [process.execPath, MISHAP, "run", "--quiet", "--json", file, ...flags, "--"];
  const end = await run(host, [...mishap, ...client.command(host, servers)]);
  expect(existsSync(file), end.stderr).toBe(true);
  const evidence: Evidence = evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  expect(evidence).toMatchObject({ exit_code: end.code, escaped: [], notes: [], fallbacks: {} });
  return { end, evidence };
}

function expectFailure(end: Outcome, report: Report): void {
  expect(end.code, end.stderr).toBe(report.code);
  expect(end.stderr).toContain(report.says);
}

function expectSuccess(end: Outcome, body = BODY): void {
  expect(end.code, end.stderr).toBe(0);
  expect(end.body).toBe(body);
}

function expectTime(end: Outcome, leastMs: number, patienceMs = PATIENCE_MS): void {
  expect(end.elapsedMs).toBeGreaterThanOrEqual(leastMs);
  expect(end.elapsedMs).toBeLessThan(leastMs + patienceMs);
}

interface Fault {
  readonly name: string;
  readonly flags: readonly string[];
  readonly host: string;
  /** The entry of the evidence. */
  readonly fault: string;
  /** What the program has to report. */
  check(end: Outcome, client: Client): void | Promise<void>;
}

const faults: Fault[] = [
  {
    name: "connect refused",
    flags: ["--connection-error", "refused"],
    host: ADDRESS,
    fault: "connection_error",
    check: (end, client) => expectFailure(end, client.refused),
  },
  {
    name: "DNS NXDOMAIN",
    flags: ["--dns.nxdomain", "100%"],
    host: NAME,
    fault: "dns.nxdomain",
    check: async (end, client) => {
      expectFailure(end, client.nxdomain);
      expectSuccess(await run(NAME, client.command(NAME, servers))); // the name does resolve without us
    },
  },
  {
    name: "DNS delay",
    flags: ["--dns.delay", `${DNS_DELAY_MS}ms`],
    host: NAME,
    fault: "dns.delay",
    check: (end) => {
      expectSuccess(end);
      expectTime(end, DNS_DELAY_MS);
    },
  },
  {
    name: "session budget",
    flags: [
      ...["--session-budget.max-rx", "4kb"],
      ...["--session-budget.action", "connection_error", "--session-budget.error", "reset"],
    ],
    host: ADDRESS,
    fault: "session_budget",
    check: (end, client) => {
      expectFailure(end, client.reset);
      expect(end.body.length).toBeLessThanOrEqual(4000);
    },
  },
  {
    name: "rate",
    flags: ["--rate", `${RATE_BPS / 1000}kbps`],
    host: ADDRESS,
    fault: "rate",
    check: (end) => {
      expectSuccess(end);
      expectTime(end, ((BODY.length - RATE_BURST_BYTES) * 8 * 1000) / RATE_BPS);
    },
  },
  {
    name: "payload mutation",
    flags: [
      ...["--payload-mutation.type", "replace_pattern", "--payload-mutation.target", "downlink_only"],
      ...["--payload-mutation.replace-find", "good", "--payload-mutation.replace-with", "evil"],
    ],
    host: ADDRESS,
    fault: "payload_mutation",
    check: (end) => expectSuccess(end, BODY.replace("good", "evil")),
  },
];

describe.each(table)("$name", (client) => {
  it.for(faults)("reports $name", async ({ flags, host, fault, check }, { skip }) => {
    if (host === NAME && !unshare) skip("a name for DNS faults needs unshare(1) with a mount namespace, denied here");
    const { end, evidence } = await runFaulted(client, host, flags);
    await check(end, client);
    expect(evidence.faults).toMatchObject([{ fault, executor: "interceptor" }]);
    expect(evidence.faults[0]?.applied).toBeGreaterThan(0);
  });
});

// A connect takes one round trip, a request and its answer another; a wait too many would be a latency more, and a link
// that serves an event loop badly takes twice the time.
describe.each(table)("$name", (client) => {
  it.each([
    { direction: "out", fault: "uplink.latency", roundTripMs: LATENCY_MS },
    { direction: "in", fault: "downlink.latency", roundTripMs: LATENCY_MS },
    { direction: "both ways", fault: "latency", roundTripMs: 2 * LATENCY_MS },
  ])("takes its round trips of latency $direction", async ({ fault, roundTripMs }) => {
    const { end, evidence } = await runFaulted(client, ADDRESS, [`--${fault}`, `${LATENCY_MS}ms`]);
    expectSuccess(end);
    expectTime(end, client.roundTrips * roundTripMs, LATENCY_MS);
    expect(evidence.faults).toMatchObject([{ fault, asked: `${LATENCY_MS}ms` }]);
    const deliveredMs = (evidence.faults[0]?.p50_ns ?? 0) / 1e6;
    expect(deliveredMs / LATENCY_MS).toBeGreaterThan(0.98); // a histogram's bucket is 1/64 wide
    expect(deliveredMs / LATENCY_MS).toBeLessThan(1.1);
  });
});
