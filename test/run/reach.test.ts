// The table of reach: programs that no preload enters, or that carry none here, under every fault, seen by what each program says
// itself, of servers by what their client sees, and agreed by the kernel's witness. No cell is empty: in one that can mean nothing
// evidence says that the fault was never applied. What programs talk to runs outside.
import { spawnSync } from "node:child_process";
import type { Socket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createServer as createSecureServer } from "node:https";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { evidenceOf, freshProject, scratchFolder, start, startMishap, until } from "./cli-harness.js";
import { askingIt, serveNames } from "./support/dns.js";
import { needsKernel } from "./support/kernel.js";
import { freeTcpPort } from "./support/programs.js";

const programs = fileURLToPath(new URL("../programs/reach/", import.meta.url));
const folder = scratchFolder();
const RELAY = ["--kernel", "--executor", "relay"];
const LATENCY_MS = 60;
/** How much later than asked is still right: a busy machine. */
const LATE_MS = 2000;
const TEXT = "0123456789";
/** What a server's client waits for an answer. */
const OUTSIDE_PATIENCE_MS = 2000;

let echo: Server;
let secure: ReturnType<typeof createSecureServer>;
let names: Socket | undefined;
const portOf = (server: { address(): AddressInfo | string | null }): number => (server.address() as AddressInfo).port;

/** What a program says it saw (test/programs/reach/ask.c). */
interface Seen {
  readonly lookup: number;
  readonly connect: number;
  readonly exchanges: readonly number[];
  readonly stage?: "lookup" | "connect" | "exchange";
  readonly error?: string;
  readonly text: string;
}

interface Row {
  /** Builds what it needs, or says what is missing. */
  prepare(): string | undefined;
  command(host: string, exchanges: number, bytes: number): string[];
  said(stdout: string): Seen;
}

/** What a program saw, or its client did, and what evidence says of it. */
interface Found {
  readonly seen: Seen;
  readonly evidence: Evidence;
}

type Under = (cell: Cell, skip: (why: string) => never) => Promise<Found>;

const built = (command: string, ...args: string[]): string | undefined => {
  const { error, status, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, GOFLAGS: "-mod=mod" },
  });
  return error !== undefined ? `${command} is not installed` : status === 0 ? undefined : `${command}: ${stderr}`;
};
const C = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror"];

/** A client that is built from a file of test/programs/reach. */
function asking(name: string, build: (out: string) => string | undefined, start = (out: string) => [out]): Row {
  const out = join(folder, name);
  return {
    prepare: () => build(out),
    command: (host, exchanges, bytes) => [...start(out), host, String(portOf(echo)), String(exchanges), String(bytes)],
    said: (stdout) => JSON.parse(stdout) as Seen,
  };
}

const CURL_ERRORS: Readonly<Record<string, string>> = { 6: "ENOTFOUND", 28: "ETIMEDOUT" };
const curl: Row = {
  prepare: () => built("curl", "--version") ?? built("openssl", "version"),
  command: (host, _exchanges, bytes) => {
    const told = "%{time_namelookup} %{time_connect} %{time_appconnect} %{time_total} %{exitcode} %{errormsg}\\n";
    const url = `https://${host}:${portOf(secure)}/${bytes}`;
    return [
      "sh",
      "-c",
      `curl -4 -k -sv --max-time 2 -o "$0" -w "$1" "$2" 2>"$0.said"; head -c 10 "$0" 2>/dev/null; grep failed: "$0.said"; rm -f "$0"*`,
      join(folder, "body"),
      told,
      url,
    ];
  },
  said: (stdout) => {
    const [line = "", text = "", ...failed] = stdout.split("\n");
    const [, lookup, connect, secured, total, code = "0", message = ""] =
      /^(\S+) (\S+) (\S+) (\S+) (\d+) ?(.*)$/.exec(line) ?? [];
    const ms = (seconds: string | undefined): number => Number(seconds) * 1000;
    const seen = {
      lookup: ms(lookup),
      connect: ms(connect) - ms(lookup),
      exchanges: code === "0" ? [ms(total) - ms(secured)] : [],
      text,
    };
    if (code === "0") return seen;
    const words: readonly [RegExp, string][] = [
      [/reset by peer/, "ECONNRESET"],
      [/refused/, "ECONNREFUSED"],
      [/No route to host/, "EHOSTUNREACH"],
    ];
    const told = [message, text, ...failed].join(" ");
    const error = words.find(([pattern]) => pattern.test(told))?.[1] ?? CURL_ERRORS[code] ?? message;
    return { ...seen, text: "", error, stage: code === "6" ? "lookup" : code === "7" ? "connect" : "exchange" };
  },
};

