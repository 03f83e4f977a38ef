// Every fault once, as a program meets it, with the evidence that says the same.
import { beforeAll, describe, expect, it } from "vitest";
import { scratchFolder, until } from "./cli-harness.js";
import { datagramPeer, echoServer, type Peer } from "./support/programs.js";
import { type Step, spanMs, type Talk, Talker } from "./support/talk.js";

const folder = scratchFolder();
let talker: Talker;
let echo: Peer;

beforeAll(async () => {
  [talker, echo] = await Promise.all([Talker.in(folder), echoServer()]);
});

const times = <T>(many: number, each: (n: number) => T): T[] => Array.from({ length: many }, (_, n) => each(n));
const PEERS = ["x.rawudp", "a.udp:@x", "x.rawto:@a"];
const lastOf = (run: Talk): Step => run.steps.at(-1) ?? run.one("none");

/** What the echo server gets while something runs, and how its connections end. */
async function seenByEcho(what: () => Promise<Talk>): Promise<{ run: Talk; bytes: string; ending: string }> {
  const [data, endings] = [echo.received.length, echo.endings.length];
  const run = await what();
  await until("the connection ends", () => echo.endings.length > endings);
  return { run, bytes: Buffer.concat(echo.received.slice(data)).toString(), ending: echo.endings[endings] ?? "" };
}

describe("session_budget", () => {
  const limit = (field: string, value: string, ...action: string[]): string[] => [
    `--session-budget.${field}`,
    value,
    ...action,
  ];
  const TIMEOUT = ["--session-budget.action", "timeout", "--session-budget.budget-timeout", "150ms"];
  const ERROR = ["--session-budget.action", "connection_error", "--session-budget.error", "reset"];

  it("max_tx, drop: cut to the byte; what lies behind is swallowed", async () => {
    const { run, bytes } = await seenByEcho(() =>
      talker.under(limit("max-tx", "10b"), `a.tcp:${echo.port}`, "a.send:*26", "a.send:more"),
    );
    expect(run.all("a.send").map(({ result }) => result)).toEqual([26, 4]);
    expect(bytes).toBe("ABCDEFGHIJ");
    expect(run.fault("session_budget").applied).toBe(2);
  });

  it("max_tx, timeout: the call that reaches the limit is short, the next waits", async () => {
    const run = await talker.under(
      limit("max-tx", "10b", ...TIMEOUT),
      `a.tcp:${echo.port}`,
      "a.send:*26",
      "a.send:more",
    );
    expect(run.one("a.send:*")).toMatchObject({ result: 10 });
    expect(run.one("a.send:more")).toMatchObject({ result: -1, errno: "ETIMEDOUT" });
    expect(run.one("a.send:more").ms).toBeGreaterThanOrEqual(150);
    expect(run.fault("session_budget")).toMatchObject({ applied: 1 });
    expect(run.fault("session_budget").p50_ns).toBeGreaterThanOrEqual(150e6);
  });

  it("max_tx, connection_error: the peer sees the reset", async () => {
    const { run, ending } = await seenByEcho(() =>
      talker.under(limit("max-tx", "10b", ...ERROR), `a.tcp:${echo.port}`, "a.send:*26", "a.send:more", "a.recv:9"),
    );
    expect(run.one("a.send:*").result).toBe(10);
    expect(run.one("a.send:more").errno).toBe("ECONNRESET");
    expect(ending).toBe("ECONNRESET");
  });

  it.each([
    ["drop", [], "EAGAIN"],
    ["timeout", TIMEOUT, "ETIMEDOUT"],
    ["connection_error", ERROR, "ECONNRESET"],
  ])("max_rx, %s: cut to the byte", async (_, action, errno) => {
    const run = await talker.under(
      limit("max-rx", "5b", ...action),
      `a.tcp:${echo.port}`,
      "a.send:helloworld",
      "a.sleep:40",
      "a.nonblock",
      "a.recv:64",
      "a.recv:64",
    );
    expect(run.steps.at(-2)).toMatchObject({ result: 5, data: "hello" });
    expect(lastOf(run)).toMatchObject({ result: -1, errno });
    expect(run.fault("session_budget").applied).toBeGreaterThanOrEqual(1);
  });

  it.each([
    ["drop", [], { result: 5, errno: "" }],
    ["timeout", TIMEOUT, { result: -1, errno: "ETIMEDOUT" }],
    ["connection_error", ERROR, { result: -1, errno: "ECONNRESET" }],
  ])("max_ops, %s", async (_, action, end) => {
    const { run, bytes } = await seenByEcho(() =>
      talker.under(limit("max-ops", "2", ...action), `a.tcp:${echo.port}`, "a.send:one", "a.recv:3", "a.send:third"),
    );
    expect(run.one("a.recv").data).toBe("one");
    expect(run.one("a.send:third")).toMatchObject(end);
    expect(bytes).toBe("one");
    expect(run.fault("session_budget").applied).toBe(1);
  });

  it.each([
    ["drop", [], { result: 4, errno: "" }],
    ["timeout", TIMEOUT, { result: -1, errno: "ETIMEDOUT" }],
    ["connection_error", ERROR, { result: -1, errno: "ECONNRESET" }],
  ])("max_duration, %s", async (_, action, end) => {
    const { run, bytes } = await seenByEcho(() =>
      talker.under(
        limit("max-duration", "200ms", ...action),
        `a.tcp:${echo.port}`,
        "a.send:soon",
        "a.sleep:300",
        "a.send:late",
      ),
    );
    expect(run.one("a.send:soon").result).toBe(4);
    expect(run.one("a.send:late")).toMatchObject(end);
    expect(bytes).toBe("soon");
  });

  it("lets a datagram through whole or not at all", async () => {
    const run = await talker.under(
      limit("max-tx", "12b"),
      ...PEERS,
      "a.send:*8",
      "a.send:*5",
      "x.rawrecv",
      "x.rawrecv",
    );
    expect(run.all("a.send").map(({ result }) => result)).toEqual([8, 5]);
    expect(run.all("x.rawrecv").map(({ result }) => result)).toEqual([8, -1]);
  });
});

