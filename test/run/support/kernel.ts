// What the tests of the kernel's side share: whether it can be had here, the programs that a preload cannot see, the
// peer that they exchange bytes with, and what is loaded into the kernel at a moment.
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, type TestContext } from "vitest";
import { z } from "zod";
import { nativeFolder } from "../../../src/segment/native.js";

const sources = fileURLToPath(new URL("../../programs/kernel/", import.meta.url));
const native = fileURLToPath(new URL("../../../native/", import.meta.url));
const LOADER = join(nativeFolder, "mishap-loader");

// ---- whether it can be had -----------------------------------------------------------------------------------------

const probeAnswer = z.object({
  facts: z.object({ btf: z.boolean(), cgroup2: z.string().nullable(), rights: z.boolean() }),
  hooks: z.array(z.object({ name: z.string(), for: z.string(), ok: z.boolean(), reason: z.string().optional() })),
});

/** Without these nothing of what the tests ask for can be told. */
const NEEDED = ["ownership", "claims", "bytes", "states"];

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return "loading programs into the kernel needs root";
  if (!existsSync(LOADER)) return "mishap-loader was not built: it needs clang, bpftool and libbpf-dev";
  const { status, stdout, stderr } = spawnSync(LOADER, ["probe"], { encoding: "utf8", timeout: 60_000 });
  if (status !== 0) return `mishap-loader does not start: ${stderr.trim()}`;
  const { facts, hooks } = probeAnswer.parse(JSON.parse(stdout));
  if (!facts.btf) return "this kernel has no BTF";
  if (!facts.rights) return "this root may not load programs into the kernel";
  if (facts.cgroup2 === null) return "cgroup2 is not mounted";
  const lacking = hooks.find((hook) => !hook.ok && NEEDED.includes(hook.for));
  return lacking && `${lacking.name} cannot be used: ${lacking.reason}`;
}

const reason = whyNot();
/** Whether the kernel's side can be had here. */
export const kernelWorks = reason === undefined;

/** Skips a test, with the reason, where the kernel's side cannot be had. For beforeEach. */
export function needsKernel({ skip }: Pick<TestContext, "skip">): void {
  if (reason !== undefined) skip(reason);
}

/** Whether programs get sockets of MPTCP here. */
export function hasMptcp(): boolean {
  const enabled = "/proc/sys/net/mptcp/enabled";
  return existsSync(enabled) && readFileSync(enabled, "utf8") === "1\n";
}

// ---- programs ------------------------------------------------------------------------------------------------------

const C = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror"];
const CPP = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", `-I${native}`];
const GO = { GOFLAGS: "-mod=mod", GOPROXY: "off" };

/** How each program is built; `OUT` stands for where it goes. */
const BUILDS = {
  client: { command: "gcc", args: [...C, "-o", "OUT", "client.c"], env: {} },
  static: { command: "gcc", args: [...C, "-static", "-o", "OUT", "client.c"], env: {} },
  mixed: { command: "gcc", args: [...C, "-o", "OUT", "mixed.c"], env: {} },
  uring: { command: "gcc", args: [...C, "-o", "OUT", "uring.c", "-luring"], env: {} },
  "go-static": { command: "go", args: ["build", "-o", "OUT", "client.go"], env: { ...GO, CGO_ENABLED: "0" } },
  "go-again": {
    command: "go",
    args: ["build", "-o", "OUT", "again.go"],
    env: { ...GO, CGO_ENABLED: "0" },
  },
  "go-dynamic": {
    command: "go",
    args: ["build", "-ldflags=-linkmode=external", "-o", "OUT", "client.go"],
    env: { ...GO, CGO_ENABLED: "1" },
  },
  "static-server": { command: "gcc", args: [...C, "-static", "-o", "OUT", "server.c"], env: {} },
  "uring-server": { command: "gcc", args: [...C, "-o", "OUT", "uring-server.c", "-luring"], env: {} },
  "go-server": { command: "go", args: ["build", "-o", "OUT", "server.go"], env: { ...GO, CGO_ENABLED: "0" } },
  "datagrams-static": { command: "gcc", args: [...C, "-static", "-o", "OUT", "datagrams.c"], env: {} },
  "datagrams-go": {
    command: "go",
    args: ["build", "-o", "OUT", "datagrams.go"],
    env: { ...GO, CGO_ENABLED: "0" },
  },
  owners: { command: "g++", args: [...CPP, "-o", "OUT", "owners.cpp", "-pthread"], env: {} },
  hostile: { command: "g++", args: [...CPP, "-o", "OUT", "hostile.cpp"], env: {} },
} as const;

/** A program of test/programs/kernel, as one of the ways it is built. */
export type Program = keyof typeof BUILDS;

/** Builds a program into a folder and answers its path. */
export async function build(folder: string, program: Program): Promise<string> {
  const { command, args, env } = BUILDS[program];
  const path = join(folder, program);
  await promisify(execFile)(
    command,
    args.map((arg) => (arg === "OUT" ? path : arg)),
    { cwd: sources, env: { ...process.env, GOCACHE: join(folder, "go-cache"), ...env } },
  );
  return path;
}

