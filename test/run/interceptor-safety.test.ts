// Whatever is wrong, the program runs on, unfaulted: a segment that does not check out, signals, forks, descriptors that
// change hands behind our back.
import { execFileSync } from "node:child_process";
import {
  chownSync,
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { INTERCEPTOR_PATH } from "../../src/api/preload.js";
import { compile as compilePolicy, parsePolicy } from "../../src/policy/index.js";
import { codec, Segment } from "../../src/segment/index.js";
import { evidenceOf, freshProject, scratchFolder } from "./cli-harness.js";
import { echoServer, type Peer } from "./support/programs.js";
import { type Step, spanMs, Talker } from "./support/talk.js";

const WAY_MS = 150;
const folder = scratchFolder();
let talker: Talker;
let echo: Peer;
let segment: Segment;

beforeAll(async () => {
  [talker, echo] = await Promise.all([Talker.in(folder), echoServer()]);
  segment = Segment.create({ project: freshProject(), seed: 1n });
  const { row, targets } = compilePolicy("faults", parsePolicy({ latency: `${WAY_MS}ms` }), { runSeed: 1n });
  segment.publish(
    0,
    { ...row },
    targets.map((target) => ({ ...target })),
  );
  segment.activate(0);
});
afterAll(() => segment.close({ unlink: true }));

/** The program with the interceptor and this segment put into its environment by hand; its connect and its send. */
async function talkUnder(path: string): Promise<readonly Step[]> {
  const env = { LD_PRELOAD: INTERCEPTOR_PATH, MISHAP_SEGMENT: path };
  const steps = await talker.bare([`a.tcp:${echo.port}`, "a.send:hello", "a.recv:5"], env);
  expect(steps.map(({ result }) => result)).toEqual([0, 5, 5]);
  return steps;
}

async function expectFaulted(path: string): Promise<void> {
  const [connect, send, receive] = await talkUnder(path);
  expect(connect?.ms).toBeGreaterThanOrEqual(2 * WAY_MS);
  expect(send?.ms).toBeGreaterThanOrEqual(WAY_MS); // without a courier the call itself waits
  expect(spanMs(send, receive)).toBeGreaterThanOrEqual(2 * WAY_MS);
}
async function expectUnfaulted(path: string): Promise<void> {
  const [connect, send, receive] = await talkUnder(path);
  expect(connect?.ms).toBeLessThan(WAY_MS);
  expect(spanMs(send, receive)).toBeLessThan(WAY_MS);
}

/** Overwrites bytes of the segment while something is looked at, and puts them back. */
async function overwritten(offset: number, bytes: Buffer, look: () => Promise<void>): Promise<void> {
  const file = openSync(segment.path, "r+");
  const before = Buffer.alloc(bytes.length);
  readSync(file, before, 0, before.length, offset);
  writeSync(file, bytes, 0, bytes.length, offset);
  try {
    await look();
  } finally {
    writeSync(file, before, 0, before.length, offset);
    closeSync(file);
  }
}

const header = codec.struct("Header").fields;
const offsetOf = (name: string): number => header.find((field) => field.name === name)?.offset ?? Number.NaN;

describe("a segment put into the environment by hand", () => {
  it("is used when it checks out", () => expectFaulted(segment.path));

  it.each(["magic", "abi_version", "layout_hash", "total_size", "regions"])("with a wrong %s is not", async (field) => {
    await overwritten(offsetOf(field), Buffer.alloc(4, 0x5a), () => expectUnfaulted(segment.path));
    await expectFaulted(segment.path);
  });

  it("cut short is not", async () => {
    for (const bytes of [0, 100, 4096, 65536]) {
      const path = join(folder, `cut-${bytes}`);
      copyFileSync(segment.path, path);
      truncateSync(path, bytes);
      await expectUnfaulted(path);
    }
  });

  it("that is anything else is not", async () => {
    const [text, fifo, link] = [join(folder, "text"), join(folder, "fifo"), join(folder, "link")];
    writeFileSync(text, "not a segment\n".repeat(100_000));
    execFileSync("mkfifo", [fifo]);
    symlinkSync(segment.path, link);
    for (const path of [text, fifo, link, folder, join(folder, "missing"), "", "/dev/zero"])
      await expectUnfaulted(path);
  });

  it.skipIf(process.getuid?.() !== 0)("of another user is not (needs root to make one)", async () => {
    const path = join(folder, "foreign");
    copyFileSync(segment.path, path);
    chownSync(path, 65534, 65534);
    await expectUnfaulted(path);
  });

  it("whose state is unheard of, paused or retired is not in force", async () => {
    for (const state of [0, 2, 3, 77])
      await overwritten(offsetOf("state"), Buffer.from([state]), () => expectUnfaulted(segment.path));
    await expectFaulted(segment.path);
  });

  it("filled with nonsense does no harm while the program runs", async () => {
    const size = 1 << 16;
    for (let page = 4096; page < 400_000; page += size) {
      const noise = Buffer.from(Uint8Array.from({ length: size }, (_, n) => (n * 167 + page) & 0xff));
      await overwritten(page, noise, async () => {
        const env = { LD_PRELOAD: INTERCEPTOR_PATH, MISHAP_SEGMENT: segment.path };
        const steps = await talker.bare(["x.rawudp", "a.udp:@x", "x.rawto:@a", "a.nonblock", "a.recv:5"], env);
        expect(steps).toHaveLength(5);
      });
    }
  });
});

describe("signals", () => {
  it("during a connect are handled, and neither shorten nor fail it", async () => {
    const steps = ["a.alarm:20", `a.tcp:${echo.port}`, "a.alarm:0", "a.alarms", "a.send:hello", "a.recv:5"];
    const run = await talker.under(["--latency", "200ms"], ...steps);
    expect(run.one("a.tcp")).toMatchObject({ result: 0 });
    expect(run.one("a.tcp").ms).toBeGreaterThanOrEqual(400);
    expect(run.one("a.alarms").result).toBeGreaterThan(6);
    expect(run.one("a.recv").data).toBe("hello");
    expect(run.evidence.fallbacks.reentered).toBeGreaterThan(0); // the handler's own write passed through
  });

  it("do not touch what is under way: it arrives no sooner, and once", async () => {
    const steps = ["a.alarm:20", "a.send:hello", "a.sleep:100", "a.alarm:0", "a.alarms", "a.recv:64"];
    const run = await talker.under(["--latency", "200ms"], `a.tcp:${echo.port}`, ...steps);
    expect(run.one("a.send")).toMatchObject({ result: 5 });
    expect(run.one("a.send").ms).toBeLessThan(100);
    expect(run.one("a.alarms").result).toBeGreaterThan(0);
    expect(run.one("a.recv").data).toBe("hello");
    expect(run.between("a.send", "a.recv")).toBeGreaterThanOrEqual(400);
  });

  it("end a receive that waits for what is not due, as they do bare; what it waited for is not lost", async () => {
    const steps = (wait: string) => ["a.alarm:20", wait, "a.alarm:0", "a.alarms"];
    const [tcp, send] = [`a.tcp:${echo.port}`, "a.send:hello"];
    const bare = await talker.bare([tcp, ...steps("a.recv:64")]);
    expect(bare[2]).toMatchObject({ result: -1, errno: "EINTR" });
    const run = await talker.under(["--downlink.latency", "200ms"], tcp, send, ...steps("a.recv:64"), "a.recv:5");
    expect(run.one("a.recv:64")).toMatchObject({ result: -1, errno: "EINTR" });
    expect(run.one("a.recv:64").ms).toBeLessThan(150);
    expect(run.one("a.recv:5").data).toBe("hello");
    expect(run.between("a.send", "a.recv:5")).toBeGreaterThanOrEqual(200);
  });

  it("during a connect under a limit do not end it", async () => {
    const run = await talker.under(["--timeout.connect", "300ms"], "x.rawdeaf", "a.alarm:20", "a.tcp:@x");
    expect(run.one("a.tcp").errno).toBe("ETIMEDOUT");
    expect(run.one("a.tcp").ms).toBeGreaterThanOrEqual(300);
  });
});

describe("descriptors", () => {
  it("go on faulted in a child that fork made", async () => {
    const run = await talker.under(
      ["--uplink.latency", "80ms"],
      `a.tcp:${echo.port}`,
      "f.fork",
      "a.send:hello",
      "a.recv:5",
      `b.tcp:${echo.port}`,
    );
    expect(run.one("a.send").ms).toBeLessThan(40);
    expect(run.between("a.send", "a.recv")).toBeGreaterThanOrEqual(80);
    expect(run.one("a.recv").data).toBe("hello");
    expect(run.one("b.tcp").ms).toBeGreaterThanOrEqual(80);
    expect(run.evidence.flows).toBe(2);
  });

  it("that were inherited through exec go on with their flow", async () => {
    const [program] = talker.command([]);
    const script = `exec 7<>/dev/tcp/127.0.0.1/${echo.port}; exec ${program} a.fd:7 a.send:hello a.recv:5`;
    const { stdout, evidence } = await evidenceOf(folder, ["--uplink.latency", "80ms"], ["bash", "-c", script]);
    const steps = stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Step);
    expect(steps.map(({ result }) => result)).toEqual([7, 5, 5]);
    expect(steps[1]?.ms).toBeLessThan(40);
    expect(spanMs(steps[1], steps[2])).toBeGreaterThanOrEqual(80);
    expect(evidence.flows).toBe(1);
  });

  it("connected anew after AF_UNSPEC are faulted anew", async () => {
    const again = [`a.tcp:${echo.port}`, "a.unspec", `a.again:${echo.port}`, "a.send:hello", "a.recv:5"];
    const run = await talker.under(["--latency", "60ms"], ...again);
    expect(run.steps.map(({ result }) => result)).toEqual([0, 0, 0, 5, 5]);
    for (const step of ["a.tcp", "a.again"]) expect(run.one(step).ms).toBeGreaterThanOrEqual(120);
    expect(run.fault("latency").applied).toBeGreaterThanOrEqual(6);
  });

  it.each([256, 4000])(
    "show none of our time stamps in %i bytes of control messages, and all of the program's own",
    async (room) => {
      const ask = [
        "x.rawudp",
        "a.udp:@x",
        "x.rawto:@a",
        "a.wantttl",
        "x.rawsend:one",
        `a.control:${room}`,
        "x.rawsend:two",
        "a.sleep:30",
      ];
      const run = await talker.under(["--downlink.latency", "80ms"], ...ask, `b.dup:a`, `b.control:${room}`);
      for (const step of ["a.control", "b.control"]) expect(run.one(step).result).toBe(1);
      expect(run.one("a.control")).toMatchObject({ data: "one" });
      expect(run.one("a.control").ms).toBeGreaterThanOrEqual(75);
      expect(run.one("b.control").ms).toBeLessThan(79); // dated by its arrival, 30 ms ago
    },
  );

  it("may all be closed by the program, which is faulted as before", async () => {
    const run = await talker.under(
      ["--uplink.latency", "80ms"],
      `a.tcp:${echo.port}`,
      "a.closeall",
      `b.tcp:${echo.port}`,
      "b.send:x",
      "b.recv:1",
    );
    expect(run.one("b.tcp").ms).toBeGreaterThanOrEqual(80);
    expect(run.one("b.send").ms).toBeLessThan(40);
    expect(run.between("b.send", "b.recv")).toBeGreaterThanOrEqual(80);
  });

  it("closed and reused for a file behind our back: the file is read and written at once", async () => {
    const file = join(folder, "plain");
    const reuse = [`a.tcp:${echo.port}`, "a.rawclose", `b.rawopen:${file}`];
    const run = await talker.under(["--latency", "300ms"], ...reuse, "b.write:hello", "b.read:5");
    expect(run.one("b.write")).toMatchObject({ result: 5, errno: "" });
    expect(run.one("b.write").ms + run.one("b.read").ms).toBeLessThan(150);
    expect(readFileSync(file, "latin1")).toBe("hello");
    expect(run.evidence.fallbacks.stale_descriptor).toBeGreaterThan(0);
  });

  it("closed and reused behind our back under every terminal fault: the file is not harmed", async () => {
    const file = join(folder, "spared");
    const flags = [
      "--packet-loss",
      "100%",
      "--loss-mode",
      "drop",
      "--timeout.connect",
      "50ms",
      "--packet-duplicate",
      "100%",
    ];
    const reuse = ["x.rawudp", "a.udp:@x", "a.rawclose", `b.rawopen:${file}`];
    const run = await talker.under(flags, ...reuse, "b.write:hello", "b.write:again");
    expect(run.all("b.write").map(({ result }) => result)).toEqual([5, 5]);
    expect(readFileSync(file, "latin1")).toBe("helloagain");
  });
});

it("the interceptor knows no policy field", () => {
  const folderOf = new URL("../../native/interceptor/", import.meta.url);
  const fields = codec.struct("Row").fields.map(({ name }) => name);
  const shared = new Set(["seq", "name", "seed", "faults", "reserved", "up", "down"]); // words with other meanings too
  const files = readdirSync(folderOf).filter((file) => /\.(cpp|h|def)$/.test(file));
  expect(files.length).toBeGreaterThan(5);
  for (const file of files) {
    const text = readFileSync(new URL(file, folderOf), "utf8");
    expect(text, file).not.toMatch(/#include\s*[<"].*\brow\.h/);
    for (const field of fields)
      if (!shared.has(field)) expect(text, file).not.toMatch(new RegExp(`(\\.|->)${field}\\b`));
    expect(text, file).not.toMatch(/\bRow\s*[*&]?\s*\w+\s*[=;(]|cached_row|read_row/);
  }
});
