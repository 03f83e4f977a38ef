/**
 * `mishap attach`: programs that ran before it, what they meet while it lasts and once it is over, and what it leaves behind,
 * which is nothing.
 */
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import {
  type Finished,
  freshProject,
  mishap,
  type Running,
  scratchFolder,
  segmentFiles,
  start,
  startMishap,
  until,
} from "./cli-harness.js";
import { build, cannotBuild, hasMptcp, heldBy, loaded, needsKernel, processesNamed } from "./support/kernel.js";
import { freeTcpPort } from "./support/programs.js";

const CLIENT = fileURLToPath(new URL("../programs/holding.py", import.meta.url));
const SERVER = fileURLToPath(new URL("../programs/serving.py", import.meta.url));
const folder = scratchFolder();

let server: Server;
let port = 0;
let again = "";
beforeAll(async () => {
  server = createServer((socket) => socket.on("error", () => {}).pipe(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address !== null && typeof address !== "string") port = address.port;
  if (cannotBuild("go-again") === undefined) again = await build(folder, "go-again");
}, 120_000);
afterAll(() => {
  server.close();
});
beforeEach((context) => {
  needsKernel(context);
  const missing = cannotBuild("go-again");
  context.skip(missing !== undefined, missing);
});

const running = new Set<Running>();
/** Processes that outlive whoever started them. */
const strays = new Set<number>();
afterEach(async () => {
  for (const pid of strays) spawnSync("kill", ["-9", String(pid)]);
  strays.clear();
  for (const each of running) each.child.kill("SIGKILL");
  await Promise.all([...running].map(({ finished }) => finished));
  running.clear();
});

/** A program that was there before, with what it said since somebody last asked. */
class Subject {
  readonly pid: number;
  readonly #run: Running;
  #said = "";

  constructor(command: string, args: readonly string[]) {
    this.#run = start(command, args);
    running.add(this.#run);
    this.pid = this.#run.pid;
    this.#run.child.stdout?.on("data", (text) => {
      this.#said += text;
    });
  }

  /** Whole lines, each once; at least so many. */
  async says(atLeast = 1): Promise<string[]> {
    await until(`the program says ${atLeast} lines`, () => this.#said.split("\n").length > atLeast, 20_000);
    const end = this.#said.lastIndexOf("\n") + 1;
    const lines = this.#said.slice(0, end).trim().split("\n");
    this.#said = this.#said.slice(end);
    return lines;
  }

  kill(): void {
    this.#run.child.kill("SIGKILL");
  }
}

/** One that connects again and again. */
const reconnecting = (): Subject => new Subject(again, [String(port)]);
/** One that exchanges datagrams, from a socket of its own each; of those that are lost it says so. */
const asking = (port: number): Subject =>
  new Subject("python3", [
    "-uc",
    `
import socket, sys, time
while True:
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.settimeout(1)
    began = time.monotonic()
    end.sendto(b"0123456789", ("127.0.0.1", int(sys.argv[1])))
    try:
        end.recv(100)
        print(round((time.monotonic() - began) * 1000))
    except TimeoutError:
        print("lost")
    end.close()
    time.sleep(0.02)
`,
    String(port),
  ]);
/** One that uses the one connection that it has. */
const holding = (bytes: number, patienceMs: number): Subject =>
  new Subject("python3", ["-u", CLIENT, ...[port, bytes, patienceMs].map(String)]);

interface Attached {
  readonly project: string;
  readonly run: Running;
  readonly end: Promise<Finished & { evidence: Evidence }>;
}

/** Attaches, and answers once faults are in force. */
async function attach(to: readonly string[], flags: readonly string[]): Promise<Attached> {
  const project = freshProject();
  const file = join(folder, `${project}.json`);
  const run = startMishap(["attach", "--project", project, ...to, ...flags, "--json", file]);
  running.add(run);
  let said = "";
  run.child.stderr?.on("data", (text) => {
    said += text;
  });
  const end = run.finished.then((finished) => ({
    ...finished,
    evidence: evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8"))),
  }));
  end.catch(() => {}); // of one that is killed
  let over = false;
  void run.finished.then(() => {
    over = true;
  });
  await until("it is attached", () => said.includes("attached to") || over, 20_000);
  if (over) throw new Error(said);
  return { project, run, end };
}
const toPid = ({ pid }: Subject): string[] => ["--pid", String(pid)];

/** How many milliseconds an exchange with a server takes. */
async function asked(port: number): Promise<number> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  const began = performance.now();
  socket.write("0123456789");
  await once(socket, "data");
  socket.destroy();
  return performance.now() - began;
}