const ROWS: Readonly<Record<string, Row>> = {
  "static C": asking("ask", (out) => built("gcc", ...C, "-static", "-w", "-o", out, `${programs}ask.c`)),
  io_uring: asking("uring", (out) => built("gcc", ...C, "-DURING", "-o", out, `${programs}ask.c`, "-luring")),
  "static Go": asking("go-static", (out) =>
    built("env", "CGO_ENABLED=0", "go", "build", "-o", out, `${programs}ask.go`),
  ),
  "dynamic Go": asking("go-dynamic", (out) =>
    built("env", "CGO_ENABLED=1", "go", "build", "-ldflags=-linkmode=external", "-o", out, `${programs}ask.go`),
  ),
  java: asking(
    "Ask",
    () => built("javac", "-d", folder, `${programs}Ask.java`),
    () => ["java", "-cp", folder, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "Ask"],
  ),
  "curl with TLS": curl,
};

const missing = new Map<Row, string | undefined>();
beforeEach(needsKernel);
beforeAll(async () => {
  for (const row of Object.values(ROWS)) missing.set(row, row.prepare());
  echo = createServer((socket) => socket.on("error", () => {}).pipe(socket));
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  spawnSync("openssl", [
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "1",
    "-subj",
    "/CN=reach",
    "-keyout",
    key,
    "-out",
    cert,
  ]);
  secure = createSecureServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
    response.end(TEXT.repeat(Number(request.url?.slice(1)) / 10));
  });
  for (const server of [echo, secure])
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  if (process.getuid?.() === 0) names = await serveNames();
}, 120_000);
afterAll(() => {
  for (const server of [echo, secure, names]) server?.close();
});

/** What goes for every cell: a fault was applied by the relay, and the kernel saw nothing else carry it, nor anything escape. */
function agree(evidence: Evidence, fault: string): void {
  expect(evidence.faults.filter(({ applied }) => applied > 0)).toContainEqual(
    expect.objectContaining({ fault, executor: "relay" }),
  );
  // A connection that ends before a byte and before anybody accepts it is no flow.
  expect(evidence.coverage?.filter(({ state }) => state !== "relayed")).toEqual([]);
  expect(evidence.notes.join("\n")).not.toMatch(/does not bear|than the kernel saw|was lost/);
}

interface Cell {
  /** Whom a client is to ask; default: 127.0.0.1. */
  readonly host?: string;
  readonly flags: readonly string[];
  readonly exchanges: number;
  readonly bytes: number;
  /** As evidence names it. */
  readonly fault: string;
  check(seen: Seen): void;
}

const fails =
  (stage: string, ...errors: string[]) =>
  (seen: Seen): void => {
    expect(seen).toMatchObject({ stage });
    expect(errors).toContain(seen.error);
  };
const mutation = (fields: Readonly<Record<string, string>>): string[] =>
  Object.entries(fields).flatMap(([name, value]) => [`--payload-mutation.${name}`, value]);
