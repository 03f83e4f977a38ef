// Programs of the matrix: started bare or under mishap, watched for the processor time they take, ended with all they
// started. One step of the matrix is one Stage: its programs, and a folder of its own that goes with them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const mishap = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));

const ENVIRONMENT = {
  LC_ALL: "C.UTF-8",
  NO_PROXY: "*",
  no_proxy: "*",
  PGSSLMODE: "disable",
  PGGSSENCMODE: "disable",
};

/** How long anything may take that should take seconds. */
const PATIENCE_MS = 60_000;
const SAMPLED_EVERY_MS = 100;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A port that nothing listens on at the moment. */
export async function freePort() {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

async function accepts(port) {
  const socket = connect(port, "127.0.0.1");
  const answered = await Promise.race([once(socket, "connect"), sleep(2000)]).then(Boolean, () => false);
  socket.destroy();
  return answered;
}

const text = (path) => {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it ended meanwhile
  }
};
const names = (path) => {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
};

/** Every process, by the process that started it: [pid, name]. */
function children() {
  const all = new Map();
  for (const name of names("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const found = /^\d+ \((.*)\) \S (\d+)/s.exec(text(`/proc/${name}/stat`));
    if (found === null) continue;
    const parent = Number(found[2]);
    all.set(parent, [...(all.get(parent) ?? []), [Number(name), found[1]]]);
  }
  return all;
}

/** Processor time of a group of processes, to the nanosecond, where /proc/PID/stat has ticks of 10 ms. */
class Meter {
  #byThread = new Map(); // the last that was seen of each: threads and processes that ended keep what they took

  /** Looks at the processes; returns what they and those before them have taken, in ms. */
  read(pids) {
    for (const pid of pids) {
      for (const tid of names(`/proc/${pid}/task`)) {
        const ns = text(`/proc/${pid}/task/${tid}/schedstat`).split(" ")[0];
        if (ns !== "") this.#byThread.set(tid, Number(ns) / 1e6);
      }
    }
    return [...this.#byThread.values()].reduce((sum, ms) => sum + ms, 0);
  }
}

/** A started program. */
class Program {
  said = "";
  complained = "";
  #child;
  #endSignal;
  #closed;
  #watched;
  #samples = [];
  #timer;
  #scans = 0;
  #meters = { program: new Meter(), courier: new Meter() };

  constructor(command, { underMishap, user = [], stdin = "ignore", endSignal = "SIGTERM", cwd, onLine }) {
    this.underMishap = underMishap;
    this.#endSignal = endSignal;
    // Whatever becomes of this process, the programs do not outlive it.
    this.#child = spawn("setpriv", [`--pdeathsig=${endSignal.slice(3)}`, ...user, "--", ...command], {
      stdio: [stdin, "pipe", "pipe"],
      cwd,
      detached: true, // a terminal's Ctrl-C comes to us, and we end what we started
      env: { ...process.env, ...ENVIRONMENT },
    });
    this.#child.stdin?.on("error", () => {});
    let rest = "";
    this.#child.stdout.setEncoding("utf8").on("data", (data) => {
      this.said += data;
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      for (const line of lines) onLine?.(line);
    });
    this.#child.stderr.setEncoding("utf8").on("data", (data) => {
      this.complained += data;
    });
    this.#closed = new Promise((resolve) => {
      this.#child.once("error", (error) => resolve({ error }));
      this.#child.once("close", (code, signal) => resolve({ code, signal }));
    });
  }

  get pid() {
    return this.#child.pid;
  }

  get running() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Notes from now on, a few times a second, what processor time the program and its descendants have taken. */
  watch() {
    this.#sample();
    this.#timer = setInterval(() => this.#sample(), SAMPLED_EVERY_MS);
  }

  #sample() {
    // Looking for new processes costs more than reading the known ones; the set is settled while requests run.
    if (this.#scans++ % 4 === 0) this.#watched = this.#processes();
    const { program, courier } = this.#meters;
    const atMs = Date.now();
    const [programMs, courierMs] = [program.read(this.#watched.program), courier.read(this.#watched.courier)];
    this.#samples.push({ atMs, programMs, courierMs });
  }

  #processes() {
    const all = children();
    const found = { program: [], courier: [] };
    const add = (pid) => {
      found.program.push(pid);
      for (const [child] of all.get(pid) ?? []) add(child);
    };
    if (!this.underMishap) add(this.pid);
    else {
      for (const [pid, name] of all.get(this.pid) ?? []) {
        if (name.startsWith("mishap-cour")) found.courier.push(pid);
        else if (!name.startsWith("mishap-")) add(pid);
      }
    }
    return found;
  }

  /** The memory that the program and its descendants hold now, and the courier, in kB. */
  residentKb() {
    const resident = (pids) =>
      pids.reduce((sum, pid) => sum + Number(/^VmRSS:\s+(\d+)/m.exec(text(`/proc/${pid}/status`))?.[1] ?? 0), 0);
    const { program, courier } = this.#processes();
    return { program: resident(program), courier: resident(courier) };
  }

  /** What it took between two moments, as the samples inside them have it. */
  taken(fromMs, toMs) {
    const inside = this.#samples.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
    const [first, last] = [inside[0], inside.at(-1)];
    if (first === undefined || last === first) throw new Error("it ran too short to see what processor time it took");
    return {
      fromMs: first.atMs,
      toMs: last.atMs,
      programMs: last.programMs - first.programMs,
      courierMs: last.courierMs - first.courierMs,
    };
  }

  /** Closes its stdin: for those that this tells to end. */
  closeStdin() {
    this.#child.stdin.end();
  }

  /** Waits for its end; throws unless it ended well. */
  async finish() {
    const overdue = setTimeout(() => this.#kill(), PATIENCE_MS);
    const { code, error } = await this.#closed;
    clearTimeout(overdue);
    clearInterval(this.#timer);
    const words = this.complained.trim().split("\n").slice(-3).join("; ");
    if (error || code !== 0)
      throw new Error(error?.message ?? `it ended with ${code ?? "a signal, overdue"}: ${words}`);
    return this.said;
  }

  /** Ends it, whatever it is doing. */
  async stop() {
    clearInterval(this.#timer);
    if (this.running) this.#child.kill(this.#endSignal);
    const overdue = setTimeout(() => this.#kill(), 5000);
    await this.#closed;
    clearTimeout(overdue);
  }

  #kill() {
    // Under mishap the program has to go first; mishap then cleans up and goes.
    const pids = this.underMishap ? this.#processes().program : [this.pid];
    for (const pid of pids.length > 0 ? pids : [this.pid]) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It went by itself.
      }
    }
  }
}

const stages = new Set();
let ending = false; // from then on nothing is started any more
function assertGoingOn() {
  if (ending) throw new Error("interrupted");
}

/** Where one step of the matrix runs. `flags` are mishap's; undefined: everything runs bare. */
export class Stage {
  #flags;
  #programs = [];
  #evidence;

  constructor(flags) {
    assertGoingOn();
    this.folder = mkdtempSync(join(tmpdir(), "mishap-matrix-"));
    this.#evidence = join(this.folder, "evidence.json");
    this.#flags = flags;
    chmodSync(this.folder, 0o1777); // servers that leave root behind have their files here
    stages.add(this);
  }

  /** Starts the program under test: the one that runs under mishap when the stage has flags. */
  startSubject(command, options = {}) {
    if (this.#flags === undefined) return this.start(command, options);
    // PostgreSQL refuses to be root, and a run belongs to one user: so mishap runs as the user that the program needs.
    const run = [process.execPath, mishap, "run", "--quiet", "--json", this.#evidence, ...this.#flags, "--"];
    return this.#add([...run, ...command], { ...options, underMishap: true });
  }

  /** Starts a program bare. */
  start(command, options = {}) {
    return this.#add(command, { ...options, underMishap: false });
  }

  #add(command, options) {
    assertGoingOn();
    const program = new Program(command, options);
    this.#programs.push(program);
    return program;
  }

  /** Waits until a server accepts connections. */
  async accepting(server, port) {
    for (const deadline = performance.now() + 20_000; !(await accepts(port)); await sleep(50)) {
      if (server.running && performance.now() < deadline) continue;
      throw new Error(`the server did not start: ${server.complained.trim().split("\n").slice(-3).join("; ")}`);
    }
  }

  /** Ends everything; returns what mishap's evidence says of calls that it could not handle as asked. */
  async end() {
    await Promise.all(this.#programs.map((program) => program.stop()));
    const evidence = existsSync(this.#evidence) ? JSON.parse(readFileSync(this.#evidence, "utf8")) : {};
    this.remove();
    const fallbacks = Object.entries(evidence.fallbacks ?? {}).map(([reason, count]) => `${reason} ${count}`);
    return [...fallbacks, ...(evidence.notes ?? [])];
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true });
    stages.delete(this);
  }

  async abandon() {
    await Promise.all(this.#programs.map((program) => program.stop()));
    this.remove();
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, async () => {
    ending = true;
    await Promise.all([...stages].map((stage) => stage.abandon()));
    process.exit(130);
  });
}
