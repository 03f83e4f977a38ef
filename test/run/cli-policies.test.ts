// `mishap run` under policies by name: of a file, ready-made ones, and a file that is edited while the program runs.
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { evidenceOf, mishap, scratchFolder, startMishap } from "./cli-harness.js";
import { echoServer } from "./support/programs.js";

const folder = scratchFolder();
let port: number;

beforeAll(async () => {
  ({ port } = await echoServer());
});

function fileOf(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** Sends a byte and waits for it to come back, `times` over with pauses; prints how many milliseconds each took. */
const exchanges = (times: number): string[] => [
  "python3",
  "-c",
  `import socket, time
s = socket.create_connection(("127.0.0.1", ${port}))
for i in range(${times}):
    time.sleep(0.02); a = time.monotonic(); s.sendall(b"x"); s.recv(1)
    print((time.monotonic() - a) * 1000, flush=True)`,
];
const milliseconds = (stdout: string): number[] => stdout.trim().split("\n").map(Number);

describe("a policy by name", () => {
  const file = fileOf("named.yaml", "slow: {latency: 20ms, packet_loss: 0%}\nother: {rate: 1mbps}\n");

  it("is in force, and evidence says whose faults they were", async () => {
    const { stdout, stderr, evidence } = await evidenceOf(
      folder,
      ["--policies", file, "--policy", "slow"],
      exchanges(3),
    );
    for (const ms of milliseconds(stdout)) expect(ms).toBeGreaterThan(39);
    expect(evidence.faults).toMatchObject([
      { policy: "slow", fault: "latency", asked: "20ms" },
      { policy: "slow", fault: "packet_loss", asked: "0%" },
    ]);
    expect(stderr).toContain("slow: latency  asked 20ms");
  });

  it("takes the flags' fields in place of its own", async () => {
    const flags = ["--policies", file, "--policy", "slow", "--latency", "30ms"];
    const { evidence } = await evidenceOf(folder, flags, exchanges(1));
    expect(evidence.faults.map(({ fault, asked }) => [fault, asked])).toEqual([
      ["latency", "30ms"],
      ["packet_loss", "0%"],
    ]);
  });

  it("may be a ready-made one", async () => {
    const { code, evidence } = await evidenceOf(folder, ["--policy", "satellite_leo"], exchanges(1));
    expect(code).toBe(0);
    expect(evidence.faults.map(({ fault }) => fault)).toContain("latency");
  });

  it.each([
    [["--policies", file, "--policy", "slwo"], /named\.yaml has none of that name.*the nearest is slow/],
    [["--policy", "satelite_leo"], /no preset of that name; the nearest is satellite_leo/],
    [
      ["--policies", fileOf("wrong.yaml", "slow:\n  latncy: 20ms\n")],
      /wrong\.yaml:2:3: slow: unknown field "latncy"; the nearest is latency/,
    ],
    [["--policies", join(folder, "absent.yaml")], /absent\.yaml: .*not there|absent\.yaml: .*read/],
  ])("that is wrong starts nothing: %j", async (flags, sentence) => {
    const { code, stderr } = await mishap("run", ...flags, "--", "true");
    expect(code).toBe(2);
    expect(stderr).toMatch(sentence);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });
});

describe("a policy file that is edited", () => {
  /** Runs exchanges under a file, which is edited once the first of them is done. */
  async function edited(name: string, edits: (file: string) => Promise<void> | void) {
    const file = fileOf(name, "live: {latency: 1ms}\nspare: {latency: 2ms}\n");
    const [python = "", ...rest] = exchanges(60);
    const running = startMishap(["run", "--policies", file, "--policy", "live", "--", python, ...rest]);
    await running.says("\n");
    await edits(file);
    const end = await running.finished;
    return { ...end, ms: milliseconds(end.stdout) };
  }

  it("changes the faults of the program that runs, and says so", async () => {
    const { ms, stderr } = await edited("written.yaml", (file) => writeFileSync(file, "live: {latency: 30ms}\n"));
    expect(ms[0]).toBeLessThan(30);
    expect(ms.at(-1)).toBeGreaterThan(59);
    expect(stderr).toMatch(/written\.yaml was edited: its policies are in force/);
    expect(stderr).toMatch(/note: .*written\.yaml was edited once during the run/);
  });

  it("may be put in its place by a rename, as editors do", async () => {
    const { ms } = await edited("renamed.yaml", (file) => {
      writeFileSync(`${file}.new`, "live: {latency: 30ms}\n");
      renameSync(`${file}.new`, file);
    });
    expect(ms.at(-1)).toBeGreaterThan(59);
  });

  it.each([
    ["a wrong value", "live: {latency: 30}\n", /:1:17: live\.latency 30: a duration needs a unit.*stay as they were/],
    ["its policy taken away", "spare: {latency: 30ms}\n", /"live": .*has none of that name.*stay as they were/],
    ["half a file", "live: {latency: 30ms", /stay as they were/],
  ])("changes nothing when it is wrong, and says so: %s", async (_, text, sentence) => {
    const { ms, stderr } = await edited("refused.yaml", async (file) => {
      writeFileSync(file, text);
      await new Promise((resolve) => setTimeout(resolve, 500));
    });
    expect(stderr).toMatch(sentence);
    expect(ms.at(-1)).toBeLessThan(30);
    expect(stderr).not.toContain("are in force");
  });
});

describe("faults by setpriority", () => {
  const program = `import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def control(which, who, prio):
    result = libc.setpriority(which, who, prio)
    return "ok" if result == 0 else os.strerror(ctypes.get_errno())
def took():
    s = socket.create_connection(("127.0.0.1", PORT)); a = time.monotonic(); s.sendall(b"x"); s.recv(1)
    return (time.monotonic() - a) * 1000
print(control(0xFA, 40, 0), took())
print(control(0xFA, 0, 0), took())
print(control(0xFA, -2, 0)); print(control(0xFC, -2, 5)); print(control(0xFB, 0, -1)); print(control(0xFC, -1, -1))
print(control(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0)))`;
  const lines = async (...flags: string[]): Promise<string[][]> => {
    const command = ["python3", "-c", program.replace("PORT", String(port))];
    const { stdout } = await mishap("run", ...flags, "--", ...command);
    return stdout
      .trim()
      .split("\n")
      .map((line) => line.split(/ (?=[\d.]+$)/));
  };

  it("are set where the run allows it", async () => {
    const [slow, calm, ...others] = await lines("--setpriority");
    expect(slow?.[0]).toBe("ok");
    expect(Number(slow?.[1])).toBeGreaterThan(79);
    expect(calm?.[0]).toBe("ok");
    expect(Number(calm?.[1])).toBeLessThan(40);
    expect(others.flat()).toEqual([...Array(3).fill("Invalid argument"), "ok", "ok"]);
  });

  it("are no faults elsewhere: the kernel refuses what it does not know", async () => {
    const [slow, calm, ...others] = await lines();
    expect([slow?.[0], calm?.[0]]).toEqual(["Invalid argument", "Invalid argument"]);
    expect(Number(slow?.[1])).toBeLessThan(40);
    expect(others.flat()).toEqual([...Array(4).fill("Invalid argument"), "ok"]);
  });
});
