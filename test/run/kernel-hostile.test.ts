// The program of a run under the kernel's eye is the user's as without it: no right more, their own environment, and
// no way to get at what watches it. test/programs/kernel/hostile.cpp tries them all, as an ordinary user, with the
// loader got through sudo in both of the ways there are. The machine's sudoers file stays as it is: the runs see
// another, by a mount of their own.
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { evidenceSchema } from "../../src/report/schema.js";
import { type Finished, MISHAP, scratchFolder, start } from "./cli-harness.js";
import { build, ExchangePeer, kernelWorks, movedBy, needsKernel } from "./support/kernel.js";

const NOBODY = 65534;
const ENVIRONMENT = [`PATH=${process.env.PATH}`, "HOME=/nonexistent", "LANG=C.UTF-8", "A MARK=its own, with 'quotes'"];

const folder = scratchFolder();
const file = join(folder, "for-nobody", "evidence.json");
let [hostile, client] = ["", ""];
let peer: ExchangePeer;

beforeAll(async () => {
  if (!kernelWorks) return;
  [hostile, client] = [await build(folder, "hostile"), await build(folder, "client")];
  peer = await ExchangePeer.start(10_007, 20_011);
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, "for-nobody"));
  chownSync(join(folder, "for-nobody"), NOBODY, NOBODY);
  writeFileSync(join(folder, "sudoers"), `#${NOBODY} ALL=(ALL:ALL) NOPASSWD: ALL\n`, { mode: 0o440 });
});
beforeEach(({ skip }) => {
  needsKernel({ skip });
  if (!existsSync("/etc/sudoers")) skip("sudo is not installed");
  if (spawnSync("setpriv", asNobody(["test", "-r", MISHAP]).slice(1)).status !== 0) {
    skip("this checkout cannot be read by other users");
  }
});

/** A command as an ordinary user with an environment of its own. */
function asNobody(command: readonly string[]): string[] {
  const user = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--init-groups"];
  return [...user, "env", "-i", ...ENVIRONMENT, ...command];
}

/** To its end, where that user may do everything through sudo. */
function withSudo(command: readonly string[]): Promise<Finished> {
  const script = 'mount --bind "$1" /etc/sudoers && shift && exec "$@"';
  return start("unshare", ["-m", "sh", "-c", script, "sh", join(folder, "sudoers"), ...asNobody(command)]).finished;
}

const mishapRun = (...flags: string[]): string[] => [process.execPath, MISHAP, "run", ...flags, "--json", file, "--"];
const WAYS: [string, string[]][] = [
  ["mishap run --kernel", mishapRun("--kernel")],
  ["sudo mishap run", ["sudo", "-n", ...mishapRun()]],
];

const identity = z.strictObject({
  users: z.array(z.int()),
  group: z.array(z.int()),
  groups: z.array(z.int()),
  status: z.array(z.string()),
  environment: z.array(z.string()),
});
const tried = z.strictObject({
  attempt: z.string(),
  tries: z.int(),
  worked: z.int(),
  errors: z.array(z.string()),
});

function linesOf<T>(schema: z.ZodType<T>, stdout: string, mark: string): T[] {
  const lines = stdout.split("\n").filter((line) => line.startsWith(mark));
  return lines.map((line) => schema.parse(JSON.parse(line)));
}

describe.each(WAYS)("%s", (_, run) => {
  it("runs the program as the user, with no right more and the user's environment", async () => {
    const [bare] = linesOf(identity, (await withSudo([hostile, "identity"])).stdout, "{");
    const { code, stdout, stderr } = await withSudo([...run, hostile, "identity"]);
    expect(code, stderr).toBe(0);
    const [under] = linesOf(identity, stdout, "{");
    const ours = /^(LD_PRELOAD|MISHAP_\w+)=/;
    const environment = under?.environment.filter((entry) => !ours.test(entry)).sort();
    expect({ ...under, environment }).toEqual({ ...bare, environment: [...ENVIRONMENT].sort() });
    expect(under?.users).toEqual([NOBODY, NOBODY, NOBODY]);
    expect(under?.status).toContain("CapEff:\t0000000000000000");
  });

  it("gives it no way to what watches it, which watches on", async () => {
    const { code, stdout, stderr } = await withSudo([...run, hostile, "attack", client, ...peer.exchange(3)]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('{"found":{"mapped":true,"handed":true}}\n');
    const attempts = linesOf(tried, stdout, '{"attempt"');
    expect(attempts.length).toBeGreaterThan(30);
    expect(attempts.filter(({ worked }) => worked > 0)).toEqual([]);
    const never = attempts.filter(({ tries }) => tries === 0).map(({ attempt }) => attempt);
    // Some machines allow no user namespaces; and no sudo is left to be signalled.
    expect(never.filter((attempt) => !["get out by a user namespace", "signal sudo"].includes(attempt))).toEqual([]);

    const [moved] = movedBy(stdout);
    const { coverage, notes } = evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
    const { pid, flows, up, down } = moved ?? {};
    expect(coverage).toContainEqual({
      ...{ program: "client", pid, state: "intercepted" },
      ...{ flows, bytes_up: up, bytes_down: down },
    });
    expect(notes.join("\n")).not.toMatch(/witness was lost/);
  });
});
