// Transparency: CPython's own tests (Debian: libpython3.11-testsuite) run bare, under mishap without a policy, and under a
// policy that asks for nothing but puts every flow on a link. A program must not notice a difference, so no test may have
// another outcome. A test is different when it differs from the bare run beside it in two of three rounds.
//
//   npm run transparency [-- --only=test_socket,test_ssl.ThreadedTests] [-- --runs=1] [-- --quick] [-- --keep]
//
// --quick takes a few short modules, and repeats only those that differ; --keep leaves the logs behind; --policy="FLAGS"
// asks for something else than nothing, to see what a test suite makes of that. As root each run
// gets namespaces of its own: a loopback and nothing else, and processes that end with it. Otherwise the tests keep to
// loopback because their "network" resource is off.
import { spawn, spawnSync } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const python = "/usr/bin/python3.11";
const outcomes = fileURLToPath(new URL("transparency/outcomes.py", import.meta.url));
const mishap = [process.execPath, fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url)), "run", "--quiet"];

// A latency of zero asks for no link, so the smallest there is stands for nothing: one nanosecond each way.
const NOTHING_ON_A_LINK = "--latency 0.001us";
const OTHERS = ["preloaded", "linked"];

/** Test modules, or classes of one that is long; the longest first so that the end does not wait for one alone. */
const MODULES = [
  "test_asyncio",
  "test_ssl",
  "test_socket",
  "test_subprocess",
  "test_io",
  "test_threading",
  "test_signal",
  "test_selectors",
  "test_poll",
  "test_multiprocessing_fork.TestWait",
  "test_multiprocessing_fork.WithProcessesTestConnection",
  "test_concurrent_futures.ProcessPoolForkProcessPoolExecutorTest",
  "test_concurrent_futures.ThreadPoolExecutorTest",
  "test_ftplib",
  "test_os",
  "test_posix",
  "test_httpservers",
  "test_xmlrpc",
  "test_docxmlrpc",
  "test_smtplib",
  "test_smtpd",
  "test_poplib",
  "test_imaplib",
  "test_nntplib",
  "test_telnetlib",
  "test_asyncore",
  "test_asynchat",
  "test_urllib2_localnet",
  "test_wsgiref",
  "test_httplib",
  "test_select",
  "test_epoll",
  "test_socketserver",
  "test_fork1",
  "test_wait3",
  "test_wait4",
  "test_threadsignals",
  "test_eintr",
  "test_pty",
  "test_fcntl",
  "test_popen",
  "test_mmap",
  "test_file_eintr",
  "test_fileio",
  "test_logging",
];
const QUICK = [
  "test_asyncio.test_sendfile",
  "test_asyncio.test_sock_lowlevel",
  "test_asyncio.test_streams",
  "test_ssl.SimpleBackgroundTests",
  "test_ftplib",
  "test_smtplib",
  "test_httplib",
  "test_telnetlib",
  "test_socket.BasicTCPTest",
  "test_socket.SendmsgUDPTest",
  "test_select",
  "test_epoll",
];
/** Modules that ask for a resource as a whole although they keep to loopback. */
const RESOURCES = { test_socketserver: ["network"] };

const option = (name) => process.argv.find((argument) => argument.startsWith(`--${name}=`))?.slice(name.length + 3);
const EVIDENCE = "evidence.json";
const WAYS = {
  bare: [],
  preloaded: [...mishap, "--"],
  linked: [...mishap, ...(option("policy") ?? NOTHING_ON_A_LINK).split(" "), "--json", EVIDENCE, "--"],
};
const quick = process.argv.includes("--quick");
const keep = process.argv.includes("--keep");
const modules = option("only")?.split(",") ?? (quick ? QUICK : MODULES);
const rounds = Number(option("runs") ?? 3);

const SILENCE_MS = quick ? 20_000 : 45_000; // a test that takes longer hangs
const MODULE_MS = quick ? 60_000 : 360_000; // and one that takes longer ends there
const ALL_MS = quick ? 150_000 : 22 * 60_000; // no module begins later
const OVER_MS = ALL_MS + (quick ? 40_000 : 150_000); // and none goes on
const HANGS = 3; // a module that hangs or crashes more often is given up
const SIDE_BY_SIDE = 2; // modules at a time, each in its three ways: they mostly wait

