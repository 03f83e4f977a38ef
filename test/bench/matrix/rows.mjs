// The rows of the matrix: which program is under mishap, as server or as client, who is at the other end, and how its
// figures are read. A row's measure() runs once in a Stage and returns
//   samples   [when a request ended, in ms since 1970; how long it took, in ms, or null for a warm-up]
//   doneAtMs  when each request ended, warm-ups too: by them the processor time is shared out
//   heldMs    how long the other end took for each answer on its own account, by a timer
//   gaps      whether the samples begin when that timer was due; else they hold all of it
//   lost      how many requests got no answer
//   why       of the first such, in words, where that is known
//   subject   the program under test
//   says      optionally, what the program or a tool says of the same requests: p50 and p99 in ms
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, sleep } from "./processes.mjs";

export const root = fileURLToPath(new URL("../../../", import.meta.url));
const built = join(root, "build/matrix");
const load = join(built, "load");
const program = (name) => fileURLToPath(new URL(`programs/${name}`, import.meta.url));
const DEBIAN_PYTHON = "/usr/bin/python3";
const PYTHON = existsSync(DEBIAN_PYTHON) ? DEBIAN_PYTHON : "python3";
/** Its second compiler and its collector's threads would be at work beside it, for longer than a row takes. */
const JAVA = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", built];
const NODE_24 = "24.9.0";

/** The first requests of each connection, which find nothing warm, do not count. */
const WARM_UP = 3;

