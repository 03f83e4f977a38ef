// Order, copies and changed bytes, by every basic call, blocking and not: changed before the system call on the way out, on
// the received span only on the way in, and what was changed is what is reordered and sent again.
import { beforeAll, describe, expect, it } from "vitest";
import { scratchFolder, until } from "./cli-harness.js";
import { datagramPeer, echoServer, freePort, type Peer } from "./support/programs.js";
import { Talker } from "./support/talk.js";

const folder = scratchFolder();
let talker: Talker;
let echo: Peer;

beforeAll(async () => {
  [talker, echo] = await Promise.all([Talker.in(folder), echoServer()]);
});

const CHANGE = ["--payload-mutation.type", "replace_pattern", "--payload-mutation.replace-find", "m"];
const MUTATE = [...CHANGE, "--payload-mutation.replace-with", "MUT"];
const SHUFFLE = ["--packet-reorder", "100%:1", "--packet-duplicate", "100%:1"];
const PEERS = ["x.rawudp", "a.udp:@x", "x.rawto:@a"];
const modes = [
  ["blocking", "a.block"],
  ["non-blocking", "a.nonblock"],
] as const;
const times = <T>(many: number, each: (n: number) => T): T[] => Array.from({ length: many }, (_, n) => each(n + 1));

describe.each(modes)("datagrams, %s", (_, mode) => {
  it.each(["send", "sendto"])("%s changes, then reorders and duplicates", async (call) => {
    const open = call === "sendto" ? ["x.rawudp", "a.udpto:@x"] : PEERS;
    const sends = times(4, (n) => `a.${call}:m${n}`);
    const run = await talker.under([...MUTATE, ...SHUFFLE], ...open, mode, ...sends, ...times(9, () => "x.rawrecv"));
    expect(run.all(`a.${call}:`).map(({ result }) => result)).toEqual([2, 2, 2, 2]);
    const wire = run.all("x.rawrecv").map(({ data }) => data);
    expect(wire).toEqual(["MUT2", "MUT2", "MUT1", "MUT1", "MUT4", "MUT4", "MUT3", "MUT3", ""]);
    expect(run.fault("payload_mutation").applied).toBe(4);
    expect(run.fault("packet_reorder").applied).toBe(2);
    expect(run.fault("packet_duplicate").applied).toBe(4);
  });

  it.each(["recv", "recvfrom"])("%s changes what was received, then reorders and duplicates", async (call) => {
    const arrivals = times(4, (n) => `x.rawsend:m${n}`);
    const receives = times(8, () => `a.${call}:64:clean`);
    const run = await talker.under([...MUTATE, ...SHUFFLE], ...PEERS, mode, ...arrivals, ...receives);
    // -3 would say that bytes behind the received span had changed.
    expect(run.all(`a.${call}`).map(({ result }) => result)).toEqual(times(8, () => 4));
    expect(run.all(`a.${call}`).map(({ data }) => data)).toEqual([
      "MUT2",
      "MUT1",
      "MUT1",
      "MUT2",
      "MUT4",
      "MUT3",
      "MUT3",
      "MUT4",
    ]);
    expect(run.fault("payload_mutation").applied).toBe(4);
    expect(run.fault("packet_reorder").applied).toBe(2);
    expect(run.fault("packet_duplicate").applied).toBe(4);
  });

  it.each(["recvfrom", "recvmsg"])("%s says who sent what it hands over, late or twice", async (call) => {
    const senders = ["a.udpto:9", "x.rawudp", "x.rawto:@a", "y.rawudp", "y.rawto:@a", "x.rawsend:x1", "y.rawsend:y2"];
    const asks = ["y", "x", "x", "y"].flatMap((sender) => [`a.${call}:64`, `n.from:@${sender}`]);
    const run = await talker.under(SHUFFLE, ...senders, mode, ...asks);
    expect(run.all(`a.${call}`).map(({ data }) => data)).toEqual(["y2", "x1", "x1", "y2"]);
    expect(run.all("n.from").map(({ result }) => result)).toEqual([1, 1, 1, 1]);
  });

  it("what grows never passes the program's buffer", async () => {
    const run = await talker.under(MUTATE, ...PEERS, mode, "x.rawsend:m1", "a.recv:3", "x.rawsend:xm", "a.recvfrom:2");
    expect(run.all("a.recv").map(({ data }) => data)).toEqual(["MUT", "xM"]);
  });

  it("a dry run decides and leaves the bytes", async () => {
    const flags = [...MUTATE, "--payload-mutation.dry-run"];
    const run = await talker.under(flags, ...PEERS, mode, "a.send:m1", "x.rawrecv", "x.rawsend:m2", "a.recv:9");
    expect([run.one("x.rawrecv").data, run.one("a.recv").data]).toEqual(["m1", "m2"]);
    expect(run.journal.map(({ direction, stage, verdict }) => [direction, stage, verdict])).toEqual([
      ["uplink", "payload", "mutate"],
      ["downlink", "payload", "mutate"],
    ]);
    expect(run.fault("payload_mutation").applied).toBe(0);
  });
});

