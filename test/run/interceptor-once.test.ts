// A delay is felt once, in the direction it was asked for, whoever of the two ends is under mishap.
import { beforeAll, describe, expect, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { echoServer, type Peer } from "./support/programs.js";
import { spanMs, type Talk, Talker } from "./support/talk.js";

const WAY_MS = 80;
const folder = scratchFolder();
let talker: Talker;
let echo: Peer;

beforeAll(async () => {
  [talker, echo] = await Promise.all([Talker.in(folder), echoServer()]);
});

/** From the beginning of one step to the end of another it took this many ways: never less, and less than one more. */
function expectWays(run: Talk, first: string, ways: number, last = first): void {
  const ms = run.between(first, last);
  expect(ms, `${first} to ${last} took ${ms} ms`).toBeGreaterThanOrEqual(ways * WAY_MS);
  expect(ms, `${first} to ${last} took ${ms} ms`).toBeLessThan((ways + 0.8) * WAY_MS);
}

/** The send returned at once, as one into a kernel's buffer does, and what it sent was received so many ways later. */
function expectSent(run: Talk, send: string, ways: number, receive: string): void {
  expect(run.one(send).ms, `${send} took ${run.one(send).ms} ms`).toBeLessThan(WAY_MS / 2);
  expectWays(run, send, ways, receive);
}

describe("a client of a server outside", () => {
  it.each([
    ["latency", { connect: 2, answer: 2 }],
    ["uplink.latency", { connect: 1, answer: 1 }],
    ["downlink.latency", { connect: 1, answer: 1 }],
  ])("--%s", async (field, ways) => {
    const run = await talker.under([`--${field}`, `${WAY_MS}ms`], `a.tcp:${echo.port}`, "a.send:hello", "a.recv:10");
    expectWays(run, "a.tcp", ways.connect);
    expectSent(run, "a.send", ways.answer, "a.recv");
    expect(run.one("a.recv").data).toBe("hello");
    expect(run.fault(field).p50_ns).toBeGreaterThanOrEqual(WAY_MS * 1e6);
    expect(run.fault(field).p50_ns).toBeLessThan(WAY_MS * 1.5e6);
  });

  it("waits once for one answer, however many receives take it", async () => {
    const receives = ["a.recv:2", "a.recvfrom:1", "a.read:2"];
    const run = await talker.under(
      ["--downlink.latency", `${WAY_MS}ms`],
      `a.tcp:${echo.port}`,
      "a.send:hello",
      ...receives,
    );
    const [first, ...further] = run.steps.slice(-3);
    expect(
      run.steps
        .slice(-3)
        .map(({ data }) => data)
        .join(""),
    ).toBe("hello");
    expect(spanMs(run.one("a.send"), first)).toBeGreaterThanOrEqual(WAY_MS);
    expect(further.reduce((sum, { ms }) => sum + ms, 0)).toBeLessThan(WAY_MS / 2);
  });

  it("waits for no more than is left, when it comes late for the answer", async () => {
    const run = await talker.under(
      ["--downlink.latency", `${WAY_MS}ms`],
      `a.tcp:${echo.port}`,
      "a.send:hello",
      "a.sleep:200",
      "a.recv:10",
    );
    expect(run.one("a.recv")).toMatchObject({ data: "hello" });
    expectWays(run, "a.recv", 0);
  });

  it("looks ahead without taking: a peek waits too, and the receive behind it no more", async () => {
    const run = await talker.under(
      ["--downlink.latency", `${WAY_MS}ms`],
      `a.tcp:${echo.port}`,
      "a.send:hello",
      "a.recv:10:peek",
      "a.recv:10",
    );
    expect(run.steps.slice(-2).map(({ data }) => data)).toEqual(["hello", "hello"]);
    const [peek, taken] = run.steps.slice(-2);
    expect(spanMs(run.one("a.send"), peek)).toBeGreaterThanOrEqual(WAY_MS);
    expect(taken?.ms).toBeLessThan(WAY_MS / 2);
  });
});

describe("both ends in one run", () => {
  it("over TCP: the connecting end carries the faults", async () => {
    const talk = ["a.send:ask", "b.recv:10", "b.send:answer", "a.recv:10"];
    const run = await talker.under(["--latency", `${WAY_MS}ms`], "l.listen", "a.tcp:@l", "b.accept:l", ...talk);
    expectWays(run, "a.tcp", 2);
    expectSent(run, "a.send", 1, "b.recv");
    expectSent(run, "b.send", 1, "a.recv");
  });

  it("over TCP, the server in a process of its own", async () => {
    const talk = ["a.send:ask", "b.accept:l", "f.fork", "b.recv:10", "b.send:answer", "a.recv:10"];
    const run = await talker.under(["--latency", `${WAY_MS}ms`], "l.listen", "f.fork", "a.tcp:@l", ...talk);
    expectSent(run, "a.send", 1, "b.recv");
    expectSent(run, "b.send", 1, "a.recv");
    expect(run.one("a.recv").data).toBe("answer");
  });

  it("over UDP: each sending end carries its own", async () => {
    const talk = ["a.send:ask", "b.recv:10", "b.send:answer", "a.recv:10"];
    const run = await talker.under(["--latency", `${WAY_MS}ms`], "b.udp:9", "a.udp:@b", "b.again:@a", ...talk);
    expectSent(run, "a.send", 1, "b.recv");
    expectSent(run, "b.send", 1, "a.recv");
    expect(run.one("a.recv").data).toBe("answer");
  });

  it("over UDP: a datagram is counted once, where it was sent", async () => {
    const talk = Array.from({ length: 20 }, (_, i) => [`a.send:ask${i}`, "b.recv:10"]).flat();
    const run = await talker.under(["--packet-duplicate", "100%"], "b.udp:9", "a.udp:@b", "b.again:@a", ...talk);
    expect(run.fault("packet_duplicate")).toMatchObject({ applied: 20, of: 20 });
  });

  it("over UDP, what was asked for downlink only is drawn on receipt", async () => {
    const talk = ["a.send:ask", "b.recv:10", "b.send:answer", "a.recv:10"];
    const run = await talker.under(["--downlink.latency", `${WAY_MS}ms`], "b.udp:9", "a.udp:@b", "b.again:@a", ...talk);
    expectSent(run, "a.send", 1, "b.recv");
    expectSent(run, "b.send", 1, "a.recv");
  });
});

describe("a server with a client outside", () => {
  it("over TCP: the accepting end carries the faults", async () => {
    const talk = ["l.listen", `c.tcp:${echo.port}`, "c.call:@l", "b.accept:l", "b.send:hello", "b.recv:10"];
    const run = await talker.under(["--latency", `${WAY_MS}ms`], ...talk);
    expectSent(run, "b.send", 2, "b.recv");
    expect(run.one("b.recv").data).toBe("hello");
  });

  it("over UDP", async () => {
    const talk = ["x.rawsend:ask", "b.recv:10", "b.send:answer", "x.rawawait"];
    const run = await talker.under(["--latency", `${WAY_MS}ms`], "x.rawudp", "b.udp:@x", "x.rawto:@b", ...talk);
    expectSent(run, "x.rawsend", 1, "b.recv");
    expectSent(run, "b.send", 1, "x.rawawait");
    expect(run.one("x.rawawait").data).toBe("answer");
  });
});
