// mishap observe: what it tells of real flows, how it ends, and that nothing of it stays.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ObservedFlow, observedFlowSchema } from "../../src/report/observed.js";
import {
  type Finished,
  MISHAP,
  mishap,
  processState,
  scratchFolder,
  start,
  startMishap,
  until,
} from "./cli-harness.js";
import { heldBy, loaded, needsKernel, processesNamed } from "./support/kernel.js";

const folder = scratchFolder();

/**
 * A server and its client in one process. A connection hums along from the start, so that a watch shows it as soon as it
 * begins. "go": another connection sends 40,000 bytes and gets them back; "end" closes it.
 */
const PROGRAM = `
import os, select, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
def echo(s):
  while data := s.recv(65536): s.sendall(data)
  s.close()
def serve():
  while True: threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
connect = lambda: socket.create_connection(listener.getsockname())
hum = connect()
print(os.getpid(), flush=True)
while True:
  hum.sendall(b"h"); hum.recv(1)
  if not select.select([0], [], [], 0.02)[0]: continue
  order = sys.stdin.readline().strip()
  if order == "go":
    s = connect()
    s.sendall(b"x" * 40000)
    left = 40000
    while left: left -= len(s.recv(left))
    print("went", s.getsockname()[1], flush=True)
  elif order == "end": s.close()
  else: break
`;

interface Program {
  readonly pid: number;
  /** Gives it an order; answers the line it says then, if it says one. */
  order(words: "go"): Promise<string>;
  tell(words: "end" | "quit"): void;
}
const programs = new Set<() => void>();
afterEach(() => {
  for (const end of programs) end();
  programs.clear();
});

async function startProgram(prefix: readonly string[] = []): Promise<Program> {
  const [command = "", ...args] = [...prefix, "python3", "-c", PROGRAM];
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  programs.add(() => child.stdin.end()); // which ends it
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => String((await lines.next()).value);
  return {
    pid: Number(await next()),
    order: async (words) => {
      child.stdin.write(`${words}\n`);
      return await next();
    },
    tell: (words) => {
      child.stdin.write(`${words}\n`);
    },
  };
}

/** What a watch said, every line held to the published schema. */
function flowsOf({ stdout }: Finished): ObservedFlow[] {
  const lines = stdout.split("\n").filter((line) => line !== "");
  return lines.map((line) => observedFlowSchema.parse(JSON.parse(line)));
}

/** The loader that a watch started. */
function loaderOf(program: Program): number {
  const commandLine = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
  const loader = processesNamed("mishap-loader").find((pid) => commandLine(pid).includes(String(program.pid)));
  if (loader === undefined) throw new Error("the watch has no loader");
  return loader;
}

async function watchToTheEnd(scope: readonly string[], program: Program): Promise<ObservedFlow[]> {
  const watch = startMishap(["observe", ...scope, "--json", "--interval", "100ms"]);
  await watch.says(`"pid":${program.pid},`);
  const [, port] = (await program.order("go")).split(" ");
  await watch.says(`"local":"127.0.0.1:${port}"`);
  program.tell("end");
  await watch.says(`"open":false,"tcp_state":"CLOSE","local":"127.0.0.1:${port}"`);
  program.tell("quit");
  await until("the program ends", () => processState(program.pid) === undefined);
  process.kill(watch.pid, "SIGTERM");
  return flowsOf(await watch.finished).filter(({ local }) => local === `127.0.0.1:${port}`);
}