describe.each(modes)("streams, %s", (_, mode) => {
  it.each(["send", "sendto"])("%s says what the program asked to send, whatever left", async (call) => {
    const run = await talker.under(
      [...MUTATE, "--payload-mutation.target", "uplink_only"],
      `a.tcp:${echo.port}`,
      mode,
      `a.${call}:amb`,
      "a.sleep:30",
      "a.recv:64:clean",
    );
    expect(run.one(`a.${call}:`).result).toBe(3);
    expect(run.one("a.recv").data).toBe("aMUTb");
  });

  it.each(["recv", "recvfrom"])("%s hands over the changed span", async (call) => {
    const run = await talker.under(
      [...MUTATE, "--payload-mutation.target", "downlink_only"],
      `a.tcp:${echo.port}`,
      mode,
      "a.send:amb",
      "a.sleep:30",
      `a.${call}:64:clean`,
    );
    expect(run.one(`a.${call}`)).toMatchObject({ result: 5, data: "aMUTb" });
  });

  it("a held segment is overtaken by what follows, changed bytes and all", async () => {
    const flags = [...MUTATE, "--payload-mutation.target", "uplink_only", "--packet-reorder", "100%:1"];
    const before = echo.received.length;
    await talker.under(
      flags,
      `a.tcp:${echo.port}`,
      mode,
      "a.send:m1",
      "a.send:m2",
      "a.send:m3",
      "a.shut",
      "a.block",
      "a.collect:100",
    );
    expect(Buffer.concat(echo.received.slice(before)).toString()).toBe("MUT2MUT1MUT3");
  });
});

describe("a call that makes no progress", () => {
  it("draws nothing: the same datagrams are lost with and without empty receives between", async () => {
    const flags = ["--packet-loss", "50%", "--seed", "7"];
    const arrivals = times(20, (n) => `x.rawsend:n${n}`);
    const receives = times(21, () => "a.recv:9");
    const empty = times(5, () => "a.recv:9");
    const peers = [`x.rawudp:${await freePort()}`, "a.udp:@x", "x.rawto:@a"];
    const plain = await talker.under(flags, ...peers, "a.nonblock", ...arrivals, ...receives);
    const idle = await talker.under(flags, ...peers, "a.nonblock", ...empty, ...arrivals, ...empty, ...receives);
    const got = (run: typeof plain): string[] =>
      run
        .all("a.recv")
        .map(({ data }) => data)
        .filter((data) => data !== "");
    expect(got(plain).length).toBeGreaterThan(2);
    expect(got(plain).length).toBeLessThan(18);
    expect(got(idle)).toEqual(got(plain));
    expect(idle.all("a.recv").filter(({ errno }) => errno === "EAGAIN").length).toBeGreaterThanOrEqual(5);
    expect(idle.fault("packet_loss")).toEqual(plain.fault("packet_loss"));
  });

  it("changes nothing: a full socket answers EAGAIN, and no mutation is counted", async () => {
    const run = await talker.under(
      MUTATE,
      "l.listen",
      "a.tcp:@l",
      "b.accept:l",
      "a.nonblock",
      "a.fill",
      "a.send:m1",
      "a.write:m2",
      "a.sendto:m3",
    );
    expect(run.steps.slice(-3).map(({ errno }) => errno)).toEqual(["EAGAIN", "EAGAIN", "EAGAIN"]);
    expect(run.fault("payload_mutation")).toMatchObject({ applied: 0 });
    expect(run.journal).toEqual([]);
  });

  it("waits for nothing: a full line under latency answers EAGAIN at once, and everything on it arrives", async () => {
    const open = ["l.listen", "a.tcp:@l", "b.accept:l", "a.sndbuf:20000", "a.nonblock"];
    const run = await talker.under(
      ["--uplink.latency", "300ms"],
      ...open,
      "a.pump:send:100000:4096",
      "a.send:x",
      "a.shut",
      "b.collect:100000",
    );
    const { result: taken, ms } = run.one("a.pump");
    expect(taken).toBeGreaterThanOrEqual(20_000);
    expect(taken).toBeLessThanOrEqual(40_000); // the kernel doubles what is asked for
    expect(run.one("a.send")).toMatchObject({ result: -1, errno: "EAGAIN" });
    expect(ms + run.one("a.send").ms).toBeLessThan(150);
    expect(run.one("b.collect").result).toBe(taken);
    expect(run.between("a.pump", "b.collect")).toBeGreaterThanOrEqual(300);
  });

  it("waits for nothing: under latency a socket that the kernel calls full still has its line", async () => {
    const run = await talker.under(
      ["--uplink.latency", "300ms"],
      "l.listen",
      "a.tcp:@l",
      "b.accept:l",
      "a.nonblock",
      "a.fill",
      "a.send:x",
      "a.shut",
      ...times(16, () => "b.collect:1048576"),
    );
    expect(run.one("a.send")).toMatchObject({ result: 1 });
    expect(run.one("a.send").ms).toBeLessThan(150);
    const came = run.all("b.collect").reduce((sum, { result }) => sum + result, 0);
    expect(came).toBe(run.one("a.fill").result + 1);
  });
});

it.each(["a.sleep:0", "a._exit:7", "a.close", "a.closeall", "b.rawudp a.dup2:b"])(
  "what is held leaves when its program does: %s",
  async (end) => {
    const peer = await datagramPeer();
    const run = await talker.under(
      ["--packet-reorder", "100%:1"],
      `a.udp:${peer.port}`,
      "a.send:last",
      ...end.split(" "),
    );
    expect(run.one("a.send").result).toBe(4);
    expect(run.evidence.exit_code).toBe(end === "a._exit:7" ? 7 : 0);
    await until("it arrives", () => peer.received.length > 0);
    expect(peer.received.map(String)).toEqual(["last"]);
  },
);