/** Why a program cannot be built here; undefined when it can. */
export function cannotBuild(program: Program): string | undefined {
  if (spawnSync(BUILDS[program].command, ["--help"]).error) return `${BUILDS[program].command} is not installed`;
  if (program.startsWith("uring") && !existsSync("/usr/include/liburing.h")) return "liburing-dev is not installed";
  return undefined;
}

/** What a program moved in one way of making the calls, by its own account. */
export interface Moved {
  readonly way: string;
  readonly pid: number;
  readonly flows: number;
  readonly up: number;
  readonly down: number;
}

const moved = z.object({
  way: z.string(),
  pid: z.int(),
  flows: z.int(),
  up: z.int(),
  down: z.int(),
});

/** The lines that the exchanging programs print. */
export function movedBy(stdout: string): Moved[] {
  const lines = stdout.split("\n").filter((line) => line.startsWith('{"way"'));
  return lines.map((line) => moved.parse(JSON.parse(line)));
}

/** A peer outside mishap: takes so many bytes of each connection, then gives so many. */
export class ExchangePeer {
  readonly up: number;
  readonly down: number;
  /** Of all connections. */
  received = 0;
  #port = 0;

  private constructor(up: number, down: number) {
    this.up = up;
    this.down = down;
  }

  static async start(up: number, down: number): Promise<ExchangePeer> {
    const peer = new ExchangePeer(up, down);
    const server = createServer((socket) => {
      let came = 0;
      socket.on("error", () => {}); // a program that was killed
      socket.on("data", (bytes) => {
        came += bytes.length;
        peer.received += bytes.length;
        if (came === up) socket.write(Buffer.alloc(down));
      });
    });
    afterAll(() => {
      server.close();
    });
    peer.#port = await new Promise<number>((resolve) => {
      server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
    });
    return peer;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** The arguments that have a program exchange with this peer. */
  exchange(connections: number, lingerMs = 0): string[] {
    return [this.#port, connections, this.up, this.down, lingerMs].map(String);
  }
}

// ---- what is loaded ------------------------------------------------------------------------------------------------

/** Kinds of kernel objects, as bpftool and /proc/PID/fdinfo name them. */
const KINDS = ["prog", "map", "link"] as const;

const listed = z.array(z.object({ id: z.int(), name: z.string().optional() }));

/** What is loaded into the kernel, `kind:id` with the name that it has. */
export function loaded(): Map<string, string> {
  const found = new Map<string, string>();
  for (const kind of KINDS) {
    const { status, stdout, stderr } = spawnSync("bpftool", ["-j", kind, "show"], { encoding: "utf8" });
    // One that goes while it is listed is no error of ours.
    if (status !== 0 && !stdout.startsWith("[")) throw new Error(`bpftool ${kind} show: ${stderr}`);
    const objects = listed.safeParse(JSON.parse(stdout));
    for (const { id, name = "" } of objects.data ?? []) found.set(`${kind}:${id}`, name);
  }
  return found;
}

/** What a process holds of it, as `kind:id`. */
export function heldBy(pid: number): Set<string> {
  const held = new Set<string>();
  const folder = `/proc/${pid}/fdinfo`;
  for (const fd of namesIn(folder)) {
    const text = textOf(join(folder, fd));
    for (const kind of KINDS) {
      const id = new RegExp(`^${kind}_id:\\s*(\\d+)$`, "m").exec(text)?.[1];
      if (id !== undefined) held.add(`${kind}:${id}`);
    }
  }
  return held;
}

/** What of mishap's is loaded and held by no living loader. */
export function orphans(): string[] {
  const ours = [...loaded()].filter(([, name]) => name.startsWith("mishap_"));
  const held = new Set(processesNamed("mishap-loader").flatMap((pid) => [...heldBy(pid)]));
  return ours.filter(([id]) => !held.has(id)).map(([id, name]) => `${id} ${name}`);
}

/** Pids of the processes with such a name. */
export function processesNamed(name: string): number[] {
  const pids = namesIn("/proc").filter((entry) => /^\d+$/.test(entry));
  return pids.map(Number).filter((pid) => textOf(`/proc/${pid}/comm`).trim() === name);
}

/** Processes that carry a project's connections. */
export function relaysOf(project: string): number[] {
  return processesNamed("mishap-relay").filter((pid) => textOf(`/proc/${pid}/cmdline`).includes(`-${project}-`));
}

/** Cgroups that a loader made, by its pid. */
export function cgroupsOf(loader: number): string[] {
  const mount = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const root = mount.find((line) => line.split(" ")[2] === "cgroup2")?.split(" ")[1];
  if (root === undefined) return [];
  const within = (folder: string): string[] => {
    const folders = readdirFolders(folder).map((name) => join(folder, name));
    return folders.flatMap((path) => [path, ...within(path)]);
  };
  return within(root).filter((path) => path.includes(`/mishap-${loader}-`));
}

function readdirFolders(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch {
    return []; // it went
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // the process went
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // it went
  }
}
