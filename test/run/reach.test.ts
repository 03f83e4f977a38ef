// The table of reach: programs that no preload enters, or that carry none here, under every fault, seen by what each program says
// itself and agreed by the kernel's witness. No cell is empty: one that can mean nothing says why. The servers run outside.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer as createSecureServer } from "node:https";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Evidence } from "../../src/report/schema.js";
import { evidenceOf, scratchFolder } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";

const programs = fileURLToPath(new URL("../programs/reach/", import.meta.url));
const folder = scratchFolder();
const RELAY = ["--kernel", "--executor", "relay"];
const LATENCY_MS = 60;
/** How much later than asked is still right: a busy machine. */
const LATE_MS = 2000;
const TEXT = "0123456789";

let echo: Server;
let secure: ReturnType<typeof createSecureServer>;
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
}, 120_000);
afterAll(() => {
  for (const server of [echo, secure]) server?.close();
});

/** What goes for every cell: a fault was applied by the relay, and the kernel saw nothing else carry it, nor anything escape. */
function agree(evidence: Evidence, fault: string): void {
  expect(evidence.faults.filter(({ applied }) => applied > 0)).toContainEqual(
    expect.objectContaining({ fault, executor: "relay" }),
  );
  expect(new Set(evidence.coverage?.map(({ state }) => state))).toEqual(new Set(["relayed"]));
  expect(evidence.notes.join("\n")).not.toMatch(/does not bear|than the kernel saw|was lost/);
}

interface Cell {
  readonly flags: readonly string[];
  readonly exchanges: number;
  readonly bytes: number;
  /** As evidence names it. */
  readonly fault: string;
  check(seen: Seen, row: Row): void;
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

describe.each(Object.entries(ROWS))("%s", (name, row) => {
  it.for(Object.entries(COLUMNS))("%s", { timeout: 60_000 }, async ([column, usual], { skip }) => {
    const problem = missing.get(row);
    if (problem !== undefined) skip(problem);
    const { flags, exchanges, bytes, fault, check } = { ...usual, ...OTHERWISE[name]?.[column] };
    const { code, stdout, evidence } = await evidenceOf(
      folder,
      [...RELAY, ...flags],
      row.command("127.0.0.1", exchanges, bytes),
    );
    expect(code).toBe(0);
    check(row.said(stdout), row);
    agree(evidence, fault);
  });
});