const COLUMNS: Readonly<Record<string, Cell>> = {
  latency: {
    flags: ["--latency", `${LATENCY_MS}ms`],
    exchanges: 2,
    bytes: 10,
    fault: "latency",
    check({ connect, exchanges, error, text }) {
      expect([error, text]).toEqual([undefined, TEXT]);
      expect(exchanges.length).toBeGreaterThan(0);
      for (const took of [connect, ...exchanges]) {
        expect(took).toBeGreaterThanOrEqual(2 * LATENCY_MS - 1);
        expect(took).toBeLessThan(2 * LATENCY_MS + LATE_MS);
      }
    },
  },
  loss: {
    flags: ["--downlink.packet-loss", "100%", "--loss-mode", "drop"],
    exchanges: 1,
    bytes: 10,
    fault: "downlink.packet_loss",
    check: fails("exchange", "ETIMEDOUT"),
  },
  rate: {
    flags: ["--rate", "400kbps"],
    exchanges: 1,
    bytes: 30_000,
    fault: "rate",
    check({ exchanges, error }) {
      expect(error).toBeUndefined();
      // 240,000 bits, less what the line takes at once; curl's go one way.
      expect(exchanges[0]).toBeGreaterThan(500);
      expect(exchanges[0]).toBeLessThan(1200 + LATE_MS);
    },
  },
  refused: {
    flags: ["--connection-error", "refused"],
    exchanges: 1,
    bytes: 10,
    fault: "connection_error",
    check: fails("connect", "ECONNREFUSED"),
  },
  unreachable: {
    flags: ["--connection-error", "unreachable"],
    exchanges: 1,
    bytes: 10,
    fault: "connection_error",
    check: fails("connect", "EHOSTUNREACH"),
  },
  "half-open": {
    flags: ["--half-open", "15b"],
    exchanges: 3,
    bytes: 10,
    fault: "half_open",
    check: fails("exchange", "ETIMEDOUT"),
  },
  DNS: {
    host: "reach.example",
    flags: ["--dns.nxdomain", "100%"],
    exchanges: 1,
    bytes: 10,
    fault: "dns.nxdomain",
    check: fails("lookup", "ENOTFOUND"),
  },
  reset: {
    flags: ["--connection-error", "reset"],
    exchanges: 1,
    bytes: 10,
    fault: "connection_error",
    check: fails("exchange", "ECONNRESET", "EPIPE"),
  },
  mutation: {
    flags: mutation({
      enabled: "true",
      type: "replace_pattern",
      prob: "100%",
      target: "downlink_only",
      "replace-find": "345",
      "replace-with": "xyz",
      "min-size": "1b",
    }),
    exchanges: 1,
    bytes: 10,
    fault: "payload_mutation",
    check({ text }) {
      expect(text).toBe("012xyz6789");
    },
  },
  budget: {
    flags: ["--session-budget.max-tx", "15b", "--session-budget.action", "connection_error"],
    exchanges: 3,
    bytes: 10,
    fault: "session_budget",
    check: fails("exchange", "ECONNRESET", "EPIPE"),
  },
};
/** Where a program's answer is another than most programs'. */
const OTHERWISE: Readonly<Record<string, Partial<Record<string, Partial<Cell>>>>> = {
  "curl with TLS": {
    mutation: {
      // Under TLS there is no plaintext to find: what is changed is noticed.
      flags: mutation({
        enabled: "true",
        type: "corrupt_bytes",
        prob: "100%",
        target: "downlink_only",
        "min-size": "1b",
        "max-size": "64kb",
        "corrupt-count": "64",
      }),
      check({ stage, text, error }) {
        expect([stage, text]).toEqual(["exchange", ""]);
        expect(error).toMatch(/SSL|TLS|tls|ssl/);
      },
    },
  },
};

/** A client by the relay. */
const client =
  (row: Row): Under =>
  async ({ host, flags, exchanges, bytes }, skip) => {
    const problem = missing.get(row);
    if (problem !== undefined) skip(problem);
    if (host !== undefined && names === undefined) skip("a resolver of the test's own needs root");
    const command = row.command(host ?? "127.0.0.1", exchanges, bytes);
    const words = host === undefined ? command : [...askingIt(folder), ...command];
    const { code, stdout, evidence } = await evidenceOf(folder, [...RELAY, ...flags], words);
    expect(code).toBe(0);
    return { seen: row.said(stdout), evidence };
  };

/** What a client without a fault sees of an echo of the server's, at this port. */
async function seenOutside(port: number, { exchanges, bytes }: Cell, wrap: Wrap): Promise<Seen> {
  const payload = Buffer.from(TEXT.repeat(bytes / TEXT.length));
  const socket = connect(port, "127.0.0.1");
  const took: number[] = [];
  let [error, text]: [string | undefined, string] = [undefined, ""];
  let whole = Buffer.alloc(0);
  socket.on("data", (part) => {
    whole = Buffer.concat([whole, part]);
  });
  socket.on("error", ({ code }: NodeJS.ErrnoException) => {
    error = code;
  });
  for (let i = 0; i < exchanges && error === undefined; i++) {
    const [start, answered] = [performance.now(), () => whole.length >= wrap.answerBytes(bytes)];
    whole = Buffer.alloc(0);
    socket.write(wrap.asks(payload));
    await until("it is answered", () => error !== undefined || answered(), OUTSIDE_PATIENCE_MS).catch(() => {
      error = "ETIMEDOUT";
    });
    if (!answered()) break;
    took.push(performance.now() - start);
    text = wrap.text(whole).slice(0, TEXT.length);
  }
  socket.destroy();
  return { lookup: 0, connect: 0, exchanges: took, text, ...(error === undefined ? {} : { error, stage: "exchange" }) };
}