/** Lines that are times, in milliseconds. */
const times = (lines: readonly string[]): number[] => lines.filter((line) => /^\d+$/.test(line)).map(Number);
const least = (lines: readonly string[]): number => Math.min(...times(lines));
const most = (lines: readonly string[]): number => Math.max(...times(lines));

/** Of a project, what runs for it. */
function helpersOf(project: string): number[] {
  return ["mishap-relay", "mishap-loader", "mishap-courier", "mishap-janitor"].flatMap(processesNamed).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`-${project}-`);
    } catch {
      return false; // it went
    }
  });
}

async function nothingIsLeft(project: string, held: ReadonlySet<string>): Promise<void> {
  await until("its processes are gone", () => helpersOf(project).length === 0, 15_000);
  await until("its segment is gone", () => segmentFiles(project).length === 0, 15_000);
  await until("what it loaded is gone", () => [...loaded().keys()].every((id) => !held.has(id)), 15_000);
}
const heldFor = (project: string): Set<string> => new Set(helpersOf(project).flatMap((pid) => [...heldBy(pid)]));

describe("a process that reconnects", () => {
  it("meets the faults from then on, and others of its cgroup do not", async () => {
    const [subject, other] = [reconnecting(), reconnecting()];
    expect(least(await subject.says(3))).toBeLessThan(60);
    const { run, end } = await attach(toPid(subject), ["--latency", "30ms"]);
    await Promise.all([subject.says(3), other.says()]);
    const [during, meanwhile] = [await subject.says(8), await other.says(1)];
    // A round trip to connect, another to exchange.
    expect(least(during)).toBeGreaterThanOrEqual(120);
    expect(least(meanwhile)).toBeLessThan(60);
    run.child.kill("SIGINT");
    const { code, evidence } = await end;
    expect(code).toBe(130);
    await subject.says(3);
    expect(least(await subject.says(5))).toBeLessThan(60);
    expect(evidence).toMatchObject({
      attached: { pid: subject.pid, ended_by: "signal" },
      command: [again, String(port)],
    });
    expect(evidence.faults).toMatchObject([{ fault: "latency", executor: "relay" }]);
    expect(evidence.faults[0]?.p50_ns).toBeGreaterThanOrEqual(30e6);
    expect(evidence.coverage?.filter(({ state }) => state === "relayed").map(({ pid }) => pid)).toEqual([subject.pid]);
  });

  it("is free again after --duration", async () => {
    const subject = reconnecting();
    const { project, end } = await attach(toPid(subject), ["--connection-error", "refused", "--duration", "1500ms"]);
    await subject.says(3);
    expect(new Set(await subject.says(5))).toEqual(new Set([expect.stringContaining("connection refused")]));
    const held = heldFor(project);
    expect(held.size).toBeGreaterThan(0);
    const { code, evidence } = await end;
    expect({ code, by: evidence.attached?.ended_by }).toEqual({ code: 0, by: "duration" });
    expect(evidence.faults).toMatchObject([{ fault: "connection_error", delivered_ppm: 1_000_000 }]);
    await nothingIsLeft(project, held);
    await subject.says(3);
    expect(times(await subject.says(5)).length).toBeGreaterThan(0);
  });

  it("is free again after mishap stop", async () => {
    const subject = reconnecting();
    const { project, end } = await attach(toPid(subject), ["--latency", "10ms"]);
    const stop = await mishap("stop", "--project", project);
    expect(stop.stdout).toContain(`stopped ${project}`);
    expect(await end).toMatchObject({ code: 0, evidence: { attached: { ended_by: "stop" } } });
  });

  it("ends it by its own end, which is said", async () => {
    const subject = reconnecting();
    const { project, end } = await attach(toPid(subject), ["--latency", "10ms"]);
    const held = heldFor(project);
    await subject.says(2);
    subject.kill();
    const { code, stderr, evidence } = await end;
    expect({ code, by: evidence.attached?.ended_by }).toEqual({ code: 0, by: "process" });
    expect(stderr).toContain(`mishap: pid ${subject.pid} ended, and the faults with it\n`);
    await nothingIsLeft(project, held);
  });

  it.for(["tcp", "mptcp"])("has the clients of its listener by %s meet them too", async (protocol, { skip }) => {
    skip(protocol === "mptcp" && !hasMptcp(), "this kernel has no MPTCP");
    const listening = await freeTcpPort();
    const subject = new Subject("python3", [SERVER, "127.0.0.1", String(listening), "2", protocol]);
    await subject.says();
    const { run, end } = await attach(toPid(subject), ["--latency", "30ms"]);
    const took = await asked(listening);
    expect(took).toBeGreaterThanOrEqual(60);
    run.child.kill("SIGINT");
    const { evidence } = await end;
    expect(evidence.coverage).toMatchObject([{ state: "relayed", pid: subject.pid, flows: 1 }]);
    expect(await asked(listening)).toBeLessThan(60);
  });

  it("follows the edits of a policy file", async () => {
    const subject = reconnecting();
    const file = join(folder, "policies.yaml");
    writeFileSync(file, "slow: { latency: 20ms }\n");
    const { run } = await attach(toPid(subject), ["--policies", file, "--policy", "slow"]);
    await subject.says(3);
    expect(least(await subject.says(3))).toBeGreaterThanOrEqual(80);
    writeFileSync(file, "slow: { latency: 60ms }\n");
    await new Promise((resolve) => setTimeout(resolve, 500));
    await subject.says(2);
    expect(least(await subject.says(3))).toBeGreaterThanOrEqual(240);
    run.child.kill("SIGTERM");
    expect((await run.finished).code).toBe(143);
  });

  it("is free when mishap is killed, at any moment, and nothing is left", async () => {
    const subject = reconnecting();
    for (const afterMs of [150, 350, 500, 650, 900, 1500]) {
      const project = freshProject();
      const run = startMishap(["attach", "--project", project, ...toPid(subject), "--latency", "30ms"]);
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      const held = heldFor(project);
      run.child.kill("SIGKILL");
      await run.finished;
      await nothingIsLeft(project, held);
    }
    await subject.says(3);
    expect(least(await subject.says(5))).toBeLessThan(60);
  });

  it("goes on unfaulted when the loader is killed, and that is said", async () => {
    const subject = reconnecting();
    const { project, end } = await attach(toPid(subject), ["--latency", "30ms"]);
    for (const pid of processesNamed("mishap-loader").filter((each) => helpersOf(project).includes(each)))
      process.kill(pid, "SIGKILL");
    const { code, evidence } = await end;
    expect({ code, by: evidence.attached?.ended_by }).toEqual({ code: 125, by: "lost" });
    expect(evidence.notes).toContainEqual(expect.stringContaining("the kernel's witness was lost"));
    await subject.says(3);
    expect(least(await subject.says(5))).toBeLessThan(60);
  });
});