describe("connections that fail", () => {
  it.each([
    ["refused", "ECONNREFUSED"],
    ["unreachable", "EHOSTUNREACH"],
  ])("%s", async (kind, errno) => {
    const run = await talker.under(["--connection-error", kind], `a.tcp:${echo.port}`, `b.tcp:${echo.port}`);
    expect(run.steps.map((step) => step.errno)).toEqual([errno, errno]);
    expect(run.fault("connection_error")).toMatchObject({ applied: 2, of: 2, delivered_ppm: 1_000_000 });
  });

  it("refused is drawn once a send with datagrams", async () => {
    const run = await talker.under(["--connection-error", "refused:50%"], ...PEERS, ...times(40, () => "a.send:x"));
    const refused = run.all("a.send").filter(({ errno }) => errno === "ECONNREFUSED").length;
    expect(refused).toBeGreaterThan(5);
    expect(refused).toBeLessThan(35);
    expect(run.fault("connection_error")).toMatchObject({ applied: refused });
  });

  it("reset: both ends see it, and the descriptor stays dead", async () => {
    const { run, ending } = await seenByEcho(() =>
      talker.under(["--connection-error", "reset"], `a.tcp:${echo.port}`, "a.send:hello", "a.recv:5", "a.send:more"),
    );
    expect(run.one("a.tcp").result).toBe(0);
    expect(run.one("a.send:hello").errno).toBe("ECONNRESET");
    expect(run.one("a.recv").result).toBe(0);
    expect(run.one("a.send:more").errno).toBe("EPIPE");
    expect(ending).toBe("ECONNRESET");
    expect(run.fault("connection_error").applied).toBe(1);
  });

  it("half_open: after so many bytes both ways together", async () => {
    const { run, bytes, ending } = await seenByEcho(() =>
      talker.under(
        ["--half-open", "10b:reset"],
        `a.tcp:${echo.port}`,
        "a.send:*4",
        "a.recv:4",
        "a.send:*8",
        "a.sleep:60",
        "a.send:x",
      ),
    );
    expect(run.one("a.recv").data).toBe("ABCD");
    expect(run.one("a.send:*8").result).toBe(2);
    expect(run.one("a.send:x").errno).toBe("ECONNRESET");
    expect(bytes).toBe("ABCDAB");
    expect(ending).toBe("ECONNRESET");
    expect(run.fault("half_open").applied).toBe(1);
  });
});

