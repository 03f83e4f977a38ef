/** `mishap run --script`: a script decides for a real program; what is wrong with it hurts nobody, and is said. */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { evidenceSchema } from "../../src/report/schema.js";
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
import { unjailed } from "./support/user-folder.js";

const EXCHANGES = fileURLToPath(new URL("../programs/exchanges.py", import.meta.url));
const folder = scratchFolder();

/** Echo servers. */
const servers: Server[] = [];
const ports: number[] = [];
beforeAll(async () => {
  for (let i = 0; i < 2; i++) {
    const server = createServer((socket) => socket.on("error", () => {}).pipe(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("a server without a port");
    servers.push(server);
    ports.push(address.port);
  }
});
afterAll(() => {
  for (const server of servers) server.close();
});

let scripts = 0;
function script(body: string): string {
  const path = join(folder, `script-${++scripts}.ts`);
  writeFileSync(
    path,
    `import { policy } from "mishap/script";\nexport default policy({\n  name: "tried",\n${body}\n});\n`,
  );
  return path;
}

interface Told {
  readonly connect: number | string;
  readonly took: readonly (number | string)[];
}

/** On a busy machine answers take their time; what happens then is another test's. */
const PATIENT = ["--script-patience", "1s"];

/** So many exchanges with each server, under a script. */
async function exchanges(path: string, count: number, flags: readonly string[] = [], pauseMs = 0) {
  const command = ["python3", EXCHANGES, String(count), String(pauseMs), ...ports.map(String)];
  const run = await evidenceOf(folder, ["--script", path, ...PATIENT, ...flags], command);
  const told: Told[] = JSON.parse(run.stdout);
  const [first, second] = told;
  if (first === undefined || second === undefined) throw new Error(`the program said ${run.stdout}`);
  const { script: said } = run.evidence;
  if (said === undefined) throw new Error("the evidence has no script");
  return { ...run, first, second, said };
}

const slower = (took: Told["took"], ms: number): boolean[] =>
  took.map((each) => typeof each === "number" && each >= ms);

beforeEach(({ skip }) => skip(unjailed !== undefined, unjailed));

describe("a script decides", () => {
  it("for a flow, before its first byte", async () => {
    const path = script(
      `  onFlow: (flow) => (flow.peer.port === Number(${ports[0]}) ? { latency: "40ms" } : undefined),`,
    );
    const { first, second, said, evidence } = await exchanges(path, 3);
    expect(slower([first.connect, ...first.took], 79)).toEqual([true, true, true, true]);
    expect(slower([second.connect, ...second.took], 40)).toEqual([false, false, false, false]);
    expect(said).toMatchObject({ name: "tried", questions: 2, late: 0, unserved: 0, problems: [] });
    expect(evidence.faults).toMatchObject([{ fault: "latency", asked: "by the script", executor: "interceptor" }]);
    expect(evidence.notes).toEqual([]);
  });

  it("for each op, with the state of its flow", async () => {
    const path = script(`  flowState: () => ({ sends: 0 }),
  onOp(op) {
    if (op.kind !== "send") return undefined;
    return ++op.flow.state.sends % 2 === 0 ? { uplink: { latency: "50ms" } } : {};
  },`);
    const { first, second, said } = await exchanges(path, 4, ["--latency", "0ms"]);
    for (const { took } of [first, second]) expect(slower(took, 49)).toEqual([false, true, false, true]);
    // A connect, and for each exchange a send and what came back, in one piece or more.
    expect(said.questions).toBeGreaterThanOrEqual(2 * (1 + 2 * 4));
    expect(said.late + said.unserved).toBe(0);
  });

  it("for what arrives", async () => {
    const path = script(`  flowState: () => ({ receives: 0 }),
  onOp: (op) => (op.kind === "recv" && ++op.flow.state.receives === 3 ? { downlink: { latency: "60ms" } } : undefined),`);
    const { first, second } = await exchanges(path, 4, [], 5);
    for (const { took } of [first, second]) expect(slower(took, 59)).toEqual([false, false, true, false]);
  });

  it("once for as long as its answer stands", async () => {
    const path = script(`  onOp(op, ctx) {
    ctx.metrics.count(op.kind);
    return { fields: op.kind === "send" ? { uplink: { latency: "10ms" } } : {}, validFor: "flow" };
  },`);
    const { first, second, said } = await exchanges(path, 20);
    for (const { took } of [first, second]) expect(slower(took, 9.5)).toEqual(took.map(() => true));
    expect(said.metrics).toEqual({ connect: 2, send: 2, recv: 2 });
    expect(said.questions).toBe(6);
  });

  it("for connects: refuses the second of two", async () => {
    const path = script(`  state: () => ({ connects: 0 }),
  onOp(op, ctx) {
    if (op.kind !== "connect") return undefined;
    return ++ctx.state.connects === 2 ? { connectionError: { kind: "refused" } } : undefined;
  },`);
    const { first, second } = await exchanges(path, 1);
    expect(first.connect).toEqual(expect.any(Number));
    expect(second.connect).toBe("ConnectionRefusedError");
  });

  it("for names that are looked up", async () => {
    const path = script(`  onOp(op, ctx) {
    if (op.kind !== "dns") return undefined;
    ctx.log("asked for", op.host);
    return op.host === "gone.test" ? { dns: { nxdomain: "100%" } } : undefined;
  },`);
    const look = `import socket
for name in ("localhost", "gone.test"):
  try: print(name, bool(socket.getaddrinfo(name, 80)))
  except socket.gaierror as error: print(name, error.errno == socket.EAI_NONAME)`;
    const { stdout, stderr, evidence } = await evidenceOf(
      folder,
      ["--script", path, ...PATIENT],
      ["python3", "-c", look],
    );
    expect(stdout).toBe("localhost True\ngone.test True\n");
    expect(stderr).toContain("script: asked for gone.test");
    expect(evidence.faults).toMatchObject([{ fault: "dns.nxdomain", asked: "by the script", applied: 1 }]);
  });

  it("with time: what onTick answers holds from then on", async () => {
    const path = script(`  tickMs: 200,
  onTick: ({ total, flows }, ctx) => {
    ctx.metrics.gauge("open", total.open);
    ctx.metrics.gauge("known", flows.length);
    ctx.metrics.gauge("up", total.bytesUp);
    return total.bytesUp > 300 ? { own: { latency: "30ms" } } : undefined;
  },`);
    const { first, second, said } = await exchanges(path, 20, [], 30);
    expect(slower(first.took, 60)[0]).toBe(false);
    expect(slower(second.took, 59)).toEqual(second.took.map(() => true));
    expect(said.metrics).toMatchObject({ known: expect.any(Number), up: expect.any(Number) });
    expect(Number(said.metrics.up)).toBeGreaterThan(100);
  });

  it("with several workers, none of which takes another's answers away", async () => {
    const path = script(`  flowState: () => ({ sends: 0 }),
  onFlow: (flow) => ({ uplink: { latency: flow.peer.port === Number(${ports[0]}) ? "30ms" : "60ms" } }),
  onOp: (op) => (op.kind === "send" && ++op.flow.state.sends > 3 ? { uplink: { latency: op.flow.peer.port === Number(${ports[0]}) ? "90ms" : "120ms" } } : undefined),`);
    const { first, second, said } = await exchanges(path, 6, ["--script-workers", "4"]);
    const near = (took: Told["took"], ms: readonly number[]): void => {
      for (const [i, each] of took.entries()) expect(Math.abs(Number(each) - (ms[i] ?? 0) - 5)).toBeLessThan(15);
    };
    near(first.took, [30, 30, 30, 90, 90, 90]);
    near(second.took, [60, 60, 60, 120, 120, 120]);
    expect(said.late + said.unserved).toBe(0);
  });

  it("beside the policy's own fields, which hold for what it leaves open", async () => {
    const path = script(`  onOp: (op) => (op.kind === "send" ? { uplink: { latency: "70ms" } } : undefined),`);
    const { first } = await exchanges(path, 2, ["--latency", "20ms"]);
    expect(slower([first.connect], 39)).toEqual([true]);
    expect(slower(first.took, 89)).toEqual([true, true]);
  });

  it("alike for alike seeds", async () => {
    const path = script(`  onOp: (op, ctx) => {
    if (op.kind !== "send") return undefined;
    const ms = Math.floor(ctx.random() * 1e6);
    ctx.log(op.flow.id, ms);
    return undefined;
  },`);
    const drawn = async (seed: string) => {
      const { stderr } = await exchanges(path, 5, ["--seed", seed]);
      return stderr.split("\n").filter((line) => line.includes("script: tcp:"));
    };
    const [once, again, other] = [await drawn("7"), await drawn("7"), await drawn("8")];
    expect(once).toHaveLength(10);
    expect(again).toEqual(once);
    expect(other).not.toEqual(once);
  });
});

describe("an edit", () => {
  const version = (ms: number): string => `  state: () => ({ edits: 0 }),
  onReload: (old) => ({ edits: (old as { edits: number }).edits + 1 }),
  onOp: (op, ctx) => {
    ctx.metrics.gauge("edits", ctx.state.edits);
    return op.kind === "send" ? { uplink: { latency: "${ms}ms" } } : undefined;
  },`;
  const whole = (body: string): string =>
    `import { policy } from "mishap/script";\nexport default policy({\n  name: "tried",\n${body}\n});\n`;

  it.each(["in place", "by another file in its place"])("%s is followed; one that is broken is not", async (how) => {
    const path = script(version(10));
    const edit = (text: string): void => {
      const to = how === "in place" ? path : `${path}.new`;
      writeFileSync(to, text);
      if (to !== path) renameSync(to, path);
    };
    const file = join(folder, "edited.json");
    const command = ["python3", EXCHANGES, "60", "50", String(ports[0])];
    const running = startMishap(["run", "--json", file, "--script", path, ...PATIENT, "--", ...command]);
    await until("the program runs", () =>
      childrenOf(running.pid).some((pid) => commandOf(pid).includes("exchanges.py")),
    );
    await pause(800);
    edit(whole(version(30)));
    await pause(1000);
    edit("export default {");
    const { stdout, stderr } = await running.finished;
    const [told]: Told[] = JSON.parse(stdout);
    const took = told?.took ?? [];
    expect(slower(took.slice(0, 5), 9)).toEqual([true, true, true, true, true]);
    expect(slower(took.slice(0, 5), 29)).toEqual([false, false, false, false, false]);
    expect(slower(took.slice(-10), 29)).toEqual(Array.from({ length: 10 }, () => true));
    expect(stderr).toContain(`${path} was edited: it is in force`);
    expect(stderr).toMatch(new RegExp(`${path}:1:\\d+: .*; the script stays as it was`));
    const { script: said } = evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
    expect(said).toMatchObject({ metrics: { edits: 1 }, unserved: 0 });
  });
});

describe("a recording", () => {
  it("has what the script answered, and replays without it", async () => {
    const path = script(`  state: () => ({ connects: 0 }),
  flowState: () => ({ sends: 0 }),
  onFlow: (flow) => (flow.peer.port === Number(${ports[0]}) ? { downlink: { latency: "20ms" } } : undefined),
  onOp(op, ctx) {
    if (op.kind === "connect" && ++ctx.state.connects === 2) return { connectionError: { kind: "refused" } };
    if (op.kind !== "send") return undefined;
    const ms = 40 + 40 * Math.floor(ctx.random() * 2);
    return ++op.flow.state.sends % 2 === 0 ? { uplink: { latency: ms + "ms" } } : { uplink: { rate: "40kbps" } };
  },`);
    const recording = join(folder, "scripted.mishap");
    const recorded = await exchanges(path, 4, ["--record", recording]);
    expect(recorded.said.late + recorded.said.unserved).toBe(0);
    expect(slower(recorded.first.took, 58)).toEqual([false, true, false, true]);
    expect(recorded.second.connect).toBe("ConnectionRefusedError");
    rmSync(path);

    const { stdout, evidence } = await evidenceOf(folder, ["--replay", recording], []);
    const [first, second]: Told[] = JSON.parse(stdout);
    expect(second?.connect).toBe("ConnectionRefusedError");
    first?.took.forEach((each, i) => {
      expect(Math.abs(Number(each) - Number(recorded.first.took[i]))).toBeLessThan(15);
    });
    expect(evidence.replay).toMatchObject({ unmet: 0, unknown: 0 });
    expect(evidence.faults).toMatchObject(recorded.evidence.faults.map(({ fault, applied }) => ({ fault, applied })));
  });
});

/** A script that fails at its n-th send, and how the evidence puts it. */
const failures: [what: string, statement: string, problem: RegExp][] = [
  ["throws", "throw new TypeError('bang');", /bang/],
  ["loops for ever", "for (;;) {}", /did not return within 1000 ms, and its worker was replaced/],
  ["takes all memory", "const all = []; for (;;) all.push(new Array(1e6).fill(1));", /memory/],
  ["ends its process", "process.exit(3);", /cannot end its host/],
  ["returns garbage", "return 5 as never;", /answered a number/],
  ["returns a giant answer", "return { latency: 'x'.repeat(1e7) } as never;", /a giant text/],
  ["returns a promise", "return Promise.resolve({}) as never;", /answered a promise/],
];

describe("a script that is late", () => {
  it("is not waited for: the policy's own fields apply, and it is counted", async () => {
    const path = script(`  onOp(op) {
    if (op.kind !== "send") return undefined;
    for (const start = Date.now(); Date.now() - start < 300; );
    return { uplink: { latency: "900ms" } };
  },`);
    const { first, said, evidence } = await exchanges(
      path,
      3,
      ["--script-patience", "5ms", "--uplink.latency", "20ms"],
      400,
    );
    expect(slower(first.took, 20)).toEqual([true, true, true]);
    expect(slower(first.took, 200)).toEqual([false, false, false]);
    expect(said.late + said.unserved).toBeGreaterThanOrEqual(3);
    expect(evidence.determinism).toMatchObject({
      level: "statistical",
      reason: expect.stringContaining("not answered"),
    });
  });
});

describe("a script that is wrong", () => {
  it.each(failures)("and %s: the program runs on time, and is served again", async (_, statement, problem) => {
    // Once, whatever becomes of the script's state: each exchange is a unit.
    const path = script(`  onOp(op) {
    if (op.kind !== "send") return undefined;
    if (op.unit === 2 && op.flow.peer.port === Number(${ports[0]})) {
      ${statement}
    }
    return { uplink: { latency: "8ms" } };
  },`);
    // 60 exchanges, 25 ms apart, on each connection: a worker is replaced meanwhile.
    const { first, second, said, stderr } = await exchanges(path, 60, ["--script-patience", "50ms"], 25);
    for (const { took } of [first, second]) {
      expect(took.filter((each) => typeof each !== "number" || each > 150)).toEqual([]);
    }
    expect(slower(second.took, 7.5).slice(-10)).toEqual(Array.from({ length: 10 }, () => true));
    expect(said.problems).toMatchObject([{ message: expect.stringMatching(problem), file: path, times: 1 }]);
    const [{ line = 0 } = {}] = said.problems;
    expect(line).toBeGreaterThanOrEqual(4);
    expect(line).toBeLessThanOrEqual(7);
    expect(stderr).toMatch(problem);
  });

  it("is named with its place when it does not load, and nothing is run", async () => {
    const path = script("  onFlow: () => undefined,\n  nme: 5,");
    const { code, stdout, stderr } = await mishap("run", "--script", path, "--", "echo", "ran");
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/script-\d+\.ts:2:\d+: .*unknown field nme/);
  });
});

describe("afterwards", () => {
  it("nothing is left, neither of a run that ended nor of one that was killed", async () => {
    const path = script(`  onFlow: () => ({ latency: "1ms" }),`);
    const project = freshProject();
    const ended = await mishap("run", "--project", project, "--script", path, "--", "true");
    expect(ended.code).toBe(0);
    expect(segmentFiles(project)).toEqual([]);

    const running = startMishap(["run", "--project", project, "--script", path, "--", "sleep", "1.5"]);
    await until("the program runs", () => childrenOf(running.pid).some((pid) => commandOf(pid).startsWith("sleep")));
    const host = childrenOf(running.pid).find((pid) => commandOf(pid).includes("script/host/main.js"));
    expect(segmentFiles(project).filter((name) => name.endsWith(".mailbox"))).toHaveLength(1);
    process.kill(running.pid, "SIGKILL");
    await running.finished;
    await until("the host ended", () => processState(Number(host)) === undefined);
    await until("the janitor cleaned up", () => segmentFiles(project).length === 0, 10_000);
  });
});

function childrenOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
  } catch {
    return [];
  }
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}
