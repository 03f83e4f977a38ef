// What a killed run leaves behind goes: by its janitor, or at the next start.
import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { codec, nativeFolder, numberOf, Segment, type StructValue, sweep } from "../../../src/segment/index.js";
import { kill9, soon, startOwner, useFolder } from "./support.js";

const folder = useFolder();
const uid = process.geteuid?.();
const nameOf = (suffix: string) => `mishap-${uid}-demo-${suffix}`;

/** Enters a living process into a segment's process table, as an interceptor would. */
function register(path: string, pid: number): void {
  const segment = Segment.open(path);
  const regions = segment.header().regions as StructValue[];
  segment.close({ unlink: false });
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const start = BigInt(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? 0); // field 22; the rest is from 3 on
  const state = numberOf("ProcessState", "attached");
  const folded = { folded_flows: 0n, folded_called: [], folded_adjusted: [] };
  const entry = { state, pid, start, since_ns: 0n, lineage: "0", program: "p", ...folded };
  const file = openSync(path, "r+");
  writeSync(file, codec.encode("Process", entry), 0, null, Number(regions[numberOf("Region", "processes")]?.offset));
  closeSync(file);
}

describe("the sweep of a start", () => {
  it("removes segments of the dead and leaves those of the living", async () => {
    const [dead, deadPath] = await startOwner(folder.path, "stay", nameOf("00000001"));
    const [idle, idlePath] = await startOwner(folder.path, "idle", nameOf("00000002"));
    const [, alivePath] = await startOwner(folder.path, "stay", nameOf("00000003"));
    const [, youngPath] = await startOwner(folder.path, "idle", nameOf("00000004"));
    const [carried, carriedPath] = await startOwner(folder.path, "stay", nameOf("00000005"));
    register(carriedPath, process.pid);
    expect(sweep(folder.path)).toEqual([]);
    await Promise.all([dead, idle, carried].map(kill9));
    expect(sweep(folder.path).toSorted()).toEqual([deadPath, idlePath]);
    expect([alivePath, youngPath, carriedPath].map((path) => existsSync(path))).toEqual([true, true, true]);
  });

  it("happens when a segment is made", async () => {
    const [dead, path] = await startOwner(folder.path, "stay", nameOf("00000001"));
    await kill9(dead);
    const segment = Segment.create({ project: "next", seed: 1n, directory: folder.path });
    expect(existsSync(path)).toBe(false);
    segment.close({ unlink: true });
    expect(readdirSync(folder.path)).toEqual([]);
  });

  it("removes what was never finished once it is old, links whose segment is gone, and nothing else", () => {
    const path = (suffix: string) => join(folder.path, nameOf(suffix));
    for (const name of ["0000000a", "0000000b"]) writeFileSync(path(name), "", { mode: 0o600 });
    utimesSync(path("0000000a"), 1, 1);
    symlinkSync("/nowhere", path("0000000c.so"));
    symlinkSync("/nowhere", path("0000000b.so"));
    writeFileSync(path("0000000d.so"), "not a link");
    writeFileSync(path("notes"), "somebody's");
    expect(sweep(folder.path).toSorted()).toEqual([path("0000000a"), path("0000000c.so")]);
    expect(readdirSync(folder.path)).toHaveLength(4);
  });
});

describe("the janitor", () => {
  const janitorOf = (path: string, run: number) =>
    spawn(`${nativeFolder}mishap-janitor`, [path, String(run)], { stdio: "ignore" });
  const ended = (child: ReturnType<typeof spawn>) => child.exitCode !== null;

  it("removes the segment of a run that was killed", async () => {
    const [run, path] = await startOwner(folder.path, "stay");
    symlinkSync("/nowhere", `${path}.so`);
    const janitor = janitorOf(path, run.pid ?? -1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([existsSync(path), ended(janitor)]).toEqual([true, false]);
    await kill9(run);
    expect(await soon(() => ended(janitor))).toBe(true);
    expect(readdirSync(folder.path)).toEqual([]);
  });

  it("waits for every program that carries the interceptor", async () => {
    const [run, path] = await startOwner(folder.path, "stay");
    const program = spawn("sleep", ["60"], { stdio: "ignore" });
    register(path, program.pid ?? -1);
    const janitor = janitorOf(path, run.pid ?? -1);
    await kill9(run);
    await new Promise((resolve) => setTimeout(resolve, 800));
    expect([existsSync(path), ended(janitor)]).toEqual([true, false]);
    await kill9(program);
    expect(await soon(() => ended(janitor))).toBe(true);
    expect(existsSync(path)).toBe(false);
  });

  it("leaves at once when the run cleaned up by itself", async () => {
    const [run, path] = await startOwner(folder.path, "stay");
    const janitor = janitorOf(path, run.pid ?? -1);
    Segment.open(path).close({ unlink: true });
    await kill9(run);
    expect(await soon(() => ended(janitor), 1000)).toBe(true);
  });

  it("does not die with its run's terminal or by Ctrl-C, and refuses nonsense", async () => {
    const [run, path] = await startOwner(folder.path, "stay");
    const janitor = janitorOf(path, run.pid ?? -1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT"] as const) janitor.kill(signal);
    await kill9(run);
    expect(await soon(() => ended(janitor))).toBe(true);
    expect(janitor.exitCode).toBe(0);

    const refused = janitorOf("relative", 1);
    expect(await soon(() => ended(refused))).toBe(true);
    expect(refused.exitCode).toBe(2);
  });
});
