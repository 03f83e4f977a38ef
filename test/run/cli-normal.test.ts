// Always back to normal: by stop, by --duration, at the program's end, and after kill -9 of any part.
import { readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Segment } from "../../src/segment/index.js";
import {
  evidenceOf,
  freshProject,
  mishap,
  processState,
  scratchFolder,
  segmentFiles,
  startMishap,
  until,
} from "./cli-harness.js";
import { expectNoTrace, expectUnderWay, helpersOf, untilNoTrace } from "./support/traces.js";

const folder = scratchFolder();
let server: Server;
let port = 0;
const received: { readonly text: string; readonly atMs: number }[] = [];

beforeAll(async () => {
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => received.push({ text: data.toString("latin1"), atMs: Date.now() }));
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => {
  server.close();
});

/** A program that echoes a byte through the server for ever, and says how many milliseconds each trip took. */
const ECHO = `
import socket, sys, time
print("starting", flush=True)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for i in range(int(sys.argv[2])):
  began = time.monotonic()
  s.sendall(b"x"); s.recv(1)
  print("trip", int((time.monotonic() - began) * 1000), flush=True)
  time.sleep(0.02)
`;
const echo = (trips: number): string[] => ["python3", "-c", ECHO, String(port), String(trips)];
const tripsOf = (stdout: string): number[] => [...stdout.matchAll(/trip (\d+)/g)].map(([, ms]) => Number(ms));

/** The program that a run started: its child which is not the janitor. */
function programOf(runPid: number): number {
  const children = readFileSync(`/proc/${runPid}/task/${runPid}/children`, "latin1").trim().split(" ").map(Number);
  const program = children.find((pid) => !readFileSync(`/proc/${pid}/comm`, "latin1").startsWith("mishap"));
  if (program === undefined) throw new Error("the run has no program");
  return program;
}

function inForce(project: string): boolean {
  return Segment.list().some((run) => run.project === project && run.inForce);
}

describe("mishap stop", () => {
  it("ends the faults of a project within a second, in the middle of a wait; the program goes on", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--project", project, "--latency", "20s", "--", ...echo(5)]);
    await running.says("starting");
    await new Promise((resolve) => setTimeout(resolve, 300)); // it waits in its connect by now
    expect(inForce(project)).toBe(true);
    const began = performance.now();
    const stopped = await mishap("stop", "--project", project);
    expect(stopped).toMatchObject({ code: 0, stdout: `stopped ${project}, run by pid ${running.pid}\n` });
    expect(inForce(project)).toBe(false);
    const { code, stdout, stderr } = await running.finished;
    expect(performance.now() - began).toBeLessThan(3000);
    expect(code).toBe(0);
    expect(tripsOf(stdout)).toHaveLength(5);
    expect(stderr).toMatch(/note: the faults ended after \d+\.\d s, by mishap stop; the program went on/);
    await expectNoTrace(project);
  });

  it("takes less than a second from the command to the last fault", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--quiet", "--project", project, "--latency", "30ms", "--", ...echo(1000)]);
    await running.says("trip");
    const began = performance.now();
    await mishap("stop", "--project", project);
    expect(inForce(project)).toBe(false);
    expect(performance.now() - began).toBeLessThan(1000);
    process.kill(running.pid, "SIGTERM");
    expect((await running.finished).code).toBe(143);
  });

  it("leaves other projects alone, and says when there is nothing", async () => {
    const [one, other] = [freshProject(), freshProject()];
    const running = startMishap(["run", "--quiet", "--project", one, "--", "sh", "-c", "echo ready; exec sleep 20"]);
    await running.says("ready");
    expect(await mishap("stop", "--project", other)).toMatchObject({
      code: 0,
      stdout: `nothing is running in project ${other}\n`,
    });
    expect(inForce(one)).toBe(true);
    expect((await mishap("stop", "--all")).stdout).toContain(`stopped ${one}, run by pid ${running.pid}\n`);
    expect(inForce(one)).toBe(false);
    process.kill(running.pid, "SIGTERM");
    await running.finished;
  });
});

describe("--duration", () => {
  it("ends the faults and lets the program go on", async () => {
    const { code, stdout, evidence } = await evidenceOf(
      folder,
      ["--latency", "50ms", "--duration", "1500ms"],
      echo(40),
    );
    const trips = tripsOf(stdout);
    expect(code).toBe(0);
    expect(trips).toHaveLength(40);
    expect(trips[0]).toBeGreaterThanOrEqual(100);
    expect(Math.max(...trips.slice(-5))).toBeLessThan(50);
    expect(evidence.notes).toEqual([expect.stringMatching(/^the faults ended after 1\.[5-7] s, as --duration says/)]);
  });
});

