// Contexts, faulted functions and the registry, in programs that run as their author would run them.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Programs } from "../programs/api-run.js";

const programs = new Programs();

describe("policyContext", () => {
  it("holds for a callback, sync or async, and passes on what it gives", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      say(await ask());
      say(await mishap.policyContext("torn", async () => [await ask(), await ask()]));
      say(mishap.policyContext("torn", () => 42));
      say(await ask());
    `);
    expect(said).toEqual(["calm", ["torn", "torn"], 42, "calm"]);
  });

  it("is left when the callback throws or rejects, with the error as it was", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      const error = new RangeError("mine");
      try { mishap.policyContext("torn", () => { throw error; }); } catch (caught) { say(caught === error); }
      await mishap.policyContext("torn", async () => { throw error; }).catch((caught) => say(caught === error));
      say(await ask());
    `);
    expect(said).toEqual([true, true, "calm"]);
  });

  it("does not hide a rejection that nobody handles", async () => {
    const { code, stderr } = await programs.run(`
      mishap.policyContext(torn, async () => { throw new Error("unheard"); });
    `);
    expect(code).toBe(1);
    expect(stderr).toContain("unheard");
  });

  it("holds for the rest of a block that is using it", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      { using context = mishap.policyContext("torn"); say(await ask()); }
      say(await ask());
      { await using context = mishap.policyContext(torn); say(await ask()); }
      say(await ask());
      async function early() { using context = mishap.policyContext("torn"); throw new Error(await ask()); }
      await early().catch((error) => say(error.message));
      say(await ask());
    `);
    expect(said).toEqual(["torn", "calm", "torn", "calm", "torn", "calm"]);
  });

  it("nests: the innermost holds, and what held before comes back", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      const other = { payloadMutation: { ...torn.payloadMutation, replaceWith: "bent" } };
      {
        using outer = mishap.policyContext("torn");
        { using inner = mishap.policyContext(other); say(await ask()); }
        say(await ask());
        say(await mishap.policyContext(other, () => mishap.policyContext("torn", () => ask())));
        say(await ask());
      }
      say(await ask());
    `);
    expect(said).toEqual(["bent", "torn", "torn", "torn", "calm"]);
  });

  it("left out of order, the flow is in whichever is still held", async () => {
    const said = await programs.said(`
      const other = { payloadMutation: { ...torn.payloadMutation, replaceWith: "bent" } };
      const outer = mishap.policyContext(torn);
      const inner = mishap.policyContext(other);
      outer[Symbol.dispose]();
      say(await ask());
      inner[Symbol.dispose]();
      inner[Symbol.dispose]();
      say(await ask());
    `);
    expect(said).toEqual(["bent", "calm"]);
  });

  it("a flow that goes on after its context was left is not faulted any more", async () => {
    const said = await programs.said(`
      let go;
      const gate = new Promise((resolve) => { go = resolve; });
      const late = mishap.policyContext(torn, () => ({ answer: gate.then(() => ask()) }));
      go();
      say(await late.answer);
    `);
    expect(said).toEqual(["calm"]);
  });

  it("inline fields are registered for their time, together where they are the same", async () => {
    const said = await programs.said(`
      say(mishap.listPolicies());
      const first = mishap.policyContext(torn, async () => { const a = await ask(); await second; return a + await ask(); });
      const second = mishap.policyContext({ ...torn }, () => ask());
      say([await second, await first, await ask()]);
      for (let i = 0; i < 3000; i++) mishap.policyContext({ latency: (i % 1500) + "us" }, () => {});
      say(await mishap.policyContext(torn, () => ask()));
      say(mishap.listPolicies());
    `);
    expect(said).toEqual([[], ["torn", "torntorn", "calm"], "torn", []]);
  });

  it("fetch, agents and dispatcher of a context use its connections alone, and are closed with it", async () => {
    const said = await programs.said(`
      import { request } from "undici";
      const over = (dispatcher) => request(url, { dispatcher }).then(({ body }) => body.text());
      await Promise.all([askHttp(), askFetch(fetch)]);
      let kept;
      await mishap.policyContext(torn, async (context) => {
        kept = context;
        say([await askFetch(context.fetch), await askHttp(context.agent.http), await over(context.dispatcher)]);
        const asked = new Request(url, { method: "POST", body: "x", headers: { "x-a": "b" } });
        say(await (await context.fetch(asked)).text());
      });
      say([await askFetch(fetch), await askHttp()]);
      say(await askFetch(kept.fetch).catch((error) => /^UND_ERR_(CLOSED|DESTROYED)$/.test(error.cause?.code)));
      say(Object.keys(kept.agent.http.freeSockets));
    `);
    expect(said).toEqual([["torn", "torn", "torn"], "torn", ["calm", "calm"], true, []]);
  });

  it("a connection that node:http or the global fetch keeps alive is never used on the other side of a context", async () => {
    const said = await programs.said(`
      import http from "node:http";
      mishap.registerPolicy("torn", torn);
      const one = new http.Agent({ keepAlive: true, maxSockets: 1 });
      for (const call of [() => askHttp(), () => askHttp(one), () => askFetch(fetch)]) {
        const answers = [];
        for (let i = 0; i < 5; i++) answers.push(await call(), await mishap.policyContext("torn", call));
        const together = [mishap.policyContext("torn", call), call(), mishap.policyContext("torn", call), call()];
        answers.push(...(await Promise.all(together)));
        say(answers.join(" "));
      }
      process.exit(0);
    `);
    const answers = Array(5).fill("calm torn").concat("torn calm torn calm").join(" ");
    expect(said).toEqual([answers, answers, answers]);
  });

  it("holds for datagrams, listeners, and resolvers of c-ares", async () => {
    const said = await programs.said(`
      import dgram from "node:dgram";
      import dns from "node:dns/promises";
      import net from "node:net";
      import { once } from "node:events";
      // Answers every question with 127.0.0.1.
      const server = dgram.createSocket("udp4");
      server.on("message", (question, from) => {
        let end = 12;
        while (question[end] !== 0) end += question[end] + 1;
        const record = Buffer.from("c00c000100010000000000047f000001", "hex");
        const answer = Buffer.concat([question.subarray(0, end + 5), record]);
        answer.writeUInt16BE(0x8180, 2);
        answer.writeUInt32BE(0x00010001, 4);
        answer.writeUInt32BE(0, 8);
        server.send(answer, from.port, from.address);
      });
      server.bind(0, "127.0.0.1");
      await once(server, "listening");
      const resolver = () => {
        const made = new dns.Resolver({ timeout: 300, tries: 1 });
        made.setServers(["127.0.0.1:" + server.address().port]);
        return made.resolve4("some.test").catch((error) => error.code);
      };
      say(await resolver());
      say(await mishap.policyContext({ packetLoss: "100%" }, resolver));
      mishap.registerPolicy("sends", { payloadMutation: { ...torn.payloadMutation, target: "uplink_only" } });
      const answering = mishap.policyContext("sends", () => net.createServer((socket) => { socket.on("data", () => socket.end("calm")); }).listen(0));
      await once(answering, "listening");
      say(await ask({ port: answering.address().port }));
      server.close();
      answering.close();
    `);
    expect(said).toEqual([["127.0.0.1"], "ETIMEOUT", "torn"]);
  });
});