describe("timeout", () => {
  it("connect: the link's own delay counts", async () => {
    const run = await talker.under(["--timeout.connect", "100ms", "--latency", "400ms"], `a.tcp:${echo.port}`);
    expect(run.one("a.tcp").errno).toBe("ETIMEDOUT");
    expect(run.one("a.tcp").ms).toBeGreaterThanOrEqual(100);
    expect(run.one("a.tcp").ms).toBeLessThan(350);
    expect(run.fault("timeout.connect")).toMatchObject({ applied: 1, of: 1 });
  });

  it("connect: a peer that does not answer", async () => {
    const run = await talker.under(["--timeout.connect", "200ms"], "x.rawdeaf", "a.tcp:@x");
    expect(run.one("a.tcp").errno).toBe("ETIMEDOUT");
    expect(run.one("a.tcp").ms).toBeGreaterThanOrEqual(200);
    expect(run.one("a.tcp").ms).toBeLessThan(900);
    expect(run.fault("timeout.connect").p50_ns).toBeGreaterThanOrEqual(200e6);
  });

  it("connect: a link that loses every SYN", async () => {
    const run = await talker.under(["--timeout.connect", "200ms", "--packet-loss", "100%"], `a.tcp:${echo.port}`);
    expect(run.one("a.tcp").errno).toBe("ETIMEDOUT");
    expect(run.one("a.tcp").ms).toBeGreaterThanOrEqual(200);
    expect(run.one("a.tcp").ms).toBeLessThan(900);
  });

  it("connect: one that is done in time is left alone", async () => {
    const run = await talker.under(["--timeout.connect", "5s"], `a.tcp:${echo.port}`, "a.send:hello", "a.recv:5");
    expect(run.steps.map(({ result }) => result)).toEqual([0, 5, 5]);
    expect(run.fault("timeout.connect").applied).toBe(0);
  });

  it("recv: nothing came in time", async () => {
    const run = await talker.under(
      ["--timeout.recv", "200ms"],
      `a.tcp:${echo.port}`,
      "a.recv:5",
      "a.send:hello",
      "a.collect:5",
    );
    expect(run.one("a.recv").errno).toBe("ETIMEDOUT");
    expect(run.one("a.recv").ms).toBeGreaterThanOrEqual(200);
    expect(run.one("a.recv").ms).toBeLessThan(600);
    expect(run.one("a.collect").data).toBe("hello");
    expect(run.fault("timeout.recv").applied).toBe(1);
  });

  it("recv: a program that asks again and again is told in the end", async () => {
    const run = await talker.under(
      ["--timeout.recv", "200ms"],
      `a.tcp:${echo.port}`,
      "a.nonblock",
      "a.recv:5",
      "a.sleep:250",
      "a.read:5",
    );
    expect([run.one("a.recv").errno, run.one("a.read").errno]).toEqual(["EAGAIN", "ETIMEDOUT"]);
  });
});