describe("kill -9", () => {
  it("of mishap: nothing is in force at once, nothing is left once the program ended", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--project", project, "--latency", "100ms", "--", ...echo(40)]);
    await running.says("trip");
    expectUnderWay(project);
    process.kill(running.pid, "SIGKILL");
    await until("mishap is gone", () => (processState(running.pid) ?? "Z") === "Z");
    // Its threads end one after the other: the lock's death is seen with the last, long before the lease would lapse.
    await until("nothing is in force", () => !inForce(project), 1000);
    const { stdout } = await running.finished; // both ends of the pipes are the program's now
    const trips = tripsOf(stdout);
    expect(trips).toHaveLength(40);
    expect(trips[0]).toBeGreaterThanOrEqual(200);
    expect(Math.max(...trips.slice(-5))).toBeLessThan(100);
    await untilNoTrace(project);
  });

  it("of the program: evidence, and nothing is left", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--project", project, "--", ...echo(1000)]);
    await running.says("trip");
    process.kill(programOf(running.pid), "SIGKILL");
    const { code, stderr } = await running.finished;
    expect(code).toBe(137);
    expect(stderr).toContain("mishap: 1 flow");
    await expectNoTrace(project);
  });

  it.each(["KILL", "SEGV", "ABRT"])("of the program by SIG%s: what it had sent arrives when due", async (name) => {
    const project = freshProject();
    const dies = `
import os, signal, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"last words"); print("sent", time.time(), flush=True)
os.kill(os.getpid(), signal.SIG${name}); time.sleep(9)
`;
    const before = received.length;
    const command = ["python3", "-c", dies, String(port)];
    const flags = ["--project", project, "--uplink.latency", "400ms"];
    const { code, stdout, stderr } = await startMishap(["run", ...flags, "--", ...command]).finished;
    expect(code).toBe({ KILL: 137, SEGV: 139, ABRT: 134 }[name]);
    await until("it arrives", () => received.length > before);
    const [{ text, atMs } = { text: "", atMs: 0 }] = received.slice(before);
    expect(text).toBe("last words");
    expect(atMs - Number(stdout.split(" ")[1]) * 1000).toBeGreaterThanOrEqual(395); // two clock readings apart
    expect(stderr).toContain("mishap: 1 flow");
    await expectNoTrace(project);
  });

  it("of the courier: evidence says that something was lost, and nothing is left", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--project", project, "--latency", "20s", "--", ...echo(1)]);
    await running.says("starting");
    await until("the courier is there", () => helpersOf(project, "mishap-courier").length === 1);
    for (const courier of helpersOf(project, "mishap-courier")) process.kill(courier, "SIGKILL");
    process.kill(running.pid, "SIGTERM");
    const { code, stderr } = await running.finished;
    expect(code).toBe(143);
    expect(stderr).toMatch(/note: not all that was sent has left: .*ended with SIGKILL/);
    await expectNoTrace(project);
  });

  it.each([
    ["segment", []],
    ["script's mailbox", ["--script", join(folder, "script.ts"), "--unsafe-no-jail"]],
  ])("of mishap, the moment that its %s is there: nothing is left", async (_, flags) => {
    writeFileSync(
      join(folder, "script.ts"),
      'import { policy } from "mishap/script";\nexport default policy({ name: "any", onFlow: () => undefined });\n',
    );
    for (let i = 0; i < 5; i++) {
      const project = freshProject();
      const running = startMishap(["run", "--project", project, ...flags, "--", ...echo(1)]);
      const deadline = performance.now() + 10_000;
      let files: string[] = [];
      while (files.length === 0 && performance.now() < deadline) files = segmentFiles(project); // with no moment's rest
      process.kill(running.pid, "SIGKILL");
      expect(files).not.toEqual([]);
      await running.finished;
      await untilNoTrace(project);
    }
  });

  it("of both at once: nothing is left", async () => {
    const project = freshProject();
    const running = startMishap(["run", "--project", project, "--latency", "100ms", "--", ...echo(1000)]);
    await running.says("trip");
    process.kill(programOf(running.pid), "SIGKILL");
    process.kill(running.pid, "SIGKILL");
    await running.finished;
    expect(inForce(project)).toBe(false);
    await untilNoTrace(project);
  });
});