describe("mishap observe --json", () => {
  beforeEach(needsKernel);

  it.each([
    ["--pid", (pid: number) => ["--pid", String(pid)]],
    ["--all", () => ["--all"]],
    ["--cgroup", (pid: number) => ["--cgroup", cgroupOf(pid)]],
    ["no scope at all", () => []],
  ] as const)("with %s tells of a flow while it is open and once when it is closed, to the byte", async (_, scope) => {
    const program = await startProgram();
    const looks = await watchToTheEnd(scope(program.pid), program);
    const last = looks.pop();
    expect(new Set(looks.map(({ open }) => open))).toEqual(new Set([true]));
    expect(last).toMatchObject({ open: false, tcp_state: "CLOSE", bytes_up: 40_000, bytes_down: 40_000 });
    for (const look of [...looks, last]) {
      expect(look).toMatchObject({
        cookie: last?.cookie,
        pid: program.pid,
        program: "python3",
        state: "escaped",
        protocol: "tcp",
        role: "connector",
      });
    }
    const moved = looks.find(({ bytes_up_per_s }) => bytes_up_per_s > 0) ?? last;
    expect(moved?.bytes_up_per_s).toBeGreaterThan(40_000); // in a look of about 100 ms
  });

  it("names flows intercepted that a run's program opens", async () => {
    const program = await startProgram([process.execPath, MISHAP, "run", "--quiet", "--"]);
    const looks = await watchToTheEnd(["--pid", String(program.pid)], program);
    expect(looks.length).toBeGreaterThan(1);
    expect(new Set(looks.map(({ state }) => state))).toEqual(new Set(["intercepted"]));
  });

  it("ends with the process that is watched, and says so", async () => {
    const program = await startProgram();
    const watch = startMishap(["observe", "--pid", String(program.pid), "--json", "--interval", "100ms"]);
    await watch.says(`"pid":${program.pid},`);
    program.tell("quit");
    const end = await watch.finished;
    expect(end).toMatchObject({ code: 0, stderr: `mishap: pid ${program.pid} ended, and the watch with it\n` });
    expect(flowsOf(end).at(-1)?.open).toBe(false);
  });

  it("ends after --duration", async () => {
    const program = await startProgram();
    const end = await mishap("observe", "--pid", String(program.pid), "--json", "--duration", "300ms");
    expect(end).toMatchObject({ code: 0, stderr: "" });
    expect(flowsOf(end).length).toBeGreaterThan(0); // the last look is taken at the end, before the first second is over
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
    ["SIGKILL", "SIGKILL"],
  ] as const)("leaves nothing behind after %s", async (signal, code) => {
    const program = await startProgram();
    const watch = startMishap(["observe", "--pid", String(program.pid), "--json", "--interval", "100ms"]);
    await watch.says(`"pid":${program.pid},`);
    const loader = loaderOf(program);
    const held = heldBy(loader);
    expect([...held].filter((id) => id.startsWith("prog:")).length).toBeGreaterThan(5);
    process.kill(watch.pid, signal);
    expect((await watch.finished).code).toBe(code);
    await until("the loader ends", () => ["Z", "X", undefined].includes(processState(loader)));
    await until("all it loaded is gone", () => [...loaded().keys()].every((id) => !held.has(id)));
  });

  it("ends quietly when nobody reads any more", async () => {
    const program = await startProgram();
    const piped = `"$0" "$1" observe --pid ${program.pid} --json --interval 100ms | head -n 1; echo "\${PIPESTATUS[0]}"`;
    const end = await start("bash", ["-c", piped, process.execPath, MISHAP]).finished;
    expect(end).toMatchObject({ code: 0, stderr: "" });
    expect(end.stdout).toMatch(/^\{.*\}\n0\n$/);
  });
});

/** The folder of a process's cgroup (version 2). */
function cgroupOf(pid: number): string {
  const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "latin1"))?.[1];
  const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "latin1"))?.[1];
  return join(mount ?? "", path ?? "");
}