describe("rate", () => {
  const expectRate = (ms: number, bytes: number, bps: number): void => {
    const idealMs = (bytes * 8000) / bps;
    expect(ms).toBeGreaterThan(0.95 * idealMs - 10); // what 10 ms carry goes at once
    expect(ms).toBeLessThan(1.1 * idealMs);
  };

  it.each([
    ["send", 16384],
    ["write", 1400],
    ["sendmsg", 65536],
  ])("uplink by %s in chunks of %i: the calls return, the bytes leave at the rate", async (call, chunk) => {
    const steps = [`a.tcp:${echo.port}`, `a.pump:${call}:400000:${chunk}`, "a.collect:400000"];
    const run = await talker.under(["--uplink.rate", "4mbps"], ...steps);
    expect(run.one("a.pump")).toMatchObject({ result: 400_000 });
    expect(run.one("a.pump").ms).toBeLessThan(300); // the line has room for all of it
    expect(run.one("a.collect")).toMatchObject({ result: 400_000 });
    expectRate(run.between("a.pump", "a.collect"), 400_000, 4e6);
    expect(run.fault("uplink.rate").applied).toBeGreaterThan(0);
  });

  it("uplink, with a line that the program's own send buffer bounds: the calls wait for room", async () => {
    const steps = [`a.tcp:${echo.port}`, "a.sndbuf:20000", "a.pump:send:400000:4096", "a.collect:400000"];
    const run = await talker.under(["--uplink.rate", "4mbps"], ...steps);
    expect(run.one("a.pump")).toMatchObject({ result: 400_000 });
    expect(run.one("a.pump").ms).toBeGreaterThan(0.9 * 800 - 10); // all but the line's own content
    expectRate(run.between("a.pump", "a.collect"), 400_000, 4e6);
  });

  it("downlink", async () => {
    const steps = [`a.tcp:${echo.port}`, "a.pump:send:400000:65536", "a.collect:400000"];
    const run = await talker.under(["--downlink.rate", "4mbps"], ...steps);
    expect(run.one("a.collect")).toMatchObject({ result: 400_000 });
    expectRate(run.one("a.collect").ms, 400_000, 4e6);
  });

  it("is shared by the flows of a policy, or held by each", async () => {
    const open = [`a.tcp:${echo.port}`, `b.tcp:${echo.port}`];
    const pump = ["a.pump:send:100000:10000", "b.pump:send:100000:10000", "b.collect:100000"];
    const flags = ["--uplink.rate", "4mbps", "--rate-burst", "100kb"];
    const line = await talker.under(flags, ...open, ...pump);
    const each = await talker.under([...flags, "--rate-scope", "flow"], ...open, ...pump);
    expect(line.between("b.pump", "b.collect")).toBeGreaterThan(0.95 * 200 - 10);
    expect(each.between("b.pump", "b.collect")).toBeLessThan(60);
  });
});

