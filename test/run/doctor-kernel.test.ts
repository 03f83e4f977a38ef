// mishap doctor on the kernel's side: as this machine is, and with parts of it truly missing, masked in a mount namespace
// of doctor's own or dropped from its rights. What lacks there is optional: a run works without it, and doctor says so.
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { beforeEach, describe, expect, it, type TestContext } from "vitest";
import { nativeFolder } from "../../src/segment/native.js";
import { type Finished, MISHAP, mishap, start } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";

const HEADING = "The kernel's side, for mishap run --kernel and mishap observe; nothing else needs it:";
const HOOKS = /^(cgroup|tp_btf|fexit)\//;

interface Line {
  readonly verdict: string;
  readonly name: string;
  readonly found: string;
  readonly meaning: string | undefined;
}

/** What doctor says of the kernel's side, by name; the rest has to be well. */
function kernelLines({ code, stdout, stderr }: Finished): Map<string, Line> {
  expect(stderr).toBe("");
  const [run = "", kernel = ""] = stdout.split(`\n${HEADING}\n`);
  expect(run).not.toMatch(/^not ok/m);
  expect(code).toBe(0);
  const lines = new Map<string, Line>();
  for (const match of kernel.matchAll(/^(ok|no) +(\S+(?: \S+)*) {2,}(.*)\n(?: +→ (.*)\n)?/gm)) {
    const [, verdict = "", name = "", found = "", meaning] = match;
    lines.set(name, { verdict, name, found, meaning });
  }
  return lines;
}
const hooksOf = (lines: Map<string, Line>): Line[] => [...lines.values()].filter(({ name }) => HOOKS.test(name));

/** Runs doctor in a mount namespace of its own, after a shell command that takes something away there. */
async function doctorWithout(take: string, { skip }: Pick<TestContext, "skip">): Promise<Map<string, Line>> {
  if (process.getuid?.() !== 0) skip("masking parts of the machine needs root");
  const tried = spawnSync("unshare", ["-m", "sh", "-c", take], { encoding: "utf8" });
  if (tried.status !== 0) skip(`it cannot be taken away here: ${tried.error?.message ?? tried.stderr.trim()}`);
  const script = `${take} && exec "$0" "$1" doctor`;
  return kernelLines(await start("unshare", ["-m", "sh", "-c", script, process.execPath, MISHAP]).finished);
}

describe("mishap doctor, on the kernel's side", () => {
  beforeEach(needsKernel);

  it("lists each hook that works, and what it is for", async () => {
    const lines = kernelLines(await mishap("doctor"));
    expect(lines.get("kernel loader")).toMatchObject({
      verdict: "ok",
      found: expect.stringMatching(/libbpf \d+\.\d+$/),
    });
    for (const name of ["BTF", "cgroup2", "rights"]) expect(lines.get(name)?.verdict).toBe("ok");
    expect(lines.get("cgroup/sock_create")).toMatchObject({ verdict: "ok", found: "ownership" });
    const sent = lines.get("tp_btf/sock_send_length") ?? lines.get("fexit/inet_sendmsg"); // the latter before Linux 6.3
    expect(sent).toMatchObject({ verdict: "ok", found: "bytes" });
    for (const { verdict, meaning } of hooksOf(lines)) if (verdict === "ok") expect(meaning).toBeUndefined();
  });

  it("without BTF", async (context) => {
    const lines = await doctorWithout("mount -t tmpfs none /sys/kernel/btf", context);
    expect(lines.get("BTF")).toMatchObject({ verdict: "no", found: "there is no /sys/kernel/btf/vmlinux" });
    expect(lines.get("BTF")?.meaning).toContain("CONFIG_DEBUG_INFO_BTF");
    expect(lines.get("rights")?.verdict).toBe("ok");
    expect(lines.get("cgroup2")?.verdict).toBe("ok");
    const hooks = hooksOf(lines);
    expect(hooks.length).toBeGreaterThan(8);
    for (const { verdict, found } of hooks) {
      expect(verdict).toBe("no");
      expect(found).toMatch(/^[a-z]+: \S/); // what for, and the reason
    }
    expect(lines.get("tp_btf/sock_recv_length")?.meaning).toMatch(/^what flows move is not seen/);
  });

  it("without cgroup2", async (context) => {
    const mounts = [...readFileSync("/proc/self/mounts", "latin1").matchAll(/^\S+ (\S+) cgroup2 /gm)].map(
      ([, at]) => at,
    );
    const lines = await doctorWithout(`umount ${mounts.join(" ")}`, context);
    expect(lines.get("cgroup2")).toMatchObject({ verdict: "no", found: "it is not mounted" });
    expect(lines.get("BTF")?.verdict).toBe("ok");
    for (const { name, verdict } of hooksOf(lines)) expect(verdict).toBe(name.startsWith("cgroup/") ? "no" : "ok");
    expect(lines.get("cgroup/setsockopt")?.meaning).toMatch(/^coverage cannot tell/);
  });

  it("without libbpf", async (context) => {
    const loader = `${nativeFolder}mishap-loader`;
    const library = /libbpf\.so\S* => (\S+)/.exec(execFileSync("ldd", [loader], { encoding: "utf8" }))?.[1];
    if (library === undefined) context.skip("the loader was built with libbpf inside it");
    const folder = dirname(library ?? "");
    const take = `
      mkdir -p /run/mishap-test && mount -t tmpfs none /run/mishap-test && cd /run/mishap-test && mkdir upper work &&
      mount -t overlay none -o lowerdir=$(realpath ${folder}),upperdir=$PWD/upper,workdir=$PWD/work $(realpath ${folder}) &&
      cd / && rm ${library}`;
    const lines = await doctorWithout(take, context);
    expect([...lines.keys()]).toEqual(["kernel loader"]);
    expect(lines.get("kernel loader")).toMatchObject({
      verdict: "no",
      found: expect.stringMatching(/^libbpf\.so.*install libbpf/),
    });
    expect(lines.get("kernel loader")?.meaning).toContain("`mishap observe` do not work");
  });
});

describe("mishap doctor, without rights", () => {
  it("as root that may not load programs", async ({ skip }) => {
    needsKernel({ skip });
    const lines = kernelLines(
      await start("setpriv", ["--bounding-set=-all", process.execPath, MISHAP, "doctor"]).finished,
    );
    expect(lines.get("rights")).toMatchObject({ verdict: "no", found: expect.stringContaining("CAP_BPF") });
    expect(lines.get("rights")?.meaning).not.toContain("sudo");
    for (const { verdict, meaning } of hooksOf(lines)) expect([verdict, meaning]).toEqual(["no", undefined]);
  });

  it("as another user: names what would help", async ({ skip }) => {
    needsKernel({ skip });
    const asNobody = ["--reuid=65534", "--regid=65534", "--clear-groups", process.execPath];
    const reachable = await start("setpriv", [...asNobody, "-e", `require("fs").accessSync("${MISHAP}")`]).finished;
    if (reachable.code !== 0) skip("another user cannot read this folder");
    const lines = kernelLines(await start("setpriv", [...asNobody, MISHAP, "doctor"]).finished);
    expect(lines.get("rights")).toMatchObject({ verdict: "no", found: "this user is not root" });
    expect(lines.get("rights")?.meaning).toMatch(/^run `sudo mishap doctor` to try them/);
    expect(lines.get("BTF")?.verdict).toBe("ok");
    expect(hooksOf(lines).length).toBeGreaterThan(8);
    for (const { verdict, meaning } of hooksOf(lines)) expect([verdict, meaning]).toEqual(["no", undefined]);
  });
});
