// An interceptor and a courier built to lie, which wait half of what they say, are caught by the kernel's witness.
// They are put where a copy of mishap looks for them.
import { execFile } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { MISHAP, scratchFolder, start } from "./cli-harness.js";
import { kernelWorks, needsKernel } from "./support/kernel.js";
import { echoServer } from "./support/programs.js";
import { Talker } from "./support/talk.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const ASKED_MS = 100;
const folder = scratchFolder();
const liar = join(folder, "dist/cli/main.js");
let talker: Talker;
let port = 0;

beforeAll(async () => {
  if (!kernelWorks) return;
  [talker, { port }] = await Promise.all([Talker.in(folder), echoServer()]);
  await buildLiar(join(folder, "build/Release"));
}, 180_000);
beforeEach(needsKernel);

async function buildLiar(release: string): Promise<void> {
  mkdirSync(release, { recursive: true });
  cpSync(join(root, "dist"), join(folder, "dist"), { recursive: true });
  for (const file of ["package.json", "node_modules"]) symlinkSync(join(root, file), join(folder, file));
  for (const file of ["mishap.node", "mishap-janitor", "mishap-loader"])
    copyFileSync(join(root, "build/Release", file), join(release, file));
  const sources = (...folders: string[]): string[] =>
    folders
      .flatMap((name) => readdirSync(join(root, "native", name)).map((file) => join(root, "native", name, file)))
      .filter((file) => file.endsWith(".cpp") && !file.endsWith("/engine.cpp"));
  const compile = (name: string, ...args: string[]): Promise<unknown> =>
    promisify(execFile)("g++", [
      ...["-std=c++20", "-O0", "-DMISHAP_TEST_WAIT_HALF", `-I${join(root, "native")}`],
      ...["-o", join(release, name), join(root, "test/programs/kernel/boast.cpp"), ...args, "-pthread"],
    ]);
  const preload =
    "-shared -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-threadsafe-statics -ftls-model=initial-exec";
  await compile(
    "libmishap-interceptor.so",
    ...preload.split(" "),
    ...sources("engine", "segment", "wire", "mailbox", "interceptor"),
    "-Wl,-z,now,-z,nodelete",
  );
  await compile("mishap-courier", ...sources("engine", "segment", "wire", "link", "courier"));
}

async function evidenceBy(command: string, flags: readonly string[], steps: readonly string[]): Promise<Evidence> {
  const file = join(folder, "evidence.json");
  const run = [command, "run", "--kernel", "--json", file, ...flags, "--", ...talker.command(steps)];
  const { code, stderr } = await start(process.execPath, run).finished;
  expect(code, stderr).toBe(0);
  return evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
}

const exchanges = (count: number): string[] => [
  `a.tcp:${port}`,
  ...Array.from({ length: count }, () => ["a.send:x", "a.recv:1"]).flat(),
];

describe.each(["uplink", "downlink"])("%s", (direction) => {
  const fault = `${direction}.latency`;
  const flags = [`--${fault}`, `${ASKED_MS}ms`];
  const askedNs = ASKED_MS * 1e6;
  const delayOf = (evidence: Evidence) => evidence.faults.find((each) => each.fault === fault);

  it("an honest build: the kernel saw what was delivered", async () => {
    const evidence = await evidenceBy(MISHAP, flags, exchanges(6));
    expect(delayOf(evidence)?.p50_ns).toBeGreaterThanOrEqual(askedNs);
    expect(delayOf(evidence)?.witnessed).toBeGreaterThanOrEqual(2);
    expect(delayOf(evidence)?.witnessed_p50_ns).toBeGreaterThanOrEqual(0.98 * askedNs);
    expect(evidence.notes.join("\n")).not.toMatch(/the kernel does not bear/);
  });

  it("a build that waits half of what it says: its word is as asked, and the kernel's is not", async () => {
    const evidence = await evidenceBy(liar, flags, exchanges(6));
    expect(delayOf(evidence)?.p50_ns).toBeGreaterThanOrEqual(0.95 * askedNs);
    expect(delayOf(evidence)?.witnessed).toBeGreaterThanOrEqual(2);
    expect(delayOf(evidence)?.witnessed_p50_ns).toBeLessThan(0.8 * askedNs);
    expect(evidence.notes[0]).toContain(`the kernel does not bear ${fault} out`);
  });
});
