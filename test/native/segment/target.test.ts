// Starting the program: it owns what a program owns, and its end and its stops are seen.
import { spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { native, nativeFolder, type TargetOptions } from "../../../src/segment/index.js";
import { soon } from "./support.js";

const folder = mkdtempSync("/dev/shm/mishap-target-");
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs a shell script as the target and gives its raw wait status. */
function shell(script: string, options: TargetOptions = {}, env: string[] = []): Promise<number> {
  return new Promise((resolve) => {
    native.spawnTarget("/bin/sh", ["sh", "-c", script], env, options, resolve);
  });
}

describe("spawnTarget", () => {
  it("reports exit codes and signals as wait(2) does", async () => {
    expect(await shell("exit 0")).toBe(0);
    expect(await shell("exit 7")).toBe(7 << 8);
    expect((await shell("kill -TERM $$")) & 0x7f).toBe(15);
    expect((await shell("kill -KILL $$")) & 0x7f).toBe(9);
  });

  it("gives the program exactly its arguments, environment and folder", async () => {
    const out = join(folder, "given");
    await shell(`printf '%s|' "$@" "$A" "$PWD" > ${out}; env | grep -c '^[AB]=' >> ${out}`, { cwd: folder }, [
      "A=1 2",
      "B=x",
    ]);
    expect(readFileSync(out, "utf8")).toBe(`1 2|${folder}|2\n`);
  });

  it("starts it in our group and session, with default signals and nothing blocked", async () => {
    const out = join(folder, "state");
    await shell(`cat /proc/$$/stat > ${out}; grep '^Sig\\(Blk\\|Ign\\):' /proc/self/status >> ${out}`);
    const [stat = "", ...signals] = readFileSync(out, "utf8").trim().split("\n");
    const own = readFileSync("/proc/self/stat", "utf8");
    const groupAndSession = (line: string) =>
      line
        .slice(line.lastIndexOf(")") + 2)
        .split(" ")
        .slice(2, 4);
    expect(groupAndSession(stat)).toEqual(groupAndSession(own));
    expect(signals.map((line) => line.split("\t")[1])).toEqual(["0000000000000000", "0000000000000000"]);
  });

  it("passes on the descriptors it is told to and no other", async () => {
    const [kept, other] = [openSync("/dev/null", "r"), openSync("/dev/null", "r")];
    const test = (fd: number) => `[ -e /proc/self/fd/${fd} ]`;
    expect(await shell(`${test(kept)} && ! ${test(other)}`, { keepFds: [kept] })).toBe(0);
  });

  it("names what stands in the way by its errno", () => {
    const script = join(folder, "not-executable");
    writeFileSync(script, "exit 0\n");
    const attempt = (file: string, options: TargetOptions) => () =>
      native.spawnTarget(file, [file], [], options, () => {});
    expect(attempt("/nowhere", {})).toThrow(expect.objectContaining({ code: "ENOENT", syscall: "execve" }));
    expect(attempt(script, {})).toThrow(expect.objectContaining({ code: "EACCES", syscall: "execve" }));
    expect(attempt(folder, {})).toThrow(expect.objectContaining({ code: "EACCES", syscall: "execve" }));
    expect(attempt("/bin/true", { cwd: "/nowhere" })).toThrow(
      expect.objectContaining({ code: "ENOENT", syscall: "chdir" }),
    );
  });

  it("runs a script without #! through the shell, as a shell would", async () => {
    const script = join(folder, "plain");
    writeFileSync(script, "exit $1\n", { mode: 0o755 });
    const status = await new Promise((resolve) => native.spawnTarget(script, [script, "5"], [], {}, resolve));
    expect(status).toBe(5 << 8);
  });

  it("stops with the program, pausing the faults, and continues with it", async () => {
    // A run of its own, in a process group of its own: it stops itself, which this process must not.
    const path = join(folder, "stopping");
    const run = `
      const addon = require(${JSON.stringify(`${nativeFolder}mishap.node`)});
      const capacities = { policies: 1, bindings: 64, processes: 64, owners: 64, flows: 64, events: 64, histograms: 24, decided: 1 };
      const segment = new addon.NativeSegment(${JSON.stringify(path)}, capacities);
      segment.activate(0, 0, 1n);
      const pid = addon.spawnTarget("/bin/sh", ["sh", "-c", "kill -STOP $$; exit 4"], [], {}, (s) => process.exit(s >> 8));
      console.log(pid);`;
    const child = spawn(process.execPath, ["-e", run], { stdio: ["ignore", "pipe", "inherit"], detached: true });
    const exit = new Promise((resolve) => child.once("exit", resolve));
    const state = () => {
      const stat = readFileSync(`/proc/${child.pid}/stat`, "utf8");
      return stat.charAt(stat.lastIndexOf(")") + 2);
    };
    expect(await soon(() => state() === "T")).toBe(true);
    const segment = new native.NativeSegment(path);
    expect(segment.inForce()).toBe(false);
    segment.close(false);
    child.kill("SIGCONT");
    expect(await exit).toBe(4);
  });
});

describe("listSockets", () => {
  it("lists a listener of ours, with its inode", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const found = native.listSockets().filter(({ local }) => local.port === port);
    expect(found).toMatchObject([
      { protocol: "tcp", family: "ipv4", local: { address: "127.0.0.1" }, peer: { port: 0 }, state: "listen" },
    ]);
    expect(found[0]?.inode).toBeGreaterThan(0);
    expect(found[0]?.cookie).toBeGreaterThan(0n);
    server.close();
  });
});