const scratch = mkdtempSync(join(tmpdir(), "mishap-transparency-"));
const startedMs = performance.now();
const running = new Set();
process.on("exit", () => {
  for (const child of running) end(child);
  if (!keep) rmSync(scratch, { recursive: true, force: true, maxRetries: 3 });
});
for (const [signal, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
]) {
  process.on(signal, () => process.exit(status));
}

// /dev/shm too: a run sweeps away segments whose owners' pids it does not find, and here it finds its own only. The
// shell stays the first process, because signals spare that one. /dev/vsock leads to the machine's host.
const NAMESPACES = [
  ...["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"],
  `ip link set lo up && mount -t tmpfs tmpfs /dev/shm || exit 1
  if [ -e /dev/vsock ]; then mount --bind /dev/null /dev/vsock || exit 1; fi
  "$@"; exit $?`,
  "sh",
];
const isolated = spawnSync(NAMESPACES[0], [...NAMESPACES.slice(1), "true"], { stdio: "ignore" }).status === 0;

/** Kills a child and its group; its namespaces, where it has some, end with it. */
function end(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** Of the processes below one, those that run a script. */
function descendants(root, script) {
  const parents = new Map();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ")[0]));
    } catch {
      // It has ended.
    }
  }
  const isBelow = (pid) => pid === root || (parents.has(pid) && pid > 1 && isBelow(parents.get(pid)));
  return [...parents.keys()].filter((pid) => {
    try {
      return isBelow(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")[1] === script;
    } catch {
      return false;
    }
  });
}

