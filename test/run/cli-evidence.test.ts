// The evidence of real runs against a server of the test's own: what was asked, what the program saw, what is said.
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evidenceOf, mishap, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();
let server: Server;
let url = "";

beforeAll(async () => {
  server = createServer((_, response) => response.end("hello\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const CURL = ["curl", "-sS", "-o", "/dev/null"];

/** A client that opens `many` connections, one after the other, and prints how each ended. */
function fetches(many: number): string[] {
  const program = `
    const http = require("node:http");
    const once = () => new Promise((done) => {
      http.get(process.argv[1], { agent: false }, (answer) => answer.resume().on("end", () => done("ok")))
        .on("error", (error) => done(error.code));
    });
    (async () => { for (let i = 0; i < ${many}; i++) console.log(await once()); })();`;
  return [process.execPath, "-e", program, url];
}

describe("evidence", () => {
  it("of a program that closes sockets past libc's close, as libuv does, has no call that met a stale one", async () => {
    const program = `
      const { readFileSync } = require("node:fs");
      const http = require("node:http");
      const once = () => new Promise((done) =>
        http.get(process.argv[1], { agent: false }, (answer) => answer.resume().on("close", done)));
      (async () => {
        await Promise.all(Array.from({ length: 40 }, once));
        await new Promise((soon) => setTimeout(soon, 50));
        const files = Array.from({ length: 40 }, () => require("node:fs").openSync("/proc/self/status"));
        for (const file of files) readFileSync(file);
      })();`;
    const { code, evidence } = await evidenceOf(folder, ["--latency", "1ms"], [process.execPath, "-e", program, url]);
    expect(code).toBe(0);
    expect(evidence.flows).toBe(40);
    expect(evidence.fallbacks).toEqual({});
  });

  it("of a run without faults says what was seen and nothing else", async () => {
    const { code, evidence, stderr } = await evidenceOf(folder, ["--seed", "0x7f3a"], [...CURL, url]);
    expect(code).toBe(0);
    expect(evidence).toMatchObject({ seed: "0x7f3a", exit_code: 0, flows: 1, faults: [], escaped: [], notes: [] });
    expect(evidence.command).toEqual([...CURL, url]);
    expect(evidence.ops).toBeGreaterThanOrEqual(3);
    expect(stderr).toMatch(/^mishap: 1 flow · \d+ ops · seed 0x7f3a\n$/);
  });

  it("of latency is what the clock said, and what the program felt", async () => {
    const command = ["curl", "-s", "-o", "/dev/null", "-w", "%{time_connect} %{time_total}", url];
    const { stdout, evidence, stderr } = await evidenceOf(folder, ["--latency", "40ms"], command);
    const [connectS = 0, totalS = 0] = stdout.split(" ").map(Number);
    expect(connectS).toBeGreaterThanOrEqual(0.08);
    expect(totalS).toBeGreaterThanOrEqual(0.16);
    expect(totalS).toBeLessThan(0.5);
    const [latency] = evidence.faults;
    expect(latency).toMatchObject({ fault: "latency", asked: "40ms", executor: "interceptor" });
    expect(latency?.applied).toBeGreaterThanOrEqual(4);
    expect(latency?.p50_ns).toBeGreaterThanOrEqual(40e6);
    expect(latency?.p50_ns).toBeLessThan(60e6);
    expect(latency?.p99_ns).toBeGreaterThanOrEqual(latency?.p50_ns ?? 0);
    expect(stderr).toMatch(/latency {2}asked 40ms {2}delivered p50 4\d\.\dms {2}p99 \d+\.\dms {2}/);
    expect(evidence.duration_ms).toBeGreaterThanOrEqual(160);
  });

  it("of refusals counts what the program counted", async () => {
    const { stdout, evidence } = await evidenceOf(
      folder,
      ["--connection-error", "refused:40%", "--seed", "11"],
      fetches(40),
    );
    const refused = stdout.split("\n").filter((line) => line === "ECONNREFUSED").length;
    expect(refused).toBeGreaterThan(4);
    expect(refused).toBeLessThan(30);
    expect(evidence.faults).toEqual([
      {
        fault: "connection_error",
        asked: "refused:40%",
        applied: refused,
        of: 40,
        delivered_ppm: Math.round((refused / 40) * 1e6),
        executor: "interceptor",
      },
    ]);
  });

  it("of a fault that never came is a note", async () => {
    const asked = ["--latency", "5ms", "--target", "tcp://10.1.2.3"];
    const { evidence } = await evidenceOf(folder, asked, [...CURL, url]);
    expect(evidence.faults[0]?.applied).toBe(0);
    expect(evidence.notes).toEqual(["latency was asked for and never applied: its targets matched no flow"]);
    const none = await evidenceOf(folder, ["--latency", "5ms"], ["true"]);
    expect(none.evidence.notes).toEqual([
      "latency was asked for and never applied: the program opened no network flow",
    ]);
  });

  it("is silent with --quiet, and keeps the JSON", async () => {
    const { stderr, evidence } = await evidenceOf(folder, ["--quiet"], [...CURL, url]);
    expect(stderr).toBe("");
    expect(evidence.flows).toBe(1);
  });

  it("replaces what the file held before", async () => {
    const file = join(folder, "again.json");
    for (const word of ["a-rather-long-word-that-makes-it-long", "b"]) {
      await mishap("run", "--quiet", "--json", file, "--", "true", word);
      expect(JSON.parse(readFileSync(file, "utf8")).command).toEqual(["true", word]);
    }
  });
});

describe("the journal", () => {
  it("holds each decision, alike for one seed, with nothing that differs between runs", async () => {
    const journalOf = async (seed: string): Promise<string[]> => {
      const file = join(folder, `journal-${seed}`);
      await mishap(
        "run",
        "--quiet",
        "--journal",
        file,
        "--seed",
        seed,
        "--connection-error",
        "refused:40%",
        "--",
        ...fetches(20),
      );
      return readFileSync(file, "utf8").split("\n").slice(0, -1);
    };
    const [first, again, other] = [await journalOf("5"), await journalOf("5"), await journalOf("6")];
    expect(first.length).toBeGreaterThan(0);
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    for (const line of first) {
      const decision = JSON.parse(line);
      expect(Object.keys(decision)).toEqual(["flow", "direction", "op", "unit", "stage", "verdict", "fault", "value"]);
      expect(decision).toMatchObject({ direction: "uplink", op: "connect", stage: "transport", verdict: "error" });
      expect(decision.flow).toMatch(/^tcp:127\.0\.0\.1:\d+#\d+@/);
    }
  });
});