describe("chance", () => {
  it.each(["uniform", "normal", "pareto"])("jitter, %s: around the latency, never below zero", async (distribution) => {
    const flags = [
      "--uplink.latency",
      "12ms",
      "--uplink.jitter",
      "10ms",
      "--jitter-distribution",
      distribution,
      "--seed",
      "3",
    ];
    const run = await talker.under(flags, ...PEERS, ...times(40, () => ["a.send:x", "x.rawawait"]).flat());
    const arrivals = run.all("x.rawawait");
    const ms = run.all("a.send").map((send, n) => spanMs(send, arrivals[n]));
    const inCalls = run.all("a.send").reduce((sum, send) => sum + send.ms, 0);
    expect(inCalls).toBeLessThan((40 * 12) / 2); // the calls do not wait for any of it
    expect(Math.min(...ms)).toBeLessThan(10);
    expect(Math.max(...ms)).toBeGreaterThan(14);
    expect(run.fault("uplink.jitter").applied).toBeGreaterThan(20); // where it takes all latency back, nothing was waited for
  });

  it("burst_loss: every loss takes the next ones with it", async () => {
    const many = 200;
    const sends = times(many, (n) => `a.send:${n}`);
    const run = await talker.under(
      ["--packet-loss", "8%", "--burst-loss", "4", "--seed", "5"],
      ...PEERS,
      ...sends,
      ...times(many, () => "x.rawrecv"),
    );
    const arrived = new Set(run.all("x.rawrecv").map(({ data }) => data));
    const pattern = times(many, (n) => (arrived.has(String(n)) ? "." : "x")).join("");
    const bursts = pattern.replace(/x+$/, "").match(/x+/g) ?? [];
    expect(bursts.length).toBeGreaterThan(1);
    for (const burst of bursts) expect(burst.length).toBeGreaterThanOrEqual(4);
    const lost = [...pattern].filter((mark) => mark === "x").length;
    expect(run.fault("packet_loss").applied + run.fault("burst_loss").applied).toBe(lost);
  });

  it("correlated_loss: as often as its two states say", async () => {
    const chain = ["p-good-to-bad", "5%", "p-bad-to-good", "20%", "loss-good", "0%", "loss-bad", "90%"];
    const flags = times(4, (n) => [`--correlated-loss.${chain[2 * n]}`, chain[2 * n + 1] ?? ""]).flat();
    const run = await talker.under([...flags, "--seed", "5"], ...PEERS, "a.flood:send:20000:x");
    const lost = 20_000 - Number(run.one("a.flood").data);
    expect(lost / 20_000).toBeGreaterThan(0.18 * 0.8); // 0.05 / 0.25 of the time bad, 90 % lost there
    expect(lost / 20_000).toBeLessThan(0.18 * 1.2);
    expect(run.fault("correlated_loss").applied).toBe(lost);
  });

  it("loss on streams is repaired: what is lost comes later, and everything comes", async () => {
    const turns = times(40, (n) => [`a.send:turn${n % 10}`, "a.collect:5"]).flat();
    const run = await talker.under(["--uplink.packet-loss", "20%", "--seed", "4"], `a.rawtcp:${echo.port}`, ...turns);
    const answers = run.all("a.collect");
    const took = run.all("a.send").map((send, n) => spanMs(send, answers[n]));
    const late = took.filter((ms) => ms >= 200);
    expect(late.length).toBeGreaterThan(0);
    for (const ms of took) expect(ms < 120 || ms >= 200).toBe(true);
    expect(answers.map(({ data }) => data)).toEqual(times(40, (n) => `turn${n % 10}`));
    expect(run.journal.filter(({ op, verdict }) => op === "send" && verdict === "delay")).toHaveLength(late.length);
  });

  it("loss_mode drop swallows whole segments", async () => {
    const sends = times(30, () => "a.send:*1448");
    const { run, bytes } = await seenByEcho(() =>
      talker.under(
        ["--uplink.packet-loss", "40%", "--loss-mode", "drop", "--seed", "6"],
        `a.rawtcp:${echo.port}`,
        ...sends,
        "a.shut",
        "a.collect:100000",
      ),
    );
    const lost = run.fault("uplink.packet_loss").applied;
    expect(run.all("a.send").every(({ result }) => result === 1448)).toBe(true);
    expect(lost).toBeGreaterThan(2);
    expect(bytes.length).toBe((30 - lost) * 1448);
  });

  it("packet_duplicate: each extra copy drawn by itself", async () => {
    const run = await talker.under(["--packet-duplicate", "50%:3", "--seed", "8"], ...PEERS, "a.flood:send:2000:x");
    const copies = Number(run.one("a.flood").data) - 2000;
    expect(copies / 6000).toBeGreaterThan(0.45);
    expect(copies / 6000).toBeLessThan(0.55);
    expect(run.fault("packet_duplicate").applied).toBe(copies);
  });

  it("packet_duplicate under latency: every copy is late, and counted", async () => {
    const sends = times(20, (n) => `a.send:n${n}`);
    const run = await talker.under(
      ["--uplink.latency", "50ms", "--packet-duplicate", "50%:3", "--seed", "8"],
      ...PEERS,
      ...sends,
      "x.rawrecv",
      "a.sleep:150",
      ...times(81, () => "x.rawrecv"),
    );
    const [early, ...rest] = run.all("x.rawrecv");
    expect(early?.errno).toBe("EAGAIN");
    const copies = rest.filter(({ result }) => result > 0).length - sends.length;
    expect(copies).toBeGreaterThan(10);
    expect(copies).toBeLessThan(50);
    expect(run.fault("packet_duplicate").applied).toBe(copies);
    expect(run.fault("uplink.latency").applied).toBe(sends.length);
  });

  it("packet_reorder, max_delay: what nothing overtakes leaves when its time has come", async () => {
    const run = await talker.under(
      ["--packet-reorder", "100%:1:100ms"],
      ...PEERS,
      "a.send:one",
      "x.rawrecv",
      "a.nonblock",
      "a.sleep:150",
      "a.recv:1",
      "x.rawrecv",
    );
    expect(run.all("x.rawrecv").map(({ data }) => data)).toEqual(["", "one"]);
  });
});