const lines = (file) => (existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").filter(Boolean) : []);

/** Where a Python that was aborted stood: the innermost lines of the thread that runs the tests. */
function whereItStood(log) {
  const text = readFileSync(log, "utf8");
  const dump = text.slice(text.lastIndexOf("Fatal Python error"));
  const threads = dump.split(/\n\n/).filter((part) => /unittest/.test(part));
  const frames = [...(threads.at(-1) ?? dump).matchAll(/File ".*?([^/"]+)", line (\d+) in (\S+)/g)];
  const fatal = /Fatal Python error: (.*)/.exec(dump)?.[1] ?? "no traceback";
  return `${fatal === "Aborted" ? "" : `${fatal} `}at ${frames
    .slice(0, 3)
    .map(([, file, line, name]) => `${name} (${file}:${line})`)
    .join(" ← ")}`;
}

/** Starts a command and waits for its end; it is killed, and says so, when `record` stays as it is for too long. */
async function watch([command, ...args], folder, record, log, untilMs) {
  const output = openSync(log, "a");
  const child = spawn(command, args, {
    cwd: folder,
    detached: true,
    stdio: ["ignore", output, output],
    env: { ...process.env, TMPDIR: folder, PYTHONPYCACHEPREFIX: join(scratch, "pycache") },
  });
  closeSync(output);
  running.add(child);
  let status;
  child.on("error", (error) => {
    status = error.message;
  });
  child.on("exit", (code, signal) => {
    status = signal ?? code;
  });
  let size = -1;
  let changedMs = performance.now();
  while (status === undefined) {
    await sleep(50);
    const now = existsSync(record) ? statSync(record).size : 0;
    if (now !== size) [size, changedMs] = [now, performance.now()];
    if (status !== undefined || Math.min(changedMs + SILENCE_MS, untilMs) > performance.now()) continue;
    for (const pid of descendants(child.pid, outcomes)) {
      try {
        process.kill(pid, "SIGABRT");
      } catch {
        // It has ended.
      }
    }
    await sleep(1000);
    end(child);
    while (status === undefined) await sleep(20);
    status = performance.now() < untilMs ? "hung" : "late";
  }
  end(child); // what the tests left behind, where the kernel does not see to it
  running.delete(child);
  return status;
}

/** Runs a module one way to its end, past tests that hang or crash. Returns outcomes by test. */
async function runModule(module, way, round, without) {
  const folder = join(scratch, `${module}-${way}-${round}`);
  mkdirSync(folder);
  const [plan, record, log] = ["plan.json", "record.jsonl", "log"].map((name) => join(folder, name));
  writeFileSync(plan, JSON.stringify({ module, resources: RESOURCES[module] ?? [], without }));
  const command = [...(isolated ? NAMESPACES : []), ...WAYS[way], python, outcomes, plan, record];
  const untilMs = Math.min(performance.now() + MODULE_MS, startedMs + OVER_MS);
  const found = new Map();
  const linked = { flows: 0, ops: 0 };
  for (let stops = 0; ; stops++) {
    const status = await watch(command, folder, record, log, untilMs);
    const evidence = join(folder, EVIDENCE);
    if (existsSync(evidence) && statSync(evidence).size > 0) {
      const { flows, faults } = JSON.parse(readFileSync(evidence, "utf8"));
      linked.flows += flows;
      for (const { applied } of faults) linked.ops += applied;
      rmSync(evidence);
    }
    let underWay;
    let ended = false;
    for (const { id, outcome, reason, end } of lines(record).map((line) => JSON.parse(line))) {
      if (outcome !== undefined) found.set(id, { outcome, reason });
      if (id !== undefined) underWay = outcome === undefined ? id : undefined;
      ended ||= end === true;
    }
    const how = status === "hung" || status === "late" ? status : "crash";
    const where = `${how === "crash" ? `ended with ${status}, ` : ""}${whereItStood(log)}`;
    if (ended || underWay === undefined || how === "late") {
      const fine = ended && status === 0;
      const last = how === "late" ? `in ${underWay}` : `${status}: ${lines(log).at(-1) ?? "without a word"}`;
      found.set(endOf(module), { outcome: fine ? "pass" : how, reason: fine ? "" : last });
      return { found, linked, late: how === "late" };
    }
    appendFileSync(record, `${JSON.stringify({ id: underWay, outcome: how, reason: where })}\n`);
    found.set(underWay, { outcome: how, reason: where });
    if (stops === HANGS) return { found, linked };
  }
}

/** How the program ends is an outcome like a test's, under this name. */
const endOf = (module) => `the end of ${module}`;
const ABSENT = { outcome: "not run", reason: "" };
/** By module: the rounds' outcomes, each an object of maps by way. */
const results = new Map(modules.map((module) => [module, []]));
const linkedInAll = { flows: 0, ops: 0 };

/** Of a module's tests, those whose outcome was another in a way: how often, and both outcomes of the last time. */
function differing(module, way) {
  const counts = new Map();
  for (const { bare, [way]: other } of results.get(module)) {
    for (const id of new Set([...bare.keys(), ...other.keys()])) {
      const [expected, seen] = [bare.get(id) ?? ABSENT, other.get(id) ?? ABSENT];
      if (expected.outcome === seen.outcome) continue;
      counts.set(id, { times: (counts.get(id)?.times ?? 0) + 1, expected, seen });
    }
  }
  return counts;
}
const differsAtAll = (module) => OTHERS.some((way) => differing(module, way).size > 0);

function keepOnly(found, ran) {
  for (const id of found.keys()) if (!ran.has(id)) found.delete(id);
}

async function runRound(module, round) {
  const hangsBare = results
    .get(module)
    .flatMap(({ bare }) => [...bare].filter(([, { outcome }]) => outcome === "hung"));
  const without = hangsBare.map(([id]) => id);
  const began = performance.now();
  const ways = Object.keys(WAYS);
  const runs = [];
  if (isolated) runs.push(...(await Promise.all(ways.map((way) => runModule(module, way, round, without)))));
  else for (const way of ways) runs.push(await runModule(module, way, round, without)); // they would share ports
  // What one way had no time for is no other outcome; that it had no time is said once.
  for (const { found } of runs.filter(({ late }) => late)) for (const run of runs) keepOnly(run.found, found);
  results.get(module).push(Object.fromEntries(ways.map((way, i) => [way, runs[i].found])));
  const { flows, ops } = runs[ways.indexOf("linked")].linked;
  linkedInAll.flows += flows;
  linkedInAll.ops += ops;
  for (const id of without) for (const { found } of runs) found.set(id, { outcome: "hung", reason: "bare, too" });
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  const differ = OTHERS.map((way) => `${differing(module, way).size} ${way}`).join(", ");
  console.error(
    `round ${round}: ${module}, ${seconds} s; so far different: ${differ}; linked: ${flows} flows, ${ops} ops`,
  );
}

function checkArguments() {
  const files = modules.map((module) => `/usr/lib/python3.11/test/${module.split(".")[0]}`);
  const missing = modules.filter((_, i) => !existsSync(`${files[i]}.py`) && !existsSync(files[i]));
  if (missing.length > 0) {
    const packaged = existsSync("/usr/lib/python3.11/test/regrtest.py");
    const why = packaged
      ? "is no test module of CPython 3.11"
      : "is not there: apt-get install libpython3.11-testsuite";
    console.error(`transparency: ${missing.join(", ")} ${why}`);
    process.exit(2);
  }
  if (!Number.isInteger(rounds) || rounds < 1) {
    console.error(`transparency: --runs=${option("runs")} is not a number of rounds, such as 3`);
    process.exit(2);
  }
}

/** How many rounds have to differ: most of three, and the only one when there is one. */
const enough = (module) => Math.min(2, results.get(module).length);

checkArguments();
console.error(
  isolated ? "each run in namespaces of its own" : "no namespaces: the tests keep to loopback by themselves",
);
for (let round = 1; round <= rounds; round++) {
  const queue = modules.filter((module) => round === 1 || !quick || differsAtAll(module));
  const worker = async () => {
    for (let module = queue.shift(); module !== undefined; module = queue.shift()) {
      if (performance.now() - startedMs > ALL_MS) console.error(`round ${round}: no time left for ${module}`);
      else await runRound(module, round);
    }
  };
  await Promise.all(Array.from({ length: isolated ? SIDE_BY_SIDE : 1 }, worker));
}

console.log("| module | rounds | tests | bare: pass / fail / skip | different preloaded | different linked |");
console.log("|---|---|---|---|---|---|");
const different = [];
let tests = 0;
for (const [module, all] of results) {
  if (all.length === 0) {
    console.log(`| ${module} | 0 | – | – | – | – |`);
    different.push(`${module}: was not run`);
    continue;
  }
  const bare = [...all[0].bare].filter(([id]) => id !== endOf(module)).map(([, { outcome }]) => outcome);
  const count = (...wanted) => bare.filter((outcome) => wanted.includes(outcome)).length;
  const passed = count("pass", "expected failure");
  if (passed === 0) different.push(`${module}: none of its tests passes bare, so it shows nothing`);
  const columns = OTHERS.map((way) => {
    const found = [...differing(module, way)].filter(([, { times }]) => times >= enough(module));
    for (const [id, { times, expected, seen }] of found) {
      const say = ({ outcome, reason }) => (reason ? `${outcome} (${reason})` : outcome);
      different.push(`${way}, ${times} of ${all.length}: ${id}\n    bare ${say(expected)}\n    ${way} ${say(seen)}`);
    }
    return found.length;
  });
  const skipped = count("skip");
  const numbers = `${passed} / ${bare.length - passed - skipped} / ${skipped}`;
  console.log(`| ${module} | ${all.length} | ${bare.length} | ${numbers} | ${columns.join(" | ")} |`);
  tests += bare.length;
}
if (linkedInAll.ops === 0) different.push("linked: no operation was faulted, so nothing was on a link");
if (different.length > 0) console.log(`\nDifferent:\n${different.map((each) => `  ${each}`).join("\n")}`);
console.log(`\nlinked: ${linkedInAll.flows} flows, ${linkedInAll.ops} operations faulted`);
if (keep) console.log(`logs: ${scratch}`);
console.log(`transparency: ${tests} tests, ${different.length} differ`);
process.exit(different.length > 0 ? 1 : 0);