describe("a connection that is carried", () => {
  it("of a socket that was there before; ends in a reset when it is over, and is counted", async () => {
    const program = `
import errno, signal, socket
s = socket.socket(); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); print("there", flush=True)
signal.sigwait([signal.SIGUSR1])
s.connect(("127.0.0.1", ${port})); s.sendall(b"x"); s.recv(1); print(s.getpeername()[1], flush=True)
try: print(s.recv(1), flush=True)
except OSError as error: print(errno.errorcode[error.errno], flush=True)
signal.pause()
`;
    const subject = new Subject("python3", ["-c", program]);
    await subject.says();
    const { run, end } = await attach(toPid(subject), ["--latency", "20ms"]);
    process.kill(subject.pid, "SIGUSR1");
    expect(await subject.says()).toEqual([String(port)]);
    run.child.kill("SIGINT");
    const { evidence } = await end;
    expect(await subject.says()).toEqual(["ECONNRESET"]);
    expect(evidence.faults).toMatchObject([{ fault: "latency", applied: 4 }]);
    expect(evidence.notes).toContainEqual("1 connection that the relay still carried ended in a reset");
  });
});

describe("whom it attaches to", () => {
  it("a process, not its children", async () => {
    const subject = new Subject("sh", ["-c", `"$0" ${port} & wait`, again]);
    await subject.says();
    strays.add(Number(readFileSync(`/proc/${subject.pid}/task/${subject.pid}/children`, "utf8").trim()));
    const { end } = await attach(toPid(subject), ["--latency", "30ms", "--duration", "1s"]);
    await subject.says();
    expect(least(await subject.says(5))).toBeLessThan(60);
    expect((await end).evidence.flows).toBe(0);
  });

  it("two of a kind: the first one has the connections, none is carried twice", async () => {
    const subject = reconnecting();
    const first = await attach(toPid(subject), ["--latency", "20ms"]);
    const second = await attach(toPid(subject), ["--latency", "500ms", "--duration", "1s"]);
    await subject.says(3);
    const lines = await subject.says(5);
    expect(least(lines)).toBeGreaterThanOrEqual(80);
    expect(least(lines)).toBeLessThan(500);
    await second.end;
    first.run.child.kill("SIGINT");
    expect((await first.end).code).toBe(130);
  });

  it("two at once: each has its own datagrams, and only those", async () => {
    const echo = createSocket("udp4", (data, { port, address }) => echo.send(data, port, address));
    await once(echo.bind(0, "127.0.0.1"), "listening");
    try {
      const relayed = ({ coverage = [] }: Evidence): number[] =>
        coverage.filter(({ state }) => state === "relayed").map(({ pid }) => pid);
      const [one, other] = [asking(echo.address().port), asking(echo.address().port)];
      const first = await attach(toPid(one), ["--latency", "20ms"]);
      const second = await attach(toPid(other), ["--latency", "80ms", "--duration", "4s"]);
      const settled = async (): Promise<void> => {
        for (const lines of [1, 2]) await Promise.all([one.says(lines), other.says(lines)]);
      };
      await settled();
      const [near, far] = await Promise.all([one.says(5), other.says(5)]);
      expect(least(far)).toBeGreaterThanOrEqual(160);
      expect(relayed((await second.end).evidence)).toEqual([other.pid]);
      await settled();
      expect(least(await other.says(5))).toBeLessThan(40);
      for (const lines of [near, await one.says(5)]) {
        expect(least(lines)).toBeGreaterThanOrEqual(40);
        expect(least(lines)).toBeLessThan(160);
      }
      first.run.child.kill("SIGINT");
      expect(relayed((await first.end).evidence)).toEqual([one.pid]);
    } finally {
      echo.close();
    }
  });

  it("a cgroup: all of its processes, and what they start", async ({ skip }) => {
    const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "latin1"))?.[1];
    if (mount === undefined) return skip("cgroup2 is not mounted");
    const cgroup = join(mount, `mishap_test_${freshProject()}`);
    mkdirSync(cgroup);
    try {
      const subject = new Subject("sh", ["-c", `echo $$ > ${cgroup}/cgroup.procs; "$0" ${port}; :`, again]);
      await subject.says(2);
      const { end } = await attach(["--cgroup", cgroup], ["--latency", "30ms", "--duration", "2s"]);
      await subject.says(3);
      expect(least(await subject.says(5))).toBeGreaterThanOrEqual(120);
      expect((await end).evidence).toMatchObject({ attached: { cgroup, ended_by: "duration" }, command: [cgroup] });
    } finally {
      for (const pid of readFileSync(join(cgroup, "cgroup.procs"), "utf8").trim().split("\n").map(Number))
        if (pid > 0) process.kill(pid, "SIGKILL");
      await until("the cgroup can go", () => {
        try {
          rmdirSync(cgroup);
          return true;
        } catch {
          return false;
        }
      });
    }
  });

  it("another network and pid namespace: there, as the process's user", async ({ skip }) => {
    const probe = spawnSync("unshare", ["-n", "true"]);
    skip(probe.status !== 0, "no network namespace can be made here");
    const program = `
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        end, _ = server.accept(); end.sendall(end.recv(9)); end.close()
threading.Thread(target=serve, daemon=True).start()
while True:
    start = time.monotonic(); s = socket.create_connection(server.getsockname()); s.sendall(b"x"); s.recv(1); s.close()
    print(round((time.monotonic() - start) * 1e3), flush=True); time.sleep(0.05)
`;
    const inside = `ip link set lo up; exec setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c '${program}'`;
    const subject = new Subject("unshare", ["-n", "-p", "--fork", "--kill-child", "sh", "-c", inside]);
    await subject.says(2);
    const pid = Number(readFileSync(`/proc/${subject.pid}/task/${subject.pid}/children`, "utf8").trim());
    strays.add(pid);
    const { project, end } = await attach(["--pid", String(pid)], ["--latency", "30ms", "--duration", "2s"]);
    const relay = processesNamed("mishap-relay").find((each) => helpersOf(project).includes(each));
    const status = readFileSync(`/proc/${relay}/status`, "utf8");
    expect(status).toMatch(/^Uid:\t65534\t65534\t65534\t65534$/m);
    expect(status).toMatch(/^CapPrm:\t0{16}$/m);
    await subject.says(3);
    expect(least(await subject.says(3))).toBeGreaterThanOrEqual(120);
    expect((await end).evidence.faults).toMatchObject([{ fault: "latency", executor: "relay" }]);
  });
});

