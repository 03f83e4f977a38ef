// Payload in recordings: none unless it is asked for; then every byte that ops carried, however they were cut and delayed.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { carriedBy, openRecording } from "../../src/recording/index.js";
import { mishap, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();
const sent = randomBytes(300_000);
const body = join(folder, "body");
const secret = "a-word-that-only-the-payload-holds";
let serial = 0;
let url = "";

/** Answers what it was sent, backwards. */
const server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => response.end(Buffer.concat(parts).reverse()));
});

beforeAll(async () => {
  writeFileSync(body, sent);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});
afterAll(() => server.close());

const newFile = (): string => join(folder, `run-${++serial}.mishap`);

/** curl posts a file under these flags; answers what it wrote. */
async function post(file: string, ...flags: string[]): Promise<Buffer> {
  const answer = `${file}.answer`;
  const upload = ["--data-binary", `@${body}`, "-H", `X-Word: ${secret}`, "-H", "Expect:", "-o", answer, url];
  const { code, stderr } = await mishap("run", "--quiet", "--record", file, ...flags, "--", "curl", "-sS", ...upload);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return readFileSync(answer);
}

/** What went one way over the only flow that carried anything. */
function bytesOf(file: string, direction: number): Buffer {
  const [carried, ...others] = carriedBy(openRecording(file), "", direction);
  expect(others).toEqual([]);
  return Buffer.concat((carried?.ops ?? []).map(({ bytes }) => bytes));
}

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const bodyOf = (message: Buffer): Buffer => message.subarray(message.indexOf("\r\n\r\n") + 4);

describe("--record-payload", () => {
  it.each([
    { name: "nothing but a recording", flags: [] },
    {
      name: "latency, jitter and loss",
      flags: ["--latency", "3ms", "--jitter", "2ms", "--packet-loss", "2%", "--seed", "3"],
    },
    { name: "a rate", flags: ["--rate", "50mbps"] },
    { name: "every op recorded", flags: ["--record-all"] },
  ])("keeps what the program gave and got, under $name", async ({ flags }) => {
    const file = newFile();
    const answer = await post(file, "--record-payload", ...flags);
    expect(hash(answer)).toBe(hash(Buffer.from(sent).reverse()));
    expect(hash(bodyOf(bytesOf(file, 0)))).toBe(hash(sent));
    expect(hash(bodyOf(bytesOf(file, 1)))).toBe(hash(answer));
    expect(openRecording(file).end).toMatchObject({ lost: 0 });
  });

  it("keeps the bytes as the program got them where a fault changed them", async () => {
    const file = newFile();
    const mutation = { type: "corrupt_bytes", target: "downlink_only", "min-size": "2000", "corrupt-count": "3" };
    const flags = Object.entries(mutation).flatMap(([name, value]) => [`--payload-mutation.${name}`, value]);
    const answer = await post(file, "--record-payload", ...flags);
    expect(hash(bodyOf(bytesOf(file, 1)))).toBe(hash(answer));
    expect(hash(answer)).not.toBe(hash(Buffer.from(sent).reverse()));
  });

  it("is where payload comes from: without it a recording holds none", async () => {
    const file = newFile();
    await post(file, "--latency", "1ms", "--record-all");
    expect([...openRecording(file).payload()]).toEqual([]);
    const { code, stderr } = await mishap("recording", "payload", file);
    expect(code).toBe(2);
    expect(stderr).toBe(`mishap: ${file}: holds no payload; \`mishap run --record-payload\` records it\n`);
  });
});

describe("mishap recording payload", () => {
  const file = newFile();
  beforeAll(() => post(file, "--record-payload", "--latency", "1ms"));

  it("sums up, prints the bytes of a flow, and each op as JSON", async () => {
    const { stdout: summary } = await mishap("recording", "payload", file);
    expect(summary).toMatch(/^tcp:127\.0\.0\.1:\d+#1@0 {2}uplink {2}[\d.,]+ kB in \d+ ops?\n.* {2}downlink {2}.*\n$/);
    const { stdout: lines } = await mishap("recording", "payload", file, "--json", "--direction", "uplink");
    const ops = lines
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(ops[0]).toMatchObject({ direction: "uplink", flow: expect.stringContaining("tcp:127.0.0.1:") });
    const whole = Buffer.concat(ops.map(({ payload_base64: text }) => Buffer.from(text, "base64")));
    expect(hash(bodyOf(whole))).toBe(hash(sent));
    const { stdout: head } = await mishap("recording", "payload", file, "--flow", "tcp:", "--direction", "uplink");
    expect(head).toContain(`X-Word: ${secret}\r\n`);
  });

  it("says where there is no such flow or direction", async () => {
    const { code, stderr } = await mishap("recording", "payload", file, "--flow", "udp:");
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: `mishap: --flow udp:: no such flow carried anything in ${file}\n`,
    });
    expect((await mishap("recording", "payload", file, "--direction", "up")).stderr).toBe(
      "mishap: --direction up: there is none; the nearest is uplink\n",
    );
  });

  it("is no part of a cut", async () => {
    const part = newFile();
    expect((await mishap("recording", "cut", file, "--out", part, "--from", "0s")).code).toBe(0);
    expect([...openRecording(part).payload()]).toEqual([]);
  });
});
