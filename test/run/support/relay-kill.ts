// What becomes of conversations when what carries them goes away at some moment, or stands still: no wrong byte, no end that
// looks like the peer's, nobody who waits for long; and afterwards nothing is left.
import { readdirSync, readFileSync } from "node:fs";
import { expect } from "vitest";
import { z } from "zod";
import { freshProject, type Running, start, startMishap, until } from "../cli-harness.js";
import { users } from "./jail.js";
import { cgroupsOf, heldBy, loaded, processesNamed } from "./kernel.js";
import { unreachable } from "./user-folder.js";

export type Victim = "relay" | "loader";
export type Way = "SIGKILL" | "SIGSTOP";

const CLIENTS = 8;
const PATIENCE_MS = 2500;
/** What a new connection meets at most, as the promise is; and what a machine with other work may add to that. */
const DIRECT_WITHIN_MS = 600;
const SLACK_MS = 900;
const LATEST_MS = 700;

/** The kinds of moments, so many of each. */
export function disturbances(count: number): [Victim, Way, number][] {
  const victims: Victim[] = ["relay", "loader"];
  const ways: Way[] = ["SIGKILL", "SIGSTOP"];
  const each = victims.flatMap((victim) => ways.map((way): [Victim, Way] => [victim, way]));
  return Array.from({ length: count }, (_, at) =>
    each.map(([victim, way]): [Victim, Way, number] => [victim, way, at]),
  ).flat();
}

const account = z.object({
  went_well: z.int(),
  wrong: z.int(),
  longest_ms: z.number(),
  errors: z.record(z.string(), z.int()),
});

/** The peer of blocks.c, outside mishap. */
export class BlocksPeer {
  readonly #server: Running;
  #said = "";

  constructor(readonly program: string) {
    this.#server = start(program, ["serve"]);
    this.#server.child.stdout?.on("data", (data) => {
      this.#said += data;
    });
  }

  async port(): Promise<string> {
    await this.#server.says("\n");
    return this.#said.split("\n")[0] ?? "";
  }

  /** What it saw that must not be. */
  get wrong(): string[] {
    return this.#said.split("\n").filter((line) => line.startsWith("wrong"));
  }
}

/** Kills or stops a part of a run under load, at a random moment, and holds what comes of it to the promises. */
export async function disturb(victim: Victim, way: Way, peer: BlocksPeer, at: number): Promise<void> {
  const project = freshProject();
  const port = await peer.port();
  const [, user] = users();
  // Every other time the run is another user's, whose relay the loader has no more rights over than it kept.
  const other = at % 2 === 1 && user !== undefined && unreachable(user) === undefined;
  const env = other ? { SUDO_UID: `${user.uid}`, SUDO_GID: `${user.gid}`, SUDO_USER: user.name } : {};
  const words = ["--kernel", "--executor", "relay", "--quiet", "--project", project, "--latency", "3ms"];
  const command = [peer.program, port, String(CLIENTS), String(PATIENCE_MS)];
  const run = startMishap(["run", ...words, "--jitter", "2ms", "--", ...command], { env });
  let said = "";
  run.child.stdout?.on("data", (data) => {
    said += data;
  });
  const soFar = (): number => Number(said.trim().split("\n").at(-1) ?? 0);
  await until("conversations go well", () => soFar() > CLIENTS, 20_000);
  const moment = Math.random() * LATEST_MS;
  await pause(moment);

  const [loader, relay] = [pidOf("mishap-loader", project), pidOf("mishap-relay", project)];
  const target = programOf(command);
  const held = heldBy(loader);
  const hit = victim === "relay" ? relay : loader;
  process.kill(hit, way);
  await pause(DIRECT_WITHIN_MS + 2 * SLACK_MS * Math.random());
  if (way === "SIGSTOP") wake(hit);
  const before = soFar();
  await until(`new conversations go well (after ${moment.toFixed(1)} ms)`, () => soFar() > before + CLIENTS, 10_000);
  process.kill(target, "SIGTERM");
  const { stdout } = await run.finished;

  const told = account.parse(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""));
  expect({ wrong: told.wrong, peer: peer.wrong }).toEqual({ wrong: 0, peer: [] });
  // Nobody's own patience was needed: what went away says so.
  const known = new Set(["ECONNRESET", "ECONNREFUSED", "EPIPE", "ENOTCONN"]);
  expect(Object.keys(told.errors).filter((name) => !known.has(name))).toEqual([]);
  if (victim === "loader" && way === "SIGSTOP") expect(told.errors).toEqual({});
  expect(told.longest_ms).toBeLessThan(DIRECT_WITHIN_MS + SLACK_MS);

  await until("the loader leaves", () => !speaksOf(loader, project));
  await until("the relay leaves", () => !speaksOf(relay, project));
  await until("nothing stays loaded", () => ![...loaded().keys()].some((id) => held.has(id)));
  await until("its cgroup is removed", () => cgroupsOf(loader).length === 0);
  await until("its keeper leaves", () => !processesNamed("mishap-keeper").some((pid) => speaksOf(pid, project)));
  await until("no file stays", () => !readdirSync("/dev/shm").some((name) => name.includes(`-${project}-`)));
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function wake(pid: number): void {
  try {
    process.kill(pid, "SIGCONT");
  } catch {
    // it was given up meanwhile
  }
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").slice(0, -1);
  } catch {
    return []; // it is gone
  }
}

const speaksOf = (pid: number, project: string): boolean => commandLine(pid).some((word) => word.includes(project));

function pidOf(name: string, project: string): number {
  const pid = processesNamed(name).find((each) => speaksOf(each, project));
  if (pid === undefined) throw new Error(`there is no ${name}`);
  return pid;
}

function programOf(command: readonly string[]): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const pid = pids.map(Number).find((each) => commandLine(each).join(" ") === command.join(" "));
  if (pid === undefined) throw new Error("the program is not there");
  return pid;
}