describe("connections that were there before", () => {
  it("go on; what they do not meet is said once", async () => {
    const subject = holding(5, 1000);
    await subject.says(2);
    const { end } = await attach(toPid(subject), ["--latency", "200ms", "--duration", "1s"]);
    await subject.says(2);
    const { evidence } = await end;
    expect(least(await subject.says(3))).toBeLessThan(150);
    expect(evidence.notes).toContainEqual("1 connection was there before: it does not meet latency");
    expect(evidence.escaped).toMatchObject([{ pid: subject.pid, reason: "there before" }]);
  });

  it.each([500, 0])("are reset, whoever waits for them (patience %i ms)", async (patienceMs) => {
    const subject = holding(patienceMs ? 5 : 200_000, patienceMs);
    await subject.says(2);
    const { end } = await attach(toPid(subject), ["--connection-error", "reset", "--duration", "500ms"]);
    const { evidence } = await end;
    expect((await subject.says()).at(-1)).toMatch(/^(ECONNRESET|EPIPE)$/);
    expect(evidence.faults).toContainEqual(
      expect.objectContaining({ fault: "connection_error", executor: "kernel", applied: 1, of: 1 }),
    );
  });

  it.each([
    [["--packet-loss", "100%"], "packet_loss"],
    [["--downlink.packet-loss", "100%"], "downlink.packet_loss"],
    [["--half-open", "10b"], "half_open"],
  ])("hear nothing any more, with %j, until it is over", async (flags, fault) => {
    const subject = holding(5, 300);
    await subject.says(4);
    const { end } = await attach(toPid(subject), [...flags, "--duration", "2s"]);
    await subject.says();
    expect(new Set(await subject.says(3))).toEqual(new Set(["timeout"]));
    const { evidence } = await end;
    expect(evidence.faults).toContainEqual(expect.objectContaining({ fault, executor: "kernel", applied: 1, of: 1 }));
    // TCP sends it all again.
    let lines = await subject.says();
    for (let looks = 0; times(lines).length === 0 && looks < 50; looks++) lines = await subject.says();
    expect(times(lines).length).toBeGreaterThan(0);
  });

  it("are paced, and no longer when it is over or the loader was killed", async () => {
    const subject = holding(500_000, 20_000);
    const pace = (): string => {
      const { stdout } = spawnSync("ss", ["-tinOH", "sport", "=", `:${port}`, "or", "dport", "=", `:${port}`], {
        encoding: "utf8",
      });
      return stdout;
    };
    await subject.says(2);
    expect(pace()).not.toBe("");
    for (const kill of [false, true]) {
      const { project, end } = await attach(toPid(subject), ["--uplink.rate", "4mbps", "--duration", "4s"]);
      await subject.says();
      // 500 kB at 500 kB a second.
      expect(most(await subject.says(2))).toBeGreaterThan(600);
      if (kill)
        for (const pid of processesNamed("mishap-loader").filter((each) => helpersOf(project).includes(each)))
          process.kill(pid, "SIGKILL");
      const { evidence } = await end;
      if (!kill)
        expect(evidence.faults).toContainEqual(
          expect.objectContaining({ fault: "uplink.rate", executor: "kernel", applied: 1, of: 1 }),
        );
      await subject.says(2);
      expect(least(await subject.says(3))).toBeLessThan(500);
    }
  }, 60_000);
});

