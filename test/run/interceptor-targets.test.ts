// Which flows are faulted, and when: targets, schedules, and the ways in which faults end while they are being waited for.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createServer } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evidenceOf, freshProject, mishap, scratchFolder, startMishap } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";
import { echoServer, type Peer } from "./support/programs.js";
import { spanMs, type Talk, Talker } from "./support/talk.js";

const WAY_MS = 60;
const folder = scratchFolder();
let talker: Talker;
let echo: Peer;

beforeAll(async () => {
  [talker, echo] = await Promise.all([Talker.in(folder), echoServer()]);
});

const times = <T>(many: number, each: (n: number) => T): T[] => Array.from({ length: many }, (_, n) => each(n));
const under = (targets: readonly string[], ...steps: string[]): Promise<Talk> =>
  talker.under(["--latency", `${WAY_MS}ms`, ...targets.flatMap((target) => ["--target", target])], ...steps);

/** Whether it took at least a way from one step to another; fails when that was neither clearly delayed nor clearly not. */
function delayed(run: Talk, first: string, last = first): boolean {
  const ms = run.between(first, last);
  expect(ms < WAY_MS / 2 || ms >= WAY_MS, `${first} to ${last} took ${ms} ms`).toBe(true);
  return ms >= WAY_MS;
}

describe("targets", () => {
  it.each([
    ["tcp://127.0.0.0/8", true],
    ["any://127.0.0.1", true],
    ["tcp://10.0.0.0/8", false],
    ["udp://127.0.0.0/8", false],
  ])("%s: %s for a connection to 127.0.0.1", async (target, hit) => {
    const run = await under([target], `a.tcp:${echo.port}`);
    expect(delayed(run, "a.tcp")).toBe(hit);
    expect(run.fault("latency").applied > 0).toBe(hit);
  });

  it("ports and ranges tell two connections apart", async () => {
    const other = await echoServer();
    const steps = [`a.tcp:${echo.port}`, `b.tcp:${other.port}`];
    for (const port of [`${echo.port}`, `${echo.port}-${echo.port}`]) {
      const run = await under([`host=127.0.0.1,port=${port}`], ...steps);
      expect([delayed(run, "a.tcp"), delayed(run, "b.tcp")]).toEqual([true, false]);
    }
  });

  it("a datagram socket that talks to several peers is faulted for those that match", async () => {
    const run = await under(
      ["udp://127.0.0.2"],
      "x.rawudp",
      "y.rawudp",
      "a.udpto:@x:127.0.0.2",
      "a.sendto:there",
      "x.rawawait",
      "b.udpto:@y",
      "b.sendto:here",
      "y.rawawait",
    );
    expect([delayed(run, "a.sendto", "x.rawawait"), delayed(run, "b.sendto", "y.rawawait")]).toEqual([true, false]);
  });

  it("a hostname is learned from the answer to a look-up", async () => {
    const run = await under(["hostname=localhost"], `b.tcp:${echo.port}`, `a.named:localhost:${echo.port}`);
    expect([delayed(run, "b.tcp"), delayed(run, "a.named")]).toEqual([false, true]);
    expect(run.journal.some(({ flow }) => flow.startsWith("tcp:localhost:"))).toBe(true);
  });

  it("unix:// is faulted only when it is asked for, by path or at all", async () => {
    const [one, two] = [join(folder, "one.sock"), join(folder, "two.sock")];
    const talk = (path: string, slot: string, peer: string): string[] => [
      `l.unixlisten:${path}`,
      `${slot}.unix:${path}`,
      `${peer}.accept:l`,
      `${slot}.send:x`,
      `${peer}.rawawait`,
      "l.close",
    ];
    const paths = async (targets: string[]): Promise<boolean[]> => {
      execFileSync("rm", ["-f", one, two]);
      const run = await under(targets, ...talk(one, "a", "x"), ...talk(two, "b", "y"));
      return [delayed(run, "a.send", "x.rawawait"), delayed(run, "b.send", "y.rawawait")];
    };
    expect(await paths([])).toEqual([false, false]);
    expect(await paths(["unix://"])).toEqual([true, true]);
    expect(await paths([`unix://${two}`])).toEqual([false, true]);
  });

  it.for([
    ["the interceptor", []],
    ["the relay", ["--kernel", "--executor", "relay"]],
  ] as const)("sni is read from the ClientHello, by %s", async ([, executor], context) => {
    if (executor.length > 0) needsKernel(context);
    const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
    const request = [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "1",
      "-subj",
      "/CN=slow.test",
      "-keyout",
      key,
      "-out",
      certificate,
    ];
    execFileSync("openssl", request, { stdio: "ignore" });
    const server = createServer({ key: readFileSync(key), cert: readFileSync(certificate) }, (socket) =>
      socket.on("error", () => {}).resume(),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    afterAll(() => {
      server.close();
    });
    const port = (server.address() as AddressInfo).port;
    const applied = async (name: string): Promise<number | undefined> => {
      const command = ["openssl", "s_client", "-connect", `127.0.0.1:${port}`, "-servername", name];
      const flags = [...executor, "--latency", "20ms", "--target", "sni=slow.test"];
      const { code, evidence } = await evidenceOf(folder, flags, command);
      expect(code).toBe(0);
      return evidence.faults[0]?.applied;
    };
    expect(await applied("slow.test")).toBeGreaterThanOrEqual(2);
    expect(await applied("fast.test")).toBe(0);
  });
});

describe("schedules", () => {
  const sends = (many: number, pauseMs: number): string[] =>
    times(many, () => ["a.send:x", "x.rawawait", `a.sleep:${pauseMs}`]).flat();
  const PEERS = ["x.rawudp", "a.udp:@x"];
  const ways = (run: Talk): number[] => {
    const arrivals = run.all("x.rawawait");
    return run.all("a.send").map((send, n) => spanMs(send, arrivals[n]));
  };

  it.each(["spike:600ms/300ms", "flapping:300ms/300ms"])("%s comes and goes", async (schedule) => {
    const run = await talker.under(["--uplink.latency", "20ms", "--schedule", schedule], ...PEERS, ...sends(60, 10));
    const pattern = ways(run)
      .map((ms) => (ms >= 20 ? "x" : "."))
      .join("");
    expect(pattern).toMatch(/x{3,}\.{3,}x{3,}/);
    expect(run.fault("uplink.latency").applied).toBe([...pattern].filter((mark) => mark === "x").length);
    expect(run.fault("uplink.latency").of).toBeLessThan(60); // what was sent while it was off is not counted against it
  });

  it("ramp grows from nothing to all of it", async () => {
    const run = await talker.under(["--uplink.latency", "40ms", "--schedule", "ramp:1s"], ...PEERS, ...sends(60, 10));
    const ms = ways(run);
    expect(ms[0]).toBeLessThan(25);
    for (const last of ms.slice(-3)) expect(last).toBeGreaterThanOrEqual(40);
  });
});

describe("faults that end while they are waited for", () => {
  const waits: [string, string[], string[]][] = [
    ["connect under latency", ["--latency", "20s"], ["PEER"]],
    ["send under latency", ["--uplink.latency", "20s"], ["x.rawudp", "a.udp:@x", "a.send:x", "x.rawawait"]],
    [
      "recv under latency",
      ["--downlink.latency", "20s"],
      ["x.rawudp", "a.udp:@x", "x.rawto:@a", "x.rawsend:x", "a.recv:9"],
    ],
    [
      "send under rate",
      ["--uplink.rate", "1kbps", "--rate-burst", "1b"],
      ["x.rawudp", "a.udp:@x", "a.send:*1400", "a.send:*1400", "x.rawawait", "x.rawawait"],
    ],
    ["a look-up delayed", ["--dns.delay", "20s"], ["a.named:localhost"]],
    ["a look-up that times out", ["--dns.timeout", "20s"], ["a.named:localhost"]],
    [
      "a budget's timeout",
      ["--session-budget.max-ops", "1", "--session-budget.action", "timeout", "--session-budget.budget-timeout", "20s"],
      ["x.rawudp", "a.udp:@x", "a.send:x", "a.send:x"],
    ],
  ];

  it.each(waits)("--duration: %s", async (_, flags, steps) => {
    const run = await talker.under(
      ["--duration", "300ms", ...flags],
      ...steps.map((step) => step.replace("PEER", `a.tcp:${echo.port}`)),
    );
    const total = run.steps.reduce((sum, { ms }) => sum + ms, 0);
    for (const { data } of run.all("x.rawawait")) expect(data).not.toBe("");
    expect(total).toBeGreaterThan(150);
    expect(total).toBeLessThan(1300);
  });

  it("mishap stop", async () => {
    const project = freshProject();
    const steps = ["x.rawudp", "a.udp:@x", "a.send:now", "x.rawawait:15000"];
    const running = startMishap([
      "run",
      "--quiet",
      "--project",
      project,
      "--uplink.latency",
      "20s",
      "--",
      ...talker.command(steps),
    ]);
    await running.says('"a.send:now"');
    await new Promise((resolve) => setTimeout(resolve, 200));
    const began = performance.now();
    await mishap("stop", "--project", project);
    const { stdout } = await running.finished;
    expect(performance.now() - began).toBeLessThan(1000);
    expect(stdout).toContain('"data":"now"'); // what was held left at once
  });
});