/** Compiles what the rows need, unless that was done already. */
export function build() {
  mkdirSync(built, { recursive: true });
  const newer = (output, source) => existsSync(output) && statSync(output).mtimeMs > statSync(source).mtimeMs;
  const source = join(root, "test/programs/load.c");
  if (!newer(load, source)) {
    execFileSync("cc", ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", load, source]);
  }
  for (const name of ["NioServer", "HttpRounds"]) {
    if (newer(join(built, `${name}.class`), program(`${name}.java`))) continue;
    execFileSync("javac", ["-d", built, program(`${name}.java`)]);
  }
}

/** Node 24 from npm, downloaded once. */
function node24() {
  const name = `node-linux-${process.arch}`;
  const binary = join(built, "node_modules", name, "bin/node");
  if (!existsSync(binary)) {
    const flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    writeFileSync(join(built, "package.json"), "{}\n"); // else npm would take the repository for its place
    execFileSync("npm", ["install", ...flags, `${name}@${NODE_24}`], { cwd: built, stdio: "ignore" });
  }
  return binary;
}

const asUser = (user) => [`--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
const isRoot = process.getuid() === 0;

// ---- servers: start() returns [command, options] of a server on that port ----

const redis = {
  start: (stage, port) => [
    ["redis-server", "--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--dir", stage.folder],
  ],
};

export const nginx = {
  start(stage, port) {
    const { folder } = stage;
    writeFileSync(join(folder, "index.html"), `${"x".repeat(1023)}\n`);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (name) => `${name}_temp_path ${folder}/${name};`,
    );
    writeFileSync(
      join(folder, "nginx.conf"),
      `daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr;
       events { worker_connections 512; }
       http {
         access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; ${temporary.join(" ")}
         server { listen 127.0.0.1:${port}; root ${folder}; }
       }`,
    );
    return [["nginx", "-e", "stderr", "-p", folder, "-c", join(folder, "nginx.conf")]];
  },
};

const memcached = {
  start: (_stage, port) => [
    ["memcached", "-l", "127.0.0.1", "-p", `${port}`, "-U", "0", ...(isRoot ? ["-u", "nobody"] : [])],
  ],
  async prepare(port) {
    const socket = connect(port, "127.0.0.1");
    socket.write("set key 0 0 5\r\nhello\r\n");
    await once(socket, "data");
    socket.destroy();
  },
};

const postgres = {
  start(stage, port) {
    const versions = "/usr/lib/postgresql";
    const newest = readdirSync(versions).sort((a, b) => Number(b) - Number(a))[0];
    const programs = join(versions, newest, "bin");
    const data = join(stage.folder, "data");
    const user = isRoot ? asUser("postgres") : [];
    const initdb = ["-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C"];
    execFileSync("setpriv", [...user, "--", join(programs, "initdb"), ...initdb], { cwd: "/", stdio: "ignore" });
    const flags = ["-D", data, "-h", "127.0.0.1", "-p", `${port}`, "-k", "", "-F"];
    return [[join(programs, "postgres"), ...flags], { user, cwd: "/", endSignal: "SIGINT" }];
  },
};

const scripted = (...command) => ({ start: (_stage, port) => [[...command, `${port}`]] });
const servers = {
  redis,
  nginx,
  memcached,
  postgres,
  node: scripted(process.execPath, program("node_server.mjs")),
  node24: { start: (_stage, port) => [[node24(), program("node_server.mjs"), `${port}`]] },
  "http.server": scripted(PYTHON, program("http_server.py")),
  asyncio: scripted(PYTHON, program("asyncio_server.py")),
  java: scripted(...JAVA, "NioServer"),
};

// ---- tools that measure for themselves ----

const inMs = (figure, unit) => Number(figure) * { us: 1e-3, ms: 1, s: 1e3 }[unit];

function readWrk(said) {
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(said);
  const refused = /Non-2xx or 3xx responses: (\d+)/.exec(said);
  const lost = [...(errors ?? []).slice(1), refused?.[1] ?? 0].reduce((sum, count) => sum + Number(count), 0);
  const percentile = (which) => inMs(...new RegExp(`${which}%\\s+([\\d.]+)(us|ms|s)\\b`).exec(said).slice(1));
  return { lost, says: { tool: "wrk", p50: percentile(50), p99: percentile(99) } };
}

function readRedisBenchmark(said) {
  const figures = said
    .trim()
    .split("\n")
    .at(-1)
    .split(",")
    .map((each) => Number(each.replaceAll('"', "")));
  return { lost: 0, says: { tool: "redis-benchmark", p50: figures[4], p99: figures[6] } };
}

const wrk = (port, { connections, requests, periodMs }) => {
  const seconds = Math.max(1, Math.ceil((requests * periodMs) / 1000));
  return ["wrk", "-t1", `-c${connections}`, `-d${seconds}`, "--latency", `http://127.0.0.1:${port}/`];
};
const redisBenchmark = (port, { connections, requests }) => [
  ...["redis-benchmark", "-p", `${port}`, "-t", "ping_mbulk", "--csv"],
  ...["-c", `${connections}`, "-n", `${connections * requests}`],
];
const tools = { wrk: [wrk, readWrk], "redis-benchmark": [redisBenchmark, readRedisBenchmark] };

const UNTIMED_US = 50;

/**
 * pgbench's command and how its log is read. In a control each client's every other transaction is a pause, so that the
 * requests come at the rhythm of the delayed ones: after a wait, and all clients' at once.
 */
function pgbench(stage, port, { connections, requests, thinkMs }) {
  const script = join(stage.folder, "script.sql");
  const paced = thinkMs > 0;
  const turns = `\\set n :n + 1\n\\if :n % 2\n\\sleep ${thinkMs} ms\n\\else\nselect 1;\n\\endif\n`;
  writeFileSync(script, paced ? turns : "select 1;\n");
  const transactions = (paced ? 2 : 1) * (requests + WARM_UP);
  const command = [
    ...["pgbench", "-n", "-c", `${connections}`, "-t", `${transactions}`, "-f", script, "-D", "n=0"],
    ...["-l", "--log-prefix", join(stage.folder, "log")],
    ...["-h", "127.0.0.1", "-p", `${port}`, "-U", "postgres", "postgres"],
  ];
  const read = (said) => {
    const seen = new Map();
    const samples = [];
    const logs = readdirSync(stage.folder).filter((name) => name.startsWith("log."));
    const lines = logs.flatMap((name) => readFileSync(join(stage.folder, name), "utf8").trim().split("\n"));
    for (const line of lines) {
      const [client, , tookUs, , seconds, microseconds] = line.split(" ").map(Number);
      const turn = seen.get(client) ?? 0;
      seen.set(client, turn + 1);
      if (paced && turn % 2 === 0) continue;
      const nth = paced ? (turn - 1) / 2 : turn;
      // An answer that is there at once is timed by a clock that pgbench read before: 0 or little more.
      const counts = nth >= WARM_UP && tookUs > UNTIMED_US;
      samples.push([seconds * 1e3 + microseconds / 1e3, counts ? tookUs / 1e3 : null]);
    }
    const failed = Number(/number of failed transactions: (\d+)/.exec(said)?.[1] ?? 0);
    return { samples, lost: failed + connections * transactions - lines.length };
  };
  return { command, read };
}

const atMs = (samples) => samples.map(([at]) => at);

// ---- a server under mishap ----

async function startServer(stage, server, start) {
  const port = await freePort();
  const [command, options] = server.start(stage, port);
  const running = start(command, options);
  await stage.accepting(running, port);
  await server.prepare?.(port);
  return { running, port };
}

async function measureServer(row, stage, plan) {
  const { running: subject, port } = await startServer(stage, row.server, stage.startSubject.bind(stage));
  subject.watch();
  if (row.protocol === "postgres") {
    const { command, read } = pgbench(stage, port, plan);
    const { samples, lost } = read(await stage.start(command).finish());
    return { subject, samples, doneAtMs: atMs(samples), heldMs: [], lost };
  }
  const options = {
    ...{ proto: row.protocol, port, connections: plan.connections, requests: plan.requests, warm_up: WARM_UP },
    ...{ period_us: plan.periodMs * 1000, think_us: plan.thinkMs * 1000 },
  };
  const client = stage.start([load, "client", ...Object.entries(options).map(([name, value]) => `${name}=${value}`)]);
  const { samples, lost, held_ms: heldMs } = JSON.parse(await client.finish());
  const why = client.complained.split("\n")[0];
  const seen = { subject, samples, doneAtMs: atMs(samples), heldMs, gaps: heldMs.length > 0, lost, why };
  // The tool would load a bare server as fast as it can, which says nothing of a paced one.
  if (row.checkedBy === undefined || plan.thinkMs > 0) return seen;
  const [command, read] = tools[row.checkedBy];
  const { lost: lostByTool, says } = read(await stage.start(command(port, plan)).finish());
  return { ...seen, lost: lost + lostByTool, says };
}

// ---- a client under mishap ----

/**
 * A program of ours, or curl: prints each request's time; the first ones of each connection warm up. Connections that started
 * together would go on meeting in the program, as often as chance had it: theirs are spread over a period, bare and under fault.
 */
const readRounds = (said) => JSON.parse(said).map(([nth, ms]) => [0, nth < WARM_UP ? null : ms]);
const readCurl = (said) =>
  said
    .trim()
    .split("\n")
    .map((seconds, nth) => [0, nth < WARM_UP ? null : Number(seconds) * 1000]);
const urls = (port, plan) => Array.from({ length: plan.requests + WARM_UP }, (_, i) => `http://127.0.0.1:${port}/${i}`);
const rounds = (...command) => ({
  command: (port, plan) => [
    ...command,
    ...[`http://127.0.0.1:${port}/`, `${plan.connections}`, `${plan.requests + WARM_UP}`, `${plan.periodMs}`],
  ],
  readSamples: readRounds,
});
const curl = (...flags) => ({
  command: (port, plan) => [
    ...["curl", "-sS", "-o", "/dev/null", "-w", "%{time_total}\\n", ...flags],
    `http://127.0.0.1:${port}/[1-${plan.requests + WARM_UP}]`,
  ],
  readSamples: readCurl,
});
const byTool = (name) => ({ command: tools[name][0], readSays: tools[name][1] });
const clients = {
  curl: curl(),
  "curl/close": curl("-H", "Connection: close"),
  wget: {
    command: (port, plan) => ["wget", "--no-config", "-q", "--tries=1", "-O", "/dev/null", ...urls(port, plan)],
  },
  wrk: byTool("wrk"),
  "redis-benchmark": byTool("redis-benchmark"),
  node: rounds(process.execPath, program("node_client.mjs")),
  "http.client": rounds(PYTHON, program("http_client.py")),
  asyncio: rounds(PYTHON, program("asyncio_client.py")),
  java: rounds(...JAVA, "HttpRounds"),
};

/** Against load's server, which in a control holds each answer as long as the delay would: the rhythm is the same. */
async function measureClient(row, stage, plan) {
  const server = stage.start([load, "server", `hold_us=${plan.thinkMs * 1000}`], { stdin: "pipe" });
  while (!server.said.includes("\n")) await sleep(5);
  const port = Number(server.said.split("\n")[0]);
  const { command, readSamples, readSays } = row.client;
  const subject = stage.startSubject(command(port, plan));
  subject.watch();
  const said = await subject.finish();
  server.closeStdin();
  const seen = JSON.parse((await server.finish()).split("\n")[1]);
  const samples = readSamples?.(said) ?? seen.samples;
  const { lost, says } = readSays?.(said) ?? {
    lost: plan.connections * (plan.requests + WARM_UP) - seen.samples.length,
  };
  const counted = readSamples ? plan.connections * (plan.requests + WARM_UP) - samples.length : 0;
  // What the server saw from an answer to the next request has no holding in it.
  const heldMs = readSamples || readSays ? seen.held_ms : [];
  const gaps = heldMs.length > 0 && !readSamples;
  return { subject, samples, doneAtMs: atMs(seen.samples), heldMs, gaps, lost: lost + counted, says };
}

async function measureSqlClient(row, stage, plan) {
  const { port } = await startServer(stage, postgres, stage.start.bind(stage));
  if (row.client === "pgbench") {
    const { command, read } = pgbench(stage, port, plan);
    const subject = stage.startSubject(command);
    subject.watch();
    const { samples, lost } = read(await subject.finish());
    return { subject, samples, doneAtMs: atMs(samples), heldMs: [], lost };
  }
  // psql asks one query after the other. In a control every other one only takes the time that the delay would; what a
  // query costs after such a wait is another run's, of nothing but those.
  const wait = `select pg_sleep(${plan.thinkMs / 1000});\n`;
  const query = "select 1;\n";
  const count = plan.requests + WARM_UP;
  if (plan.thinkMs === 0) {
    const { subject, times } = await psql(stage, port, query.repeat(count));
    return { subject, samples: withoutWarmUp(times), doneAtMs: atMs(times), heldMs: [], lost: count - times.length };
  }
  const answers = (await psql(stage, port, (wait + query).repeat(count))).times.filter((_, i) => i % 2 === 1);
  const { subject, times } = await psql(stage, port, wait.repeat(count));
  return { subject, samples: withoutWarmUp(answers), doneAtMs: atMs(times), heldMs: [], lost: count - answers.length };
}

/** Runs a script of queries; `times`: when each was answered, and the milliseconds it took as psql says. */
async function psql(stage, port, queries) {
  const script = join(stage.folder, "many.sql");
  writeFileSync(script, `\\timing on\n${queries}`);
  const times = [];
  const onLine = (line) => {
    const ms = /^Time: ([\d.]+) ms/.exec(line)?.[1];
    if (ms !== undefined) times.push([Date.now(), Number(ms)]);
  };
  const command = ["psql", "-XAt", "-f", script, `host=127.0.0.1 port=${port} user=postgres dbname=postgres`];
  const subject = stage.startSubject(command, { onLine });
  subject.watch();
  await subject.finish();
  return { subject, times };
}

const withoutWarmUp = (times) => times.map(([at, ms], i) => [at, i < WARM_UP ? null : ms]);

// ---- the table ----

const EXACT_MS = 0.5;
const MANAGED_MS = 1.5; // for runtimes with a loop, a lock or a collector of their own
const asServer = (name, protocol, connections, options = {}) =>
  connections.map((count) => ({
    ...{ side: "server", name, protocol, connections: count, server: servers[name], trips: 1, within: EXACT_MS },
    ...{ measure: measureServer },
    ...options,
  }));
const asClient = (name, connections, options = {}) =>
  connections.map((count) => ({
    ...{ side: "client", name, connections: count, client: clients[name] ?? name, trips: 1, within: EXACT_MS },
    ...{ measure: clients[name] ? measureClient : measureSqlClient },
    ...options,
  }));
const managed = { within: MANAGED_MS };

export const rows = [
  ...asServer("redis", "redis", [1, 8, 50], { checkedBy: "redis-benchmark" }),
  ...asServer("nginx", "http", [1, 64], { checkedBy: "wrk" }),
  ...asServer("memcached", "memcached", [1, 50]),
  ...asServer("postgres", "postgres", [1, 8]),
  ...asServer("node", "http", [50], managed),
  ...asServer("node24", "http", [50], managed),
  ...asServer("http.server", "http", [8], managed),
  ...asServer("asyncio", "http", [50], managed),
  ...asServer("java", "echo", [50], managed),
  ...asClient("curl", [1]),
  ...asClient("curl/close", [1], { trips: 2 }),
  ...asClient("wget", [1]),
  ...asClient("wrk", [1, 64]),
  ...asClient("redis-benchmark", [1, 50]),
  ...asClient("pgbench", [1, 8]),
  ...asClient("psql", [1]),
  ...asClient("node", [8], managed),
  ...asClient("http.client", [1], managed),
  ...asClient("asyncio", [8], managed),
  ...asClient("java", [8], managed),
];

/** One of each kind of waiting, for a quick look. */
const QUICK = ["server redis 8", "server nginx 8", "server node 8", "server asyncio 8", "server postgres 8"];
const QUICK_CLIENTS = ["client curl 1", "client node 8", "client asyncio 8", "client wrk 8"];
export const quickRows = [...QUICK, ...QUICK_CLIENTS].map((wanted) => {
  const [side, name, connections] = wanted.split(" ");
  const row = rows.find((each) => each.side === side && each.name === name);
  return { ...row, connections: Number(connections), checkedBy: undefined };
});
