// Runs every check and test in order, streaming what they say, then lists the skips with their reasons and closes with
// the line "N passed, N failed, N skipped". --only=native and --only=ts run a part, --all adds the long tests
// (*.long.test.ts); MISHAP_NO_SKIPS=1 makes a skip fail the run.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const only = process.argv.find((argument) => argument.startsWith("--only="))?.slice("--only=".length);
const all = process.argv.includes("--all");

const totals = { passed: 0, failed: 0, skipped: 0 };
const skips = [];
const failures = [];

/** Adds one step's counts to the totals. A step that failed without a failed test to show for it counts as one. */
function count(step, { passed = 0, failed = 0, skipped = 0 }, ok = true) {
  const failedTests = failed === 0 && !ok ? 1 : failed;
  totals.passed += passed;
  totals.failed += failedTests;
  totals.skipped += skipped;
  if (failedTests > 0) failures.push(step);
}

/** Runs a command to its end; each line of output is kept, and shown when `show` says so. */
function run(command, args, { env = {}, show = () => true } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...env },
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      let rest = "";
      const take = (lines) => {
        for (const line of lines) {
          output += `${line}\n`;
          if (show(line)) console.log(line);
        }
      };
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop();
        take(lines);
      });
      stream.on("end", () => take(rest === "" ? [] : [rest]));
    }
    child.on("error", (error) => resolve({ ok: false, output: `${command}: ${error.message}\n` }));
    child.on("close", (status) => resolve({ ok: status === 0, output }));
  });
}

const silent = { show: () => false };
const node = (script, args, options) => run(process.execPath, [script, ...args], options);

/** A check that holds no tests: it adds nothing when it passes and one failure when it does not. */
async function check(step, script, args) {
  const { ok } = await node(script, args);
  count(step, {}, ok);
}

