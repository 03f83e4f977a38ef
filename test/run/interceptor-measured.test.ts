// Evidence is measured where a fault takes effect, not copied from the decision: an interceptor and a courier built to wait
// half of what was decided must say half. They are put where a copy of mishap looks for them.
import { execFile } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, expect, it } from "vitest";
import { type Evidence, evidenceSchema } from "../../src/report/schema.js";
import { scratchFolder, start } from "./cli-harness.js";
import { echoServer } from "./support/programs.js";
import { Talker } from "./support/talk.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = scratchFolder();
let talker: Talker;
let port = 0;

beforeAll(async () => {
  const release = join(folder, "build/Release");
  mkdirSync(release, { recursive: true });
  cpSync(join(root, "dist"), join(folder, "dist"), { recursive: true });
  for (const file of ["package.json", "node_modules"]) symlinkSync(join(root, file), join(folder, file));
  for (const file of ["mishap.node", "mishap-janitor"])
    copyFileSync(join(root, "build/Release", file), join(release, file));
  const sources = (...folders: string[]): string[] =>
    folders.flatMap((name) =>
      readdirSync(join(root, "native", name))
        .filter((file) => file.endsWith(".cpp"))
        .map((file) => join(root, "native", name, file)),
    );
  const build = (name: string, ...args: string[]): Promise<unknown> =>
    promisify(execFile)("g++", [
      ...["-std=c++20", "-O0", "-DMISHAP_TEST_WAIT_HALF", `-I${join(root, "native")}`],
      ...["-o", join(release, name), ...args, "-pthread"],
    ]);
  const preload =
    "-shared -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-threadsafe-statics -ftls-model=initial-exec";
  const [made, echo] = await Promise.all([Talker.in(folder), echoServer()]);
  await build(
    "libmishap-interceptor.so",
    ...preload.split(" "),
    ...sources("engine", "segment", "wire", "mailbox", "interceptor"),
    "-Wl,-z,now,-z,nodelete",
  );
  await build("mishap-courier", ...sources("engine", "segment", "wire", "link", "courier"));
  talker = made;
  port = echo.port;
}, 180_000);

async function evidenceOfHalf(flags: readonly string[], ...steps: string[]): Promise<Evidence> {
  const file = join(folder, "evidence.json");
  const main = join(folder, "dist/cli/main.js");
  const end = await start(process.execPath, [main, "run", "--json", file, ...flags, "--", ...talker.command(steps)])
    .finished;
  expect(end.code).toBe(0);
  return evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
}

it.each([
  ["latency", 400, ["--latency", "400ms"], "a.send:x a.recv:1"],
  // More sends and receives than connects, so that p50 is theirs: the courier's and the arrivals'.
  ["uplink.latency", 400, ["--uplink.latency", "400ms"], "a.send:x a.send:x a.send:x"],
  ["downlink.latency", 400, ["--downlink.latency", "400ms"], "a.send:x a.recv:1 a.send:x a.recv:1 a.send:x a.recv:1"],
  ["dns.delay", 400, ["--dns.delay", "400ms"], "b.named:localhost"],
  ["dns.timeout", 400, ["--dns.timeout", "400ms"], "b.named:localhost"],
  ["timeout.connect", 400, ["--timeout.connect", "400ms", "--latency", "1s"], ""],
  [
    "session_budget",
    400,
    ["--session-budget.max-ops", "1", "--session-budget.action", "timeout", "--session-budget.budget-timeout", "400ms"],
    "a.send:x a.send:x",
  ],
])("%s: half of what was asked is what evidence says", async (fault, askedMs, flags, steps) => {
  const evidence = await evidenceOfHalf(flags, `a.tcp:${port}`, ...steps.split(" ").filter((step) => step !== ""));
  expect(evidence.fallbacks).toEqual({}); // the courier was reached
  expect(evidence.notes.join()).not.toContain("courier");
  const found = evidence.faults.find((each) => each.fault === fault);
  expect(found?.applied).toBeGreaterThan(0);
  expect(found?.p50_ns).toBeGreaterThanOrEqual(0.48 * askedMs * 1e6);
  expect(found?.p50_ns).toBeLessThan(0.9 * askedMs * 1e6);
});