describe("the command", () => {
  it("says what is wrong", async () => {
    const subject = reconnecting();
    const tries: [string[], number, string | RegExp][] = [
      [[], 2, "attach: needs to know to what, such as --pid 4242"],
      [["--pid", "x"], 2, "--pid x: is no process's number, such as --pid 4242"],
      [["--pid", "999999999"], 2, "--pid 999999999: there is no such process; `ps -e` lists those there are"],
      [
        ["--pid", "1", "--cgroup", "/x"],
        2,
        "--pid and --cgroup: one of them says what to attach to, such as --pid alone",
      ],
      [["--cgroup", "/tmp"], 2, /^--cgroup \/tmp: this is no cgroup of version 2/],
      [
        ["--pid", "2"],
        125,
        "--pid 2 cannot be attached to: it is a thread of the kernel, which has no sockets of its own",
      ],
      [
        [...toPid(subject), "--script", "brownout"],
        2,
        "--script: only the interceptor asks a script, and attach has none",
      ],
      [[...toPid(subject), "--duration", "0s"], 2, "--duration 0s: must be longer than nothing, such as 30s"],
    ];
    for (const [args, code, sentence] of tries) {
      const end = await mishap("attach", ...args);
      expect({ args, code: end.code }).toEqual({ args, code });
      expect(end.stderr.replace(/^mishap: /, "").trim()).toMatch(sentence);
    }
    const cgroup = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "latin1"))?.[1] ?? "";
    const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "latin1"))?.[1] ?? "";
    const own = await mishap("attach", "--cgroup", join(mount, cgroup));
    expect(own).toMatchObject({ code: 125, stderr: expect.stringContaining("mishap itself is in that cgroup") });
  });

  it("leaves alone what mishap run started", async () => {
    const run = startMishap(["run", "--project", freshProject(), "--", "python3", CLIENT, String(port), "5", "1000"]);
    running.add(run);
    await run.says("\n");
    const pid = Number(
      readFileSync(`/proc/${run.pid}/task/${run.pid}/children`, "utf8")
        .split(" ")
        .find((each) => {
          return each !== "" && readFileSync(`/proc/${each}/cmdline`, "latin1").includes("holding.py");
        }),
    );
    const end = await mishap("attach", "--pid", String(pid));
    expect(end).toMatchObject({ code: 125, stderr: expect.stringContaining("it belongs to a run of mishap") });
    process.kill(pid, "SIGKILL");
  });

  it("needs root, and says so", async ({ skip }) => {
    skip(process.getuid?.() !== 0, "taking root's capabilities away needs root");
    const subject = reconnecting();
    const bare = [
      "--bounding-set=-all",
      process.execPath,
      fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url)),
    ];
    const end = await start("setpriv", [...bare, "attach", ...toPid(subject)]).finished;
    expect(end.code).toBe(125);
    expect(end.stderr).toMatch(/^mishap: --pid \d+ cannot be attached to: [^\n]*needs root[^\n]*\n$/);
  });
});