/** Configures and builds one CMake tree under build/; quiet unless it fails. */
async function build(step, tree, options) {
  const configure = ["-S", ".", "-B", tree, ...options.map((option) => `-D${option}`)];
  // A tree that was copied here with the sources belongs to another folder, and CMake would refuse it.
  const cache = join(tree, "CMakeCache.txt");
  if (existsSync(cache) && !readFileSync(cache, "utf8").includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${process.cwd()}\n`)) {
    rmSync(tree, { recursive: true });
  }
  for (const args of [configure, ["--build", tree, "--parallel", "2"]]) {
    const { ok, output } = await run("cmake", args, silent);
    if (!ok) {
      console.log(output);
      count(step, {}, false);
      return false;
    }
  }
  return true;
}

/**
 * The numbers ctest --verbose shows: doctest's own per executable, one for any other test. A case that cannot run prints
 * `SKIPPED its name: why`; doctest takes it for one that passed.
 */
function ctestCounts(output) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const doctest = new Map();
  for (const line of output.split("\n")) {
    const cases = /^(\d+): \[doctest\] test cases:.*?(\d+) passed \| *(\d+) failed/.exec(line);
    if (cases) doctest.set(cases[1], { passed: Number(cases[2]), failed: Number(cases[3]) });
    const skip = /^\d+: SKIPPED (.*)$/.exec(line);
    if (skip) {
      skips.push(skip[1]);
      counts.skipped += 1;
      counts.passed -= 1;
    }
    const test = /^ *\d+\/\d+ Test +#(\d+): .*?(Passed|\*\*\*)/.exec(line);
    if (!test) continue;
    const ok = test[2] === "Passed";
    const { passed, failed } = doctest.get(test[1]) ?? { passed: ok ? 1 : 0, failed: 0 };
    counts.passed += passed;
    // A sanitizer's report or a crash fails the executable, not a case.
    counts.failed += ok ? 0 : Math.max(failed, 1);
  }
  return counts;
}

async function native(step, tree, options) {
  if (!(await build(step, tree, ["MISHAP_TESTS=ON", "CMAKE_BUILD_TYPE=Debug", ...options]))) return;
  const args = ["--test-dir", tree, "--verbose", "--timeout", "120"];
  const { ok, output } = await run("ctest", args, { show: (line) => /^ *\d+\/\d+ Test/.test(line) });
  if (!ok) console.log(output);
  count(step, ctestCounts(output), ok);
}

/** Runs each fuzz target a million times; the build with planted bugs must be caught within as many. */
async function fuzz(step, tree, planted) {
  const compiler = ["CMAKE_C_COMPILER=clang-14", "CMAKE_CXX_COMPILER=clang++-14"];
  const options = ["MISHAP_FUZZ=ON", `MISHAP_FUZZ_PLANTED_BUG=${planted ? "ON" : "OFF"}`, ...compiler];
  if (!(await build(step, tree, options))) return;
  const folder = join(tree, "targets");
  for (const target of existsSync(folder) ? readdirSync(folder) : []) {
    const found = join(tree, "found", target);
    rmSync(found, { recursive: true, force: true });
    mkdirSync(found, { recursive: true });
    const seeds = [join("native/fuzz/corpus", target), join("native/fuzz/corpus", target.replace(/^fuzz_/, ""))];
    // New inputs go to the first folder, so the seeds in the repository stay as they are.
    const corpus = [found, ...seeds.filter((path) => existsSync(path))];
    const args = ["-runs=1000000", "-seed=1", "-verbosity=1", `-artifact_prefix=${tree}/`, ...corpus];
    const { ok, output } = await run(join(folder, target), args, silent);
    const caught = /ERROR: (AddressSanitizer|libFuzzer)|runtime error:/.test(output);
    const passed = planted ? !ok && caught : ok;
    const runs =
      /Done (\d+) runs/.exec(output)?.[1] ??
      output
        .match(/^#\d+\t/gm)
        ?.at(-1)
        ?.trim()
        .slice(1) ??
      "0";
    console.log(
      `${target}: ${planted ? (passed ? "found the planted bug" : "MISSED the planted bug") : passed ? "clean" : "FAILED"}, ${runs} runs`,
    );
    if (!passed) console.log(output);
    count(step, passed ? { passed: 1 } : { failed: 1 });
  }
}

async function vitest(step) {
  mkdirSync("build", { recursive: true });
  const file = join("build", "vitest-counts.json");
  rmSync(file, { force: true });
  const env = { MISHAP_VITEST_COUNTS: file, ...(all ? { MISHAP_LONG: "1" } : {}) };
  const reporters = ["--reporter=default", "--reporter=./tools/vitest-reporter.mjs"];
  const { ok } = await node("node_modules/vitest/vitest.mjs", ["run", "--passWithNoTests", ...reporters], { env });
  const counts = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  skips.push(...(counts.skips ?? []));
  count(step, counts, ok);
}

const steps = [
  ["lint", "ts", (step) => check(step, "node_modules/@biomejs/biome/bin/biome", ["check", "--error-on-warnings"])],
  ["types", "ts", (step) => check(step, "node_modules/typescript/bin/tsc", ["-p", "tsconfig.test.json"])],
  ["native tests", "native", (step) => native(step, "build/test", [])],
  [
    "native tests, address and undefined-behaviour sanitizers",
    "native",
    (step) => native(step, "build/asan", ["MISHAP_SANITIZE=address,undefined"]),
  ],
  ["native tests, thread sanitizer", "native", (step) => native(step, "build/tsan", ["MISHAP_SANITIZE=thread"])],
  ["fuzz targets", "native", (step) => fuzz(step, "build/fuzz", false)],
  ["fuzz targets against planted bugs", "native", (step) => fuzz(step, "build/fuzz-planted", true)],
  ["TypeScript tests", "ts", vitest],
];

for (const [step, part, execute] of steps) {
  if (only !== undefined && only !== part) continue;
  console.log(`\n== ${step}`);
  const start = performance.now();
  await execute(step);
  console.log(`== ${step}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

console.log("");
if (skips.length > 0) console.log(`Skipped:\n${skips.map((skip) => `  ${skip}`).join("\n")}`);
if (failures.length > 0) console.log(`Failed: ${[...new Set(failures)].join("; ")}`);
if (totals.passed + totals.failed === 0) console.log("Failed: no test was run");
if (process.env.MISHAP_NO_SKIPS === "1" && totals.skipped > 0) console.log("Failed: MISHAP_NO_SKIPS=1 allows no skips");
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
const ok = totals.failed === 0 && totals.passed > 0 && !(process.env.MISHAP_NO_SKIPS === "1" && totals.skipped > 0);
process.exitCode = ok ? 0 : 1;