describe("payload_mutation", () => {
  const flag = (field: string, value: string): string[] => [`--payload-mutation.${field}`, value];
  it.each([
    ["truncate", flag("truncate-size", "5"), /^hello$/],
    ["corrupt_bytes", flag("corrupt-count", "2"), /^(?!hello world$).{11,}$/],
    ["inject_bytes", [...flag("inject-position", "5"), ...flag("inject-data", "XY")], /^helloXY world$/],
    ["replace_pattern", [...flag("replace-find", "world"), ...flag("replace-with", "mishap")], /^hello mishap$/],
    ["corrupt_encoding", [], /\u00ff/],
    ["swap_bytes", [...flag("swap-pos1", "0"), ...flag("swap-pos2", "10")], /^dello worlh$/],
  ])("%s", async (type, flags, expected) => {
    const run = await talker.under(
      [...flag("type", type), ...flags],
      ...PEERS,
      "a.send:hello world",
      "x.rawrecv",
      "x.rawsend:hello world",
      "a.recv:64",
    );
    expect(run.one("a.send").result).toBe(11);
    expect(run.one("x.rawrecv").data).toMatch(expected);
    expect(run.one("a.recv").data).toMatch(expected);
    expect(run.fault("payload_mutation")).toMatchObject({ applied: 2, of: 2 });
  });

  it("keeps its gates: size and cadence", async () => {
    const flags = [
      ...flag("type", "truncate"),
      ...flag("truncate-size", "1"),
      ...flag("min-size", "3"),
      ...flag("every-n-packets", "2"),
    ];
    const sends = ["a.send:abcd", "a.send:abcd", "a.send:ab", "a.send:ab", "a.send:abcd", "a.send:abcd"];
    const run = await talker.under(flags, ...PEERS, ...sends, ...times(6, () => "x.rawrecv"));
    expect(run.all("x.rawrecv").map(({ result }) => result)).toEqual([4, 1, 2, 2, 4, 1]);
  });
});

describe("names", () => {
  it("dns.delay", async () => {
    const run = await talker.under(["--dns.delay", "150ms"], `a.named:localhost:${echo.port}`);
    expect(run.one("a.named").result).toBe(0);
    expect(run.one("a.named").ms).toBeGreaterThanOrEqual(150);
    expect(run.one("a.named").ms).toBeLessThan(500);
    expect(run.fault("dns.delay")).toMatchObject({ applied: 1, of: 1 });
  });

  it("dns.timeout ends as EAI_AGAIN, dns.nxdomain as EAI_NONAME", async () => {
    const late = await talker.under(["--dns.timeout", "150ms"], "a.named:localhost");
    expect(late.one("a.named")).toMatchObject({ result: -3 });
    expect(late.one("a.named").ms).toBeGreaterThanOrEqual(150);
    const none = await talker.under(["--dns.nxdomain", "100%"], "a.named:localhost");
    expect(none.one("a.named")).toMatchObject({ result: -2 });
    expect(none.fault("dns.nxdomain")).toMatchObject({ applied: 1, of: 1 });
  });
});

it("a datagram peer outside is reached by every one of many flows", async () => {
  const peer = await datagramPeer();
  await talker.under(
    ["--uplink.latency", "1ms"],
    ...times(8, (n) => [`${"abcdefgh"[n]}.udp:${peer.port}`, `${"abcdefgh"[n]}.send:${n}`]).flat(),
  );
  await until("all arrived", () => peer.received.length === 8);
  expect(peer.received.map(String).sort()).toEqual(times(8, String));
});