describe("mishap observe on a terminal", () => {
  beforeEach(needsKernel);
  const ENTER = "\u001b[?1049h";
  const LEAVE = "\u001b[?25h\u001b[?1049l";

  interface Terminal {
    press(key: string): void;
    shows(text: string): Promise<void>;
    /** The watch's. */
    pid(): number;
    end(): Promise<{ shown: string; modes: string[] }>;
  }

  /** Starts a watch on a terminal of its own, which leaves its modes before and after in two files. */
  function onTerminal(program: Program, env: object = {}): Terminal {
    const file = (name: string): string => join(folder, `${program.pid}-${name}`);
    const watch = `echo $$ >${file("pid")}; exec ${process.execPath} ${MISHAP} observe --pid ${program.pid} --interval 100ms`;
    const script = `stty -a >${file("before")}; sh -c '${watch}'; echo "code $?"; stty -a >${file("after")}`;
    const child = spawn("script", ["-qec", script, "/dev/null"], {
      env: { ...process.env, TERM: "xterm-256color", NO_COLOR: "", ...env },
      stdio: ["pipe", "pipe", "inherit"],
    });
    let shown = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      shown += text;
    });
    programs.add(() => child.kill());
    const ended = once(child, "close");
    return {
      press: (key) => {
        child.stdin.write(key);
      },
      shows: (text) => until(`the terminal shows ${text}`, () => shown.includes(text)),
      pid: () => Number(readFileSync(file("pid"), "latin1")),
      end: async (): Promise<{ shown: string; modes: string[] }> => {
        await ended;
        const modes = ["before", "after"].map((name) => readFileSync(file(name), "latin1"));
        return { shown, modes };
      },
    };
  }

  const WAYS_OUT: readonly [string, (terminal: Terminal) => void, number][] = [
    ["q", ({ press }) => press("q"), 0],
    ["Control-C", ({ press }) => press("\u0003"), 130],
    ["SIGTERM", ({ pid }) => process.kill(pid(), "SIGTERM"), 143],
    ["SIGQUIT", ({ pid }) => process.kill(pid(), "SIGQUIT"), 131],
  ];
  it.each(WAYS_OUT)("gives the terminal back as it was after %s", async (_, leave, code) => {
    const program = await startProgram();
    const terminal = onTerminal(program);
    await terminal.shows("python3");
    leave(terminal);
    const { shown, modes } = await terminal.end();
    expect(shown.indexOf(ENTER)).toBeGreaterThanOrEqual(0);
    expect(shown.lastIndexOf(LEAVE)).toBeGreaterThan(shown.lastIndexOf("PROGRAM"));
    expect(shown.slice(shown.lastIndexOf(LEAVE) + LEAVE.length)).toContain(`code ${code}`);
    expect(modes[1]).toBe(modes[0]);
  });

  it("shows flows with owner and state, sorts by what s chooses, and pauses", async () => {
    const program = await startProgram();
    const terminal = onTerminal(program);
    await terminal.shows(`${program.pid}`);
    await terminal.shows("\u001b[33mescaped");
    terminal.press("s");
    await terminal.shows("sorted by bytes");
    terminal.press("p");
    await terminal.shows("paused");
    terminal.press("q");
    expect((await terminal.end()).shown).toContain("code 0");
  });

  it("uses no colours where NO_COLOR asks for none", async () => {
    const program = await startProgram();
    const terminal = onTerminal(program, { NO_COLOR: "1" });
    await terminal.shows("python3");
    terminal.press("q");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: this is how a terminal is told a colour
    expect((await terminal.end()).shown).not.toMatch(/\u001b\[\d+m/);
  });
});

describe("mishap observe says in a sentence", () => {
  const code = (...args: string[]) => mishap("observe", ...args);

  it.each([
    [["--pid", "abc"], "--pid abc: is no process's number, such as --pid 4242"],
    [["--pid", "999999999"], "--pid 999999999: there is no such process; `ps -e` lists those there are"],
    [
      ["--cgroup", "/sys/fs/no-such"],
      /^--cgroup \/sys\/fs\/no-such: there is no such cgroup; one is a folder such as \//,
    ],
    [["--cgroup", "/tmp"], /^--cgroup \/tmp: this is no cgroup of version 2; one is a folder such as \//],
    [["--pid", "1", "--all"], "--pid and --all: one of them says what is watched, such as --pid alone"],
    [["--interval", "1ms"], "--interval 1ms: must be at least 100ms, such as 1s"],
    [["--interval", "soon"], /^--interval soon: /],
    [["--duration", "0s"], "--duration 0s: must be at least 100ms, such as 10s"],
    [["extra"], "observe: too many arguments; `mishap observe --help` shows which it takes"],
  ] as const)("what is wrong with %j", async (args, sentence) => {
    const { code: exit, stdout, stderr } = await code(...args);
    expect({ exit, stdout }).toEqual({ exit: 2, stdout: "" });
    expect(stderr).toMatch(/^mishap: [^\n]+\n$/);
    expect(stderr.slice("mishap: ".length, -1)).toMatch(sentence);
  });

  it("that it has not the rights", async ({ skip }) => {
    if (process.getuid?.() !== 0) skip("taking root's capabilities away needs root");
    const end = await start("setpriv", ["--bounding-set=-all", process.execPath, MISHAP, "observe", "--json"]).finished;
    expect(end).toMatchObject({ code: 125, stdout: "" });
    expect(end.stderr).toBe(
      "mishap: the kernel's witness is not to be had: loading the kernel's programs needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN\n",
    );
  });

  it("that there is no sudo to ask", async ({ skip }) => {
    if (process.getuid?.() !== 0) skip("running as another user needs root");
    const asNobody = ["--reuid=65534", "--regid=65534", "--clear-groups", process.execPath];
    const reachable = await start("setpriv", [...asNobody, "-e", `require("fs").accessSync("${MISHAP}")`]).finished;
    if (reachable.code !== 0) skip("another user cannot read this folder");
    const env = { PATH: "/nowhere" };
    const end = await start("/usr/bin/setpriv", [...asNobody, MISHAP, "observe", "--json"], { env }).finished;
    expect(end).toMatchObject({ code: 125, stdout: "" });
    expect(end.stderr).toMatch(
      /^mishap: the kernel's witness is not to be had: it needs root, and sudo is not [^\n]+\n$/,
    );
  });
});