/** How a server's protocol wraps an echo. */
interface Wrap {
  asks(payload: Buffer): Buffer;
  answerBytes(bytes: number): number;
  text(answer: Buffer): string;
}
const plain: Wrap = { asks: (payload) => payload, answerBytes: (bytes) => bytes, text: String };
const head = (bytes: number): string => `$${bytes}\r\n`;
const redis: Wrap = {
  asks: (payload) => Buffer.from(`*2\r\n$4\r\nECHO\r\n${head(payload.length)}${payload}\r\n`),
  answerBytes: (bytes) => head(bytes).length + bytes + 2,
  text: (answer) => `${answer}`.replace(/^\$\d+\r\n/, ""),
};

/** A server by the relay, from its start on. */
const server: Under = async (cell, skip) => {
  const path = join(folder, "go-server");
  const problem = built("env", "CGO_ENABLED=0", "go", "build", "-o", path, `${programs}serve.go`);
  if (problem !== undefined) skip(problem);
  const json = join(folder, `${freshProject()}.json`);
  const run = startMishap(["run", "--json", json, ...RELAY, ...cell.flags, "--", path]);
  let said = "";
  run.child.stdout?.on("data", (data) => {
    said += data;
  });
  await run.says("\n");
  const seen = await seenOutside(Number(said), cell, plain);
  run.child.kill("SIGTERM"); // its end of a half-open connection never hears that the other one is gone
  await run.finished;
  return { seen, evidence: evidenceSchema.parse(JSON.parse(readFileSync(json, "utf8"))) };
};

/** redis-server, which runs before mishap is attached to it. */
const attached: Under = async (cell, skip) => {
  const problem = built("redis-server", "--version");
  if (problem !== undefined) skip(problem);
  const port = await freeTcpPort();
  const redisServer = start("redis-server", [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--dir",
    folder,
  ]);
  onTestFinished(() => {
    redisServer.child.kill("SIGKILL");
  });
  await redisServer.says("Ready to accept connections");
  const json = join(folder, `${freshProject()}.json`);
  const mishap = startMishap(["attach", "--pid", String(redisServer.pid), "--json", json, ...cell.flags]);
  let said = "";
  mishap.child.stderr?.on("data", (data) => {
    said += data;
  });
  await until("it is attached", () => said.includes("attached to"), 20_000);
  const seen = await seenOutside(port, cell, redis);
  mishap.child.kill("SIGINT");
  await mishap.finished;
  return { seen, evidence: evidenceSchema.parse(JSON.parse(readFileSync(json, "utf8"))) };
};

/** A server makes no connection and looks nothing up: what goes for those finds nothing there. */
const NOTHING_TO_MEET = new Set(["refused", "unreachable", "DNS"]);
const SERVERS: Readonly<Record<string, readonly [Under, Wrap]>> = {
  "static Go server": [server, plain],
  "redis-server, running before": [attached, redis],
};

describe.each(Object.entries(ROWS))("%s", (name, row) => {
  it.for(Object.entries(COLUMNS))("%s", { timeout: 60_000 }, async ([column, usual], { skip }) => {
    const cell = { ...usual, ...OTHERWISE[name]?.[column] };
    const { seen, evidence } = await client(row)(cell, skip);
    cell.check(seen);
    agree(evidence, cell.fault);
  });
});

describe.each(Object.entries(SERVERS))("%s", (_, [under, wrap]) => {
  it.for(Object.entries(COLUMNS))("%s", { timeout: 60_000 }, async ([column, usual], { skip }) => {
    // One whole answer: Node takes a reset that comes right behind bytes for an end.
    const flags = ["--session-budget.max-tx", `${wrap.answerBytes(usual.bytes)}b`, ...usual.flags.slice(2)];
    const cell = column === "budget" ? { ...usual, flags } : usual;
    const { seen, evidence } = await under(cell, skip);
    if (NOTHING_TO_MEET.has(column)) {
      expect(seen).toMatchObject({ exchanges: [expect.any(Number)], text: TEXT });
      expect(evidence.faults).toMatchObject([{ fault: cell.fault, applied: 0 }]);
      expect(evidence.notes.join("\n")).toMatch(/never applied/);
      return;
    }
    // A client is connected before its server is asked.
    cell.check(column === "latency" ? { ...seen, connect: 2 * LATENCY_MS } : seen);
    agree(evidence, cell.fault);
  });
});
