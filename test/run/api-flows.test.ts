// Not one request misattributed: flows, threads and lookups side by side, some faulted and some not, each answer telling
// which it was.
import { describe, expect, it } from "vitest";
import { Programs } from "../programs/api-run.js";

const programs = new Programs();
const REQUESTS = 1000;

describe(`two flows of one thread, ${REQUESTS} requests each, interleaved`, () => {
  const clients = {
    "fetch of the context": [`() => askFetch(context.fetch)`, `() => askFetch(fetch)`],
    "http agent of the context": [`() => askHttp(context.agent.http)`, `() => askHttp()`],
    "node:http's own agent": [`() => askHttp()`, `() => askHttp()`],
    "the global fetch": [`() => askFetch(fetch)`, `() => askFetch(fetch)`],
    "raw sockets": [`() => ask()`, `() => ask()`],
  };
  it.each(Object.entries(clients))("%s", async (_, [inside, outside]) => {
    const said = await programs.said(`
      const [faulted, clean, other] = await Promise.all([
        mishap.policyContext(torn, (context) => tally(${REQUESTS}, 16, ${inside})),
        tally(${REQUESTS}, 16, ${outside}),
        mishap.policyContext({ latency: "1ms" }, (context) => tally(${REQUESTS}, 16, ${inside})),
      ]);
      say([faulted, clean, other]);
      process.exit(0);
    `);
    expect(said).toEqual([[{ torn: REQUESTS }, { calm: REQUESTS }, { calm: REQUESTS }]]);
  });
});

it("8 worker threads, each with a faulted and a clean flow", async () => {
  const worker = programs.write(`
    import { parentPort } from "node:worker_threads";
    const [faulted, raw, clean, auto] = await Promise.all([
      mishap.policyContext("torn", ({ fetch }) => tally(250, 4, () => askFetch(fetch))),
      mishap.policyContext(torn, () => tally(250, 4, () => ask())),
      tally(250, 4, () => ask()),
      mishap.fault("torn")(() => tally(250, 4, () => askHttp()))(),
    ]);
    parentPort.postMessage([faulted, raw, clean, auto]);
    process.exit(0);
  `);
  const said = await programs.said(`
    import { once } from "node:events";
    import { Worker } from "node:worker_threads";
    mishap.registerPolicy("torn", torn);
    const ends = Array.from({ length: 8 }, () => once(new Worker(${JSON.stringify(worker)}), "message"));
    const mine = tally(250, 4, () => ask());
    for (const [counts] of await Promise.all(ends)) say(counts);
    say(await mine);
  `);
  const each = [{ torn: 250 }, { torn: 250 }, { calm: 250 }, { torn: 250 }];
  expect(said).toEqual([...Array(8).fill(each), { calm: 250 }]);
});

it("threads with policies of their own keep them apart", async () => {
  const worker = programs.write(`
    import { parentPort, workerData } from "node:worker_threads";
    import dns from "node:dns";
    if (workerData !== null) mishap.setThreadPolicy(workerData);
    const lookup = () => dns.promises.lookup("localhost").then(() => "found");
    parentPort.postMessage([mishap.getThreadPolicy() ?? null, await tally(100, 4, () => ask()), await tally(20, 4, lookup)]);
  `);
  const said = await programs.said(`
    import { once } from "node:events";
    import { Worker } from "node:worker_threads";
    mishap.registerPolicy("torn", torn);
    mishap.registerPolicy("nameless", { dns: { nxdomain: "100%" } });
    const policies = ["torn", null, "nameless", null, "torn"];
    const workers = policies.map((workerData) => new Worker(${JSON.stringify(worker)}, { workerData }));
    const seen = await Promise.all(workers.map((worker) => once(worker, "message")));
    for (const [one] of seen) say(one);
    say(mishap.getThreadPolicy() ?? null);
  `);
  const calm = { calm: 100 };
  const found = { found: 20 };
  expect(said).toEqual([
    ["torn", { torn: 100 }, found],
    [null, calm, found],
    ["nameless", calm, { ENOTFOUND: 20 }],
    [null, calm, found],
    ["torn", { torn: 100 }, found],
    null,
  ]);
});

it("100 lookups of one name at once in each of two contexts, each answered for its own", async () => {
  const said = await programs.said(`
    import dns from "node:dns";
    import { promisify } from "node:util";
    import { lookup as named } from "node:dns/promises";
    const ways = [promisify(dns.lookup), (...args) => dns.promises.lookup(...args), (...args) => named(...args)];
    const nxdomain = { dns: { nxdomain: "100%" } };
    for (const lookup of ways) {
      const call = async () => (await lookup("localhost", { all: true })).length > 0;
      say(await Promise.all([
        mishap.policyContext(nxdomain, () => tally(100, 100, call)),
        mishap.policyContext({ latency: "1ms" }, () => tally(100, 100, call)),
        tally(100, 100, call),
      ]));
    }
    await mishap.policyContext(nxdomain, async () => {
      say(await ask({ host: "localhost" }).catch((error) => error.code));
      say(await dns.promises.lookup("localhost", 4).catch((error) => [error.code, error.syscall, error.hostname]));
      say(thrown(() => dns.promises.lookup(7)).includes("hostname"));
    });
    say(await dns.promises.lookup("localhost", 4));
    say(await mishap.policyContext(torn, () => dns.promises.lookup("localhost", 4)));
  `);
  const each = [{ ENOTFOUND: 100 }, { true: 100 }, { true: 100 }];
  const localhost = { address: "127.0.0.1", family: 4 };
  expect(said).toEqual([
    ...Array(3).fill(each),
    "ENOTFOUND",
    ["ENOTFOUND", "getaddrinfo", "localhost"],
    true,
    localhost,
    localhost,
  ]);
});

