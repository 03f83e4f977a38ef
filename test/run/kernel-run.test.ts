// A run with the kernel's witness, as a user starts it: as root, and through sudo as somebody else.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { freshProject, MISHAP, scratchFolder, start } from "./cli-harness.js";

const LOADER = new URL("../../build/Release/mishap-loader", import.meta.url).pathname;
const BODY = "x".repeat(40_000);

/** Why the kernel's side cannot be tried here; undefined when it can. */
function missing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const probed = spawnSync(LOADER, ["probe"], { encoding: "utf8" });
  if (probed.error !== undefined) return `the loader is not built: ${probed.error.message}`;
  const failing = /"name":"([^"]+)"[^}]*"ok":false,"reason":"([^"]*)"/.exec(probed.stdout);
  return failing === null ? undefined : `${failing[1]} is not to be had: ${failing[2]}`;
}

const why = missing();
const sudo = ["/usr/bin/sudo", "/usr/bin/setpriv", "/usr/bin/unshare"].find((path) => {
  return spawnSync(path, ["--version"]).error !== undefined;
});
const scratch = scratchFolder();
const server = createServer((_, response) => response.end(BODY));
let url = "";

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  chmodSync(scratch, 0o777);
});
afterAll(() => void server.close());

/** Runs mishap, in front of it other words; answers its evidence too. */
async function witnessed(
  args: readonly string[],
  { before = [], env = {} }: { before?: readonly string[]; env?: object } = {},
): Promise<{ code: number | string; stdout: string; stderr: string; evidence: Evidence }> {
  const json = join(scratch, `${freshProject()}.json`);
  const words = [...before, process.execPath, MISHAP, "run", "--project", freshProject(), "--json", json, ...args];
  const [command = "", ...rest] = words;
  const end = await start(command, rest, { env }).finished;
  const evidence = evidenceSchema.parse(JSON.parse(readFileSync(json, "utf8") || "null"));
  return { ...end, evidence };
}

function sum(evidence: Evidence, state: string, side: "bytes_up" | "bytes_down"): number {
  return (evidence.coverage ?? []).filter((row) => row.state === state).reduce((all, row) => all + row[side], 0);
}

describe("mishap run --kernel", () => {
  beforeEach(({ skip }) => skip(why !== undefined, why));

  it("covers curl to the byte, and witnesses the latency it was given", async () => {
    const { evidence, stderr } = await witnessed(["--kernel", "--latency", "50ms", "--", "curl", "-s", url]);
    const [latency] = evidence.faults;
    expect(evidence.coverage).toMatchObject([{ program: "curl", state: "intercepted", flows: 1 }]);
    expect(sum(evidence, "intercepted", "bytes_down")).toBeGreaterThan(BODY.length);
    expect(evidence.accounts?.downlink.kernel).toBe(evidence.accounts?.downlink.called);
    expect(evidence.accounts?.uplink.kernel).toBe(evidence.accounts?.uplink.called);
    expect(latency?.witnessed).toBeGreaterThan(0);
    expect(Math.abs((latency?.witnessed_p50_ns ?? 0) - (latency?.p50_ns ?? 0))).toBeLessThan(20e6);
    expect(stderr).toMatch(/witnessed p50 5\d\.\dms/);
    expect(stderr).toMatch(/coverage {2}curl \(pid \d+\) {2}intercepted {2}1 flow {2}\d+ B up {2}40 kB down/);
  });

  it("covers children too, and adds datagrams that were dropped", async () => {
    const program = `
import socket, subprocess
got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); got.bind(("127.0.0.1", 0))
sent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sent.connect(got.getsockname())
for _ in range(500): sent.send(b"x" * 10)
subprocess.run(["curl", "-s", "-o", "/dev/null", "${url}"])
`;
    const { evidence } = await witnessed(["--kernel", "--uplink.packet-loss", "20%", "--", "python3", "-c", program]);
    const { uplink } = evidence.accounts ?? {};
    expect(evidence.coverage?.map(({ state }) => state)).toEqual(["intercepted", "intercepted"]);
    expect(evidence.coverage?.map(({ program }) => program).sort()).toEqual([
      "curl",
      expect.stringMatching(/^python3/),
    ]);
    expect(uplink?.dropped).toBeGreaterThan(0);
    expect(uplink?.kernel).toBe((uplink?.called ?? 0) - (uplink?.dropped ?? 0));
    const [loss] = evidence.faults;
    expect(loss?.witnessed_ppm).toBe(Math.round(((uplink?.dropped ?? 0) / 5000) * 1e6));
  });

  it("fails before the program starts where the witness is not to be had", async () => {
    const end = await start(
      "/usr/bin/setpriv",
      [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        process.execPath,
        MISHAP,
        "run",
        "--kernel",
        "--",
        "/bin/echo",
        "hello",
      ],
      { env: { PATH: "/nowhere" } },
    ).finished;
    expect(end).toMatchObject({ code: 125, stdout: "" });
    expect(end.stderr).toBe(
      "mishap: the kernel's witness is not to be had: it needs root, and sudo is not installed; run mishap as root\n",
    );
  });
});

