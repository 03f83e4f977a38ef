// vitest with the plugin of mishap/vitest, as its users run it: a project of their own, vitest's own command.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { Project } from "../programs/runners/project.js";
import { segmentFiles, until } from "./cli-harness.js";

const project = new Project("plugin");
const spec = (name: string): string => `vitest run ${name}.spec.ts`;

/** A config beside the project's own. */
function config(name: string, plugins: string, tests = 'include: ["*.spec.ts"]'): string {
  const file = `${name}.config.ts`;
  const text = `import { faults } from "mishap/vitest";
    export default { plugins: [${plugins}], test: { ${tests} } };
    void faults;`;
  project.write(file, text);
  return `--config ${file}`;
}

it("gives each test its faults, fixtures and evidence, and says at the end what all of them met", async () => {
  const { code, stdout, stderr } = await project.run(spec("faults"));
  expect(code, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/Tests +6 passed/);
  expect(stderr).toMatch(/^mishap: \d+ flows · \d+ ops · seed 0x/m);
  expect(stderr).toMatch(/^ {2}\{slow_link\}: latency +asked 20ms +delivered p50 2\d\.\dms/m);
  expect(stderr).toMatch(
    /^ {2}\{connectionError:\{kind:refused\}\}: connection error +asked refused:100% .* 7 of 7 connects$/m,
  );
  expect(segmentFiles(project.name)).toEqual([]);
});

it("takes vitest's modifiers, options and timeouts", async () => {
  const { code, stdout } = await project.run(`vitest run --allowOnly modifiers.spec.ts only.spec.ts`);
  expect(code, stdout).toBe(0);
  expect(stdout).toMatch(/Tests +2 passed \| 2 expected fail \| 2 skipped/);
});

it("shows why a fault was never applied", async () => {
  const { code, stderr } = await project.run(spec("never"));
  expect(code).toBe(1);
  expect(stderr).toContain("expected latency to be applied; latency (asked 20ms) was never applied, of 0 ops");
  expect(stderr).toContain("never applied: its targets matched no flow");
});

it("says what to add where the plugin was forgotten; MISHAP_STRICT=0 runs the tests as they are", async () => {
  const command = `${spec("calm")} ${config("forgotten", "")}`;
  const { code, stderr } = await project.run(command);
  expect(code).toBe(1);
  expect(stderr).toContain("the workers are not under the interceptor; add plugins: [faults()] to vitest.config.ts");
  expect((await project.run(command, { MISHAP_STRICT: "0" })).code).toBe(0);
});

it("refuses pools that have no processes", async () => {
  const { code, stderr } = await project.run(`${spec("calm")} --pool threads`);
  expect(code).toBe(1);
  expect(stderr).toContain('pool "threads" has no processes of its own to put under the interceptor; use "forks"');
  expect(stderr).not.toMatch(/^ +at /m);
});

it("runs in vmForks", async () => {
  const { code, stdout, stderr } = await project.run(`${spec("faults")} --pool vmForks`);
  expect(code, stdout + stderr).toBe(0);
  expect(stderr).toMatch(/^mishap: /); // and no complaint before it
});

it("runs the files of one worker after each other", async () => {
  const { code, stdout, stderr } = await project.run(
    "vitest run --allowOnly faults.spec.ts only.spec.ts modifiers.spec.ts --no-isolate --no-file-parallelism",
  );
  expect(code, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/Tests +8 passed \| 2 expected fail \| 2 skipped/);
});

it.each([
  ['faults({ policies: "wrong.yaml" })', /wrong\.yaml:2:12: slow_link\.latency "20mss": a duration is in s, ms or us/],
  ['faults({ policies: "nowhere.yaml" })', /nowhere\.yaml: /],
  ['faults({ policy: "satelite" })', /"satelite": there is no preset of that name; the nearest is /],
  ['faults({ policy: { latncy: "1ms" } })', /unknown field "latncy"; the nearest is latency/],
])("%s ends vitest with a sentence", async (plugin, sentence) => {
  project.write("wrong.yaml", "slow_link:\n  latency: 20mss\n");
  const { code, stderr } = await project.run(`${spec("calm")} ${config("wrong", plugin)}`);
  expect(code).toBe(1);
  expect(stderr).toMatch(sentence);
  expect(stderr).not.toMatch(/^ +at /m);
  expect(segmentFiles(project.name)).toEqual([]);
});

it("puts all tests under a policy, with a seed, and prints nothing when asked", async () => {
  const loud = await project.run(`${spec("calm")} ${config("all", 'faults({ policy: { jitter: "1ms" }, seed: 7 })')}`);
  expect(loud.stderr).toMatch(/^mishap: .* seed 0x7$/m);
  const quiet = await project.run(`${spec("calm")} ${config("quiet", "faults({ quiet: true })")}`);
  expect([loud.code, quiet.code]).toEqual([0, 0]);
  expect(quiet.stderr).not.toContain("mishap:");
});

it("keeps its evidence out of what reporters print", async () => {
  const { stdout, stderr } = await project.run(`${spec("calm")} --reporter=json`);
  expect(JSON.parse(stdout)).toMatchObject({ success: true });
  expect(stderr).toContain("mishap: ");
});

it("has one session for projects that are set up alike", async () => {
  const each = (name: string, spec: string): string =>
    `{ extends: true, test: { name: "${name}", include: ["${spec}.spec.ts"] } }`;
  const file = config("projects", "faults()", `projects: [${each("a", "calm")}, ${each("b", "only")}]`);
  const { code, stdout, stderr } = await project.run(`vitest run --allowOnly ${file}`);
  expect(code, stdout + stderr).toBe(0);
  expect(stderr.match(/^mishap: /gm)).toHaveLength(1);
});

it.each(["SIGINT", "SIGTERM", "SIGKILL"] as const)("leaves nothing behind after %s", async (signal) => {
  const running = project.start(spec("endless"));
  await running.says("inside");
  expect(segmentFiles(project.name)).not.toEqual([]);
  process.kill(running.pid, signal);
  await running.finished;
  // A vitest that is killed leaves its workers to end by themselves; until then there is a file, and no faults.
  await until("the segment is gone", () => segmentFiles(project.name).length === 0, 20_000);
});

it("runs the tests again under an edited policy while vitest watches", async () => {
  const running = project.start("vitest --watch faults.spec.ts");
  let told = "";
  running.child.stderr?.on("data", (text) => {
    told += text;
  });
  await running.says("Waiting for file changes");
  const policies = readFileSync(join(project.folder, "policies.yaml"), "utf8");
  project.write("policies.yaml", policies.replace("20ms", "30ms"));
  await until("the second evidence", () => told.includes("this is of all 2 runs since vitest was started"), 30_000);
  process.kill(running.pid, "SIGINT");
  await running.finished;
  expect(told).toMatch(/policies\.yaml was edited: its policies are in force/);
  expect(told).toMatch(/\{slow_link\}: latency +asked 30ms/);
});

it("leaves tests to mishap run, where vitest is under it", async () => {
  const { code, stdout, stderr } = await project.run(
    "mishap run --policies policies.yaml -- vitest run faults.spec.ts",
  );
  expect(code, stdout + stderr).toBe(0);
  expect(stderr.match(/^mishap: \d+ flows/gm)).toHaveLength(1);
  expect(stderr).toContain("vitest is under mishap run, whose policies hold");
});