describe("sockets", () => {
  it("handed to another thread stay with their owner until cleared or rebound", async () => {
    const worker = programs.write(`
      import { parentPort, workerData } from "node:worker_threads";
      import net from "node:net";
      if (workerData !== null) mishap.setThreadPolicy(workerData);
      parentPort.on("message", async ({ fd, clear, bind }) => {
        if (clear) mishap.clearFd(fd);
        if (bind) mishap.bindFd(fd, bind);
        parentPort.postMessage(await askOver(new net.Socket({ fd })));
      });
    `);
    const said = await programs.said(`
      import { once } from "node:events";
      import net from "node:net";
      import { Worker } from "node:worker_threads";
      mishap.registerPolicy("torn", torn);
      mishap.registerPolicy("bent", { payloadMutation: { ...torn.payloadMutation, replaceWith: "bent" } });
      const plain = new Worker(${JSON.stringify(worker)}, { workerData: null });
      const bent = new Worker(${JSON.stringify(worker)}, { workerData: "bent" });
      const opened = async () => {
        const socket = net.connect(port, "127.0.0.1").pause();
        await once(socket, "connect");
        return socket;
      };
      const handOver = async (worker, inside, orders = {}) => {
        const socket = await inside(opened);
        worker.postMessage({ fd: socket._handle.fd, ...orders });
        const [answer] = await once(worker, "message");
        return answer;
      };
      const outside = (open) => open();
      const inTorn = (open) => mishap.policyContext("torn", open);
      say([await handOver(plain, outside), await handOver(plain, inTorn), await handOver(bent, inTorn)]);
      say([await handOver(bent, inTorn, { clear: true }), await handOver(plain, inTorn, { clear: true })]);
      say([await handOver(plain, outside, { bind: "bent" }), await handOver(plain, inTorn, { bind: "bent" })]);
      mishap.setThreadPolicy("torn");
      say([await handOver(plain, outside), await handOver(bent, outside), await handOver(bent, outside, { clear: true })]);
      process.exit(0);
    `);
    expect(said).toEqual([
      ["calm", "torn", "torn"],
      ["bent", "calm"],
      ["bent", "bent"],
      ["torn", "torn", "bent"],
    ]);
  });

  it("are bound one by one, as Node has them or by descriptor", async () => {
    const said = await programs.said(`
      import dgram from "node:dgram";
      import { once } from "node:events";
      import net from "node:net";
      mishap.registerPolicy("torn", torn);
      mishap.registerPolicy("lost", { packetLoss: "100%" });
      const bound = async (bind) => {
        const socket = net.connect(port, "127.0.0.1");
        await once(socket, "connect");
        bind(socket);
        return askOver(socket);
      };
      say([
        await bound((socket) => mishap.bindFd(socket, "torn")),
        await bound((socket) => mishap.bindFd(socket._handle.fd, "torn")),
        await bound((socket) => { mishap.bindFd(socket, "torn"); mishap.clearFd(socket); }),
        await bound(() => {}),
      ]);
      const [from, to] = [dgram.createSocket("udp4").bind(0, "127.0.0.1"), dgram.createSocket("udp4").bind(0, "127.0.0.1")];
      await Promise.all([once(from, "listening"), once(to, "listening")]);
      const got = [];
      to.on("message", (text) => got.push(String(text)));
      const send = (text) => new Promise((done) => from.send(text, to.address().port, "127.0.0.1", done));
      mishap.bindFd(from, "lost");
      await send("lost");
      mishap.clearFd(from);
      await send("kept");
      await once(to, "message");
      say(got);
      say(thrown(() => mishap.bindFd(new net.Socket(), "torn")).includes("open socket"));
      from.close();
      to.close();
    `);
    expect(said).toEqual([["torn", "torn", "calm", "calm"], ["kept"], true]);
  });
});

it("a process's and the run's policy hold where nothing nearer does", async () => {
  const said = await programs.said(`
    import { execFile } from "node:child_process";
    import { promisify } from "node:util";
    mishap.registerPolicy("torn", torn);
    mishap.registerPolicy("bent", { payloadMutation: { ...torn.payloadMutation, replaceWith: "bent" } });
    const child = async () => (await promisify(execFile)("curl", ["-s", url])).stdout;
    say([await ask(), await child()]);
    mishap.setProcessPolicy("torn");
    say([await ask(), await child(), await mishap.policyContext("bent", () => ask())]);
    mishap.setThreadPolicy("bent");
    say(await ask());
    mishap.setThreadPolicy(null);
    mishap.setProcessPolicy(null);
    mishap.setProjectPolicy("bent");
    say([await ask(), await child(), await mishap.policyContext("torn", () => ask())]);
    mishap.setProjectPolicy(null);
    say([await ask(), await child()]);
  `);
  expect(said).toEqual([
    ["calm", "calm"],
    ["torn", "calm", "bent"],
    "bent",
    ["bent", "bent", "torn"],
    ["calm", "calm"],
  ]);
});

it("fields given again share one registration, however many flows are inside", async () => {
  const said = await programs.said(`
    const inside = () => mishap.policyContext(torn, () => ask());
    say(await tally(1000, 50, inside));
    say(mishap.listPolicies());
  `);
  expect(said).toEqual([{ torn: 1000 }, []]);
});