const noSudo = why ?? (sudo === undefined ? undefined : `${sudo} is not there`);
describe("through sudo", () => {
  beforeEach(({ skip }) => skip(noSudo !== undefined, noSudo));

  /** As nobody, in a mount namespace whose sudoers let nobody become root: nothing on the machine changes. */
  function asNobody(): string[] {
    const folder = join(scratch, "sudo");
    mkdirSync(folder, { recursive: true });
    const sudoers = join(folder, "sudoers");
    writeFileSync(sudoers, "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n#65534 ALL=(root) NOPASSWD: ALL\n", {
      mode: 0o440,
    });
    const enter = 'mount --make-rprivate / && mount --bind "$0" /etc/sudoers && exec "$@"';
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--init-groups"];
    return ["unshare", "--mount", "sh", "-c", enter, sudoers, ...nobody];
  }
  const env = { HOME: "/tmp", OF_THE_USER: "yes" };
  const look =
    'id -u; id -G; echo "$HOME $OF_THE_USER $SUDO_UID."; grep CapEff /proc/self/status; curl -s -o /dev/null "$0"';
  const unprivileged = "65534\n65534\n/tmp yes .\nCapEff:\t0000000000000000\n";

  it("--kernel asks sudo for the loader alone", async () => {
    const { stdout, evidence } = await witnessed(["--kernel", "--", "sh", "-c", look, url], {
      before: asNobody(),
      env,
    });
    expect(stdout).toBe(unprivileged);
    expect(evidence.coverage).toMatchObject([{ program: "curl", state: "intercepted" }]);
  });

  it("sudo mishap run is the same: the program is the user's, with the user's environment", async () => {
    const before = [...asNobody(), "sudo", "-n"];
    const { stdout, evidence } = await witnessed(["--", "sh", "-c", look, url], { before, env });
    expect(stdout).toBe(unprivileged);
    expect(evidence.coverage).toMatchObject([{ program: "curl", state: "intercepted" }]);
  });

  it("a recording that the user may not read is not read for the user", async () => {
    const recording = join(scratch, "of-root.mishap");
    const made = [
      "run",
      "--quiet",
      "--project",
      freshProject(),
      "--record",
      recording,
      "--latency",
      "1ms",
      "--",
      "true",
    ];
    expect((await start(process.execPath, [MISHAP, ...made]).finished).code).toBe(0);
    const [command = "", ...rest] = [
      ...asNobody(),
      "sudo",
      "-n",
      process.execPath,
      MISHAP,
      "run",
      "--replay",
      recording,
    ];
    const { code, stderr } = await start(command, rest, { env }).finished;
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: `mishap: ${recording}: may not be read or written by this user\n`,
    });
  });

  it("--as-root insists", async () => {
    const before = [...asNobody(), "sudo", "-n"];
    const { stdout } = await witnessed(["--as-root", "--", "id", "-u"], { before, env });
    expect(stdout).toBe("0\n");
  });
});