describe("fault", () => {
  it("wraps a sync or async function: this, arguments, result, name and length stay", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      function named(first, second) { return [this.who, first, second]; }
      const wrapped = mishap.fault("torn")(named);
      say([wrapped.name, wrapped.length, wrapped.call({ who: "me" }, 1, 2)]);
      const asking = mishap.fault(torn)(async (times) => { const all = []; while (times--) all.push(await ask()); return all; });
      say([await asking(2), await ask()]);
    `);
    expect(said).toEqual([
      ["named", 2, ["me", 1, 2]],
      [["torn", "torn"], "calm"],
    ]);
  });

  it("decorates methods", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      class Client {
        answer = "none";
        @mishap.fault("torn") async load() { this.answer = await ask(); return this; }
        @mishap.payloadMutation(torn.payloadMutation) static now() { return ask(); }
      }
      say([(await new Client().load()).answer, await Client.now(), await ask()]);
    `);
    expect(said).toEqual([["torn", "torn", "calm"]]);
  });

  it("auto takes the caller's context at the call, else its thread's policy, and keeps it to the end", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", torn);
      const asking = mishap.fault()(async () => { await null; return ask(); });
      say(await asking());
      say(await mishap.policyContext("torn", () => asking()));
      const context = mishap.policyContext(torn);
      const begun = asking();
      context[Symbol.dispose]();
      say(await begun);
      mishap.setThreadPolicy("torn");
      const late = asking();
      mishap.setThreadPolicy(null);
      say([await late, await asking()]);
    `);
    expect(said).toEqual(["calm", "torn", "torn", ["torn", "calm"]]);
  });

  it("runs the function as it is when the policy is missing at the call", async () => {
    const said = await programs.said(`
      const asking = mishap.fault("torn")(() => ask());
      say(await asking());
      mishap.registerPolicy("torn", torn);
      say(await asking());
      mishap.unregisterPolicy("torn");
      say(await asking());
    `);
    expect(said).toEqual(["calm", "torn", "calm"]);
  });

  it("has a short form for every fault field", async () => {
    const said = await programs.said(`
      const long = (decorate) => typeof decorate(() => {});
      say([
        mishap.latency("1ms"), mishap.jitter("1ms"), mishap.packetLoss("1%"), mishap.burstLoss("3"), mishap.rate("10mbps"),
        mishap.correlatedLoss({ pGoodToBad: "1%", pBadToGood: "25%", lossGood: "0%", lossBad: "50%" }),
        mishap.uplink({ latency: "1ms" }), mishap.downlink({ rate: "10mbps" }), mishap.timeout({ connect: "20ms" }),
        mishap.connectionError({ kind: "refused" }), mishap.halfOpen({ after: "32kb" }), mishap.packetDuplicate({}),
        mishap.packetReorder({}), mishap.dns({ delay: "1ms" }), mishap.sessionBudget({ maxTx: "1mb" }),
        mishap.payloadMutation(torn.payloadMutation),
      ].map(long).filter((type) => type === "function").length);
      say(await mishap.connectionError({ kind: "refused" })(() => ask().catch((error) => error.code))());
      const before = performance.now();
      await mishap.latency("50ms")(() => ask())();
      say(performance.now() - before >= 200);
    `);
    expect(said).toEqual([16, "ECONNREFUSED", true]);
  });
});

describe("the registry", () => {
  it("registers, replaces, lists, gives back and unregisters", async () => {
    const said = await programs.said(`
      const { registerPolicy, unregisterPolicy, getPolicy, listPolicies, policyContext } = mishap;
      registerPolicy("b", { latency: "0.05s", timeout: { connect: "20ms" } });
      registerPolicy("a", torn);
      say([listPolicies(), getPolicy("b"), getPolicy("c") ?? null]);
      registerPolicy("b", torn);
      say(await policyContext("b", () => ask()));
      say([unregisterPolicy("b"), unregisterPolicy("b"), listPolicies(), getPolicy("b") ?? null]);
      const context = policyContext("a");
      unregisterPolicy("a");
      say(await ask());
    `);
    expect(said).toEqual([
      [["a", "b"], { latency: "0.05s", timeout: { connect: "20ms" } }, null],
      "torn",
      [true, false, ["a"], null],
      "calm",
    ]);
  });

  it("changes what a connection that is open meets", async () => {
    const said = await programs.said(`
      mishap.registerPolicy("torn", { latency: "1ms" });
      await mishap.policyContext("torn", async ({ fetch }) => {
        say(await askFetch(fetch));
        mishap.registerPolicy("torn", torn);
        say(await askFetch(fetch));
      });
    `);
    expect(said).toEqual(["calm", "torn"]);
  });

  it("is one for all threads of a process", async () => {
    const worker = programs.write(`
      import { parentPort } from "node:worker_threads";
      const seen = [mishap.listPolicies(), Object.keys(mishap.getPolicy("main")), await mishap.policyContext("main", () => ask())];
      mishap.registerPolicy("worker", torn);
      mishap.registerPolicy("main", { latency: "1ms" });
      parentPort.postMessage(seen);
      parentPort.once("message", () => { parentPort.postMessage([mishap.unregisterPolicy("worker"), mishap.unregisterPolicy("main")]); parentPort.close(); });
    `);
    const said = await programs.said(`
      import { once } from "node:events";
      import { Worker } from "node:worker_threads";
      mishap.registerPolicy("main", torn);
      const worker = new Worker(${JSON.stringify(worker)});
      say((await once(worker, "message"))[0]);
      say([mishap.listPolicies(), mishap.getPolicy("main"), await mishap.policyContext("worker", () => ask())]);
      worker.postMessage("done");
      say((await once(worker, "message"))[0]);
      say([mishap.listPolicies(), mishap.getPolicy("main") ?? null]);
    `);
    expect(said).toEqual([
      [["main"], ["payloadMutation"], "torn"],
      [["main", "worker"], { latency: "1ms" }, "torn"],
      [true, true],
      [[], null],
    ]);
  });

  it("loads files, all of a file or nothing, and counts", async () => {
    const good = join(programs.folder, "good.yaml");
    const bad = join(programs.folder, "bad.json");
    writeFileSync(good, "lan:\n  latency: 1ms\nwan:\n  latency: 40ms\n  packet_loss: 1%\n");
    writeFileSync(bad, '{\n  "fine": {"latency": "1ms"},\n  "wrong": {"latncy": "1ms"}\n}\n');
    const said = await programs.said(`
      say([mishap.loadPolicies(${JSON.stringify(good)}), mishap.listPolicies(), mishap.getPolicy("wan")]);
      say(thrown(() => mishap.loadPolicies(${JSON.stringify(bad)})));
      say(mishap.listPolicies());
    `);
    expect(said[0]).toEqual([2, ["lan", "wan"], { latency: "40ms", packetLoss: "1%" }]);
    expect(said[1]).toContain(`${bad}:3:`);
    expect(said[1]).toContain("latency");
    expect(said[2]).toEqual(["lan", "wan"]);
  });

  it("says when the run has no room for another policy, and changes nothing then", async () => {
    const [error, before, after, again] = await programs.said(`
      let error = "nothing";
      for (let i = 0; i < 2000 && error === "nothing"; i++) error = thrown(() => mishap.registerPolicy("p" + i, torn));
      say(error);
      say(mishap.listPolicies().length);
      thrown(() => mishap.policyContext({ latency: "1ms" }));
      say(mishap.listPolicies().length);
      mishap.unregisterPolicy("p0");
      mishap.registerPolicy("another", torn);
      say(await mishap.policyContext("another", () => ask()));
    `);
    expect(error).toMatch(/^PolicyError: .*no room for another policy, \d+ are registered; unregister some/);
    expect(after).toBe(before);
    expect(again).toBe("torn");
  });
});

describe("errors", () => {
  const sentences: readonly (readonly [string, RegExp])[] = [
    [
      `mishap.policyContext("torn", { latency: "1ms" })`,
      /^PolicyError: policyContext: takes a name or fields, not both/,
    ],
    [`mishap.policyContext("slow_lnk")`, /^PolicyError: policyContext "slow_lnk": .* the nearest is slow_link$/],
    [`mishap.policyContext({ latncy: "1ms" })`, /^PolicyError: .*"latncy"; the nearest is latency$/],
    [`mishap.fault({ packetLoss: "1" })`, /^PolicyError: packetLoss "1": /],
    [`mishap.registerPolicy("x", { packet_loss: "1%" })`, /^PolicyError: .*packetLoss/],
    [`mishap.registerPolicy("", {})`, /^PolicyError: .*name/],
    [`mishap.registerPolicy("x".repeat(64), {})`, /^PolicyError: .*at most 63 bytes/],
    [`mishap.registerPolicy("{x}", {})`, /^PolicyError: .*does not begin with \{/],
    [`mishap.registerPolicy("auto", {})`, /^PolicyError: .*not auto/],
    [`mishap.registerPolicy("x", { dns: { delay: "1ms" }, targets: ["tcp://10.0.0.0/8"] })`, /^PolicyError: targets/],
    [`mishap.setThreadPolicy("nobody")`, /^PolicyError: setThreadPolicy "nobody": no policy has this name/],
    [`mishap.bindFd(-1, "slow_link")`, /^PolicyError: bindFd: needs an open socket/],
    [
      `mishap.registerPolicy("listed", { latency: "1ms", decisions: [{ flow: "tcp:127.0.0.1:80#1@0", op: "send",
        direction: "uplink", unit: 0, stage: "chaos_base", verdict: "delay", fault: "latency", value: 1 }] })`,
      /^PolicyError: decisions: hold for a whole run/,
    ],
  ];
  it("are sentences that say what would be right", async () => {
    const calls = sentences.map(([call]) => `say(thrown(() => ${call}));`).join("\n");
    const said = await programs.said(`mishap.registerPolicy("slow_link", { latency: "1ms" });\n${calls}`);
    sentences.forEach(([call, expected], at) => {
      expect(said[at], call).toMatch(expected);
      expect(said[at], call).not.toContain("\n");
    });
  });
});

describe("a process that is not under the interceptor", () => {
  const use = `
    mishap.registerPolicy("torn", torn);
    say([mishap.listPolicies(), mishap.getPolicy("torn").payloadMutation.type, mishap.unregisterPolicy("gone")]);
    const asking = mishap.fault("torn")(async (x) => x + await ask());
    const calls = [
      () => mishap.policyContext("torn")[Symbol.dispose](), () => mishap.policyContext(torn, () => {}), () => asking(""),
      () => mishap.setThreadPolicy("torn"), () => mishap.getThreadPolicy(), () => mishap.setProcessPolicy("torn"),
      () => mishap.setProjectPolicy("torn"), () => mishap.bindFd(0, "torn"), () => mishap.clearFd(0),
    ];`;

  it("keeps a registry, and says how to run it when something is to be faulted", async () => {
    const said = await programs.said(`${use} say(calls.map(thrown));`, { intercepted: false });
    expect(said[0]).toEqual([["torn"], "replace_pattern", false]);
    expect(said[1]).toHaveLength(9);
    for (const sentence of said[1] as string[]) {
      expect(sentence).toMatch(/^NotInterceptedError: .*`mishap run -- node app\.js`/);
    }
  });

  const works = `
    say(calls.map(thrown));
    say([await asking("is "), await mishap.policyContext("torn", ({ fetch }) => askFetch(fetch))]);`;
  it.each([
    ["configure({ strict: false })", `mishap.configure({ strict: false }); ${use} ${works}`, {}],
    ["MISHAP_STRICT=0", `${use} ${works}`, { MISHAP_STRICT: "0" }],
  ])("does nothing with %s", async (_, source, env) => {
    const said = await programs.said(source, { intercepted: false, env });
    expect(said[1]).toEqual(Array(9).fill("nothing"));
    expect(said[2]).toEqual(["is calm", "calm"]);
  });
});

it("prints no warning, even where deprecations are shown", async () => {
  const said = await programs.said(`say(await mishap.policyContext(torn, ({ fetch }) => askFetch(fetch)));`, {
    node: ["--pending-deprecation"],
  });
  expect(said).toEqual(["torn"]);
});
