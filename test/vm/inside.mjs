// What is done in the guest, step by step. The console shows it; counts, skips and tables go to the folder of results as
// results.json, because a console loses what a machine ends with.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { compare, tableOf } from "./netem.mjs";

const RESULTS = "/results";
/** The tests of the kernel's side. */
const TESTS = ["test/run/doctor-kernel", "test/run/kernel-", "test/run/observe", "test/run/relay", "test/run/attach"];
const VITEST_PATIENCE = ["--project=native", "--reporter=verbose", "--reporter=./tools/vitest-reporter.mjs"];

const { only, command, slow } = JSON.parse(readFileSync(`${RESULTS}/order.json`, "utf8"));
const results = { passed: 0, failed: 0, skipped: 0, skips: [], failures: [], tables: [] };

function check(name, holds) {
  if (holds) results.passed++;
  else {
    results.failed++;
    results.failures.push(name);
  }
}

const run = (command, ...args) => spawnSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 26 });

function doctor() {
  const { status, stdout, stderr } = run(process.execPath, "dist/cli/main.js", "doctor");
  console.log(`${stdout}${stderr}`);
  check("doctor: everything works", status === 0 && stderr === "" && !/^no /m.test(stdout));
}

function show() {
  const { stdout, stderr } = run("test/vm/show.sh", RESULTS);
  console.log(`${stdout}${stderr}`);
  for (const name of ["fentry", "netem", "fq"]) check(name, stdout.includes(`${name}: available`));
}

function vitest() {
  const counts = `${RESULTS}/vitest.json`;
  const env = { ...process.env, CI: "true", MISHAP_SLOW: `${slow}`, MISHAP_VITEST_COUNTS: counts };
  const files = only.length > 0 ? only : TESTS;
  const args = ["node_modules/vitest/vitest.mjs", "run", ...VITEST_PATIENCE, ...files];
  const { status } = spawnSync(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"], env });
  const { passed, failed, skipped, skips } = existsSync(counts)
    ? JSON.parse(readFileSync(counts, "utf8"))
    : { passed: 0, failed: 1, skipped: 0, skips: [] };
  results.passed += passed;
  results.skipped += skipped;
  results.skips.push(...skips);
  const wrong = failed > 0 || status === 0 ? failed : 1;
  results.failed += wrong;
  if (wrong > 0) results.failures.push("the kernel's tests");
}

async function netem() {
  const rows = await compare(`${RESULTS}/relay`);
  const table = tableOf(rows);
  console.log(`${table}\n`);
  results.tables.push(table);
  // An emulated processor is late, on the kernel's link too; nobody may be early.
  const [, kernel, ...links] = rows;
  for (const { name, p50_ms } of links) check(name, p50_ms >= 39.9 && p50_ms < 2 * kernel.p50_ms);
}

function commanded() {
  const { status } = spawnSync("bash", ["-c", command], { stdio: ["ignore", "inherit", "inherit"] });
  check(command, status === 0);
}

const steps = command === undefined ? { doctor, show, netem, vitest } : { commanded };
for (const [name, step] of Object.entries(steps)) {
  const start = performance.now();
  console.log(`== ${name}`);
  try {
    await step();
  } catch (error) {
    console.error(error);
    check(name, false);
  }
  console.log(`== ${name}: ${((performance.now() - start) / 1000).toFixed(0)} s\n`);
  writeFileSync(`${RESULTS}/results.json`, JSON.stringify(results));
}
results.done = true;
writeFileSync(`${RESULTS}/results.json`, JSON.stringify(results));
