// One policy and one seed decide alike through the interceptor and through the relay, however either cuts the bytes.
import { createServer } from "node:net";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { freshProject, scratchFolder, start } from "./cli-harness.js";
import { alikeCommand, alikeServer, decidedBy, expectAlike, expectAlikeUnder } from "./support/alike.js";
import { build, cannotBuild, ExchangePeer, needsKernel } from "./support/kernel.js";

const folder = scratchFolder();
let ports = "";
beforeAll(async () => {
  ports = await alikeServer();
});
beforeEach(needsKernel);

const DELAYS = ["--latency", "1ms", "--jitter", "1ms"];

describe("decisions are alike", () => {
  it.each([
    [
      "streams that lose, double and disorder their units",
      [
        ...DELAYS,
        "--packet-loss",
        "2%",
        "--burst-loss",
        "3",
        "--loss-mode",
        "drop",
        "--packet-duplicate",
        "3%:2",
      ].concat(["--packet-reorder", "5%:3:20ms"]),
      { streams: 3, bytes: 3_000_000 },
      ["latency", "jitter", "packet_loss", "burst_loss", "packet_duplicate", "packet_reorder"],
    ],
    [
      "a loss that comes in spells, on a slow line",
      [
        ...["--rate", "400mbps"],
        ...["--correlated-loss.p-good-to-bad", "1%", "--correlated-loss.p-bad-to-good", "30%"],
        ...["--correlated-loss.loss-good", "0.1%", "--correlated-loss.loss-bad", "50%", "--loss-mode", "drop"],
      ],
      { streams: 3, bytes: 3_000_000 },
      ["correlated_loss"],
    ],
    [
      "requests and answers, with losses that are repaired",
      [...DELAYS, "--jitter-distribution", "pareto", "--packet-loss", "0.5%"],
      { talks: 6, exchanges: 150 },
      ["latency", "jitter", "packet_loss"],
    ],
    [
      "conversations that come to the end of their budget",
      [
        ...[...DELAYS, "--session-budget.max-tx", "500kb", "--session-budget.max-rx", "700kb"],
        ...["--session-budget.action", "connection_error"],
      ],
      { streams: 2, bytes: 2_000_000, talks: 3, exchanges: 300 },
      ["latency", "jitter", "session_budget"],
    ],
    [
      "connections that are reset at some unit",
      ["--latency", "1ms", "--connection-error", "reset:0.2%"],
      { streams: 3, bytes: 3_000_000, talks: 6, exchanges: 200 },
      ["latency", "connection_error"],
    ],
  ] as const)("%s", async (_, flags, load, faults) => {
    const times = await expectAlikeUnder(folder, ports, ["--seed", "7", ...flags], load);
    for (const fault of faults) expect(times.get(fault), fault).toBeGreaterThan(0);
  });

  // What is changed is what one call carries, and a call is what one read finds: here each is one packet.
  it("calls that are changed or counted, where both see the same ones", async ({ skip }) => {
    const missing = cannotBuild("client");
    skip(missing !== undefined, missing);
    const program = await build(folder, "client");
    const peer = await ExchangePeer.start(600, 400);
    const changes = ["--payload-mutation.type", "corrupt_bytes", "--payload-mutation.every-n-packets", "1"];
    const flags = ["--seed", "5", ...changes, "--payload-mutation.prob", "50%"];
    const command = [program, ...peer.exchange(40)];
    const [interceptor, relay] = [
      await decidedBy(folder, "interceptor", flags, command),
      await decidedBy(folder, "relay", flags, command),
    ];
    const times = expectAlike(interceptor.file, relay.file);
    expect(times.get("payload_mutation")).toBeGreaterThan(20);
  });

  it("a schedule, and all that hangs on the clock: what one decided the other decides again", async () => {
    const flags = ["--seed", "3", "--jitter", "2ms", "--packet-loss", "1%", "--loss-mode", "drop"];
    const load = { streams: 3, bytes: 3_000_000 };
    const schedule = ["--schedule", "flapping:40ms/20ms", "--packet-duplicate", "3%:2"];
    const first = await decidedBy(folder, "interceptor", [...flags, ...schedule], alikeCommand(ports, load, 1));
    const again = await decidedBy(folder, "relay", ["--replay", first.file], alikeCommand(ports, load, 2));
    expect(again.evidence.replay).toMatchObject({ met: again.evidence.replay?.decisions, unmet: 0, unknown: 0 });
    // How many are met while the schedule has them in force is the machine's.
    expect(expectAlike(first.file, again.file).get("jitter")).toBeGreaterThan(0);
  });

  it("redis-benchmark", async ({ skip }) => {
    const port = await freeTcpPort();
    const data = ["--save", "", "--appendonly", "no", "--dir", folder];
    const redis = start("redis-server", ["--port", String(port), "--bind", "127.0.0.1", ...data]);
    const missing = await Promise.race([
      redis.says("Ready to accept").then(() => false),
      redis.finished.catch(() => true),
    ]);
    skip(missing === true, "redis-server is not installed");
    try {
      const flags = ["--seed", "1", "--latency", "1ms", "--jitter", "1ms", "--packet-loss", "0.2%"];
      // One client at a time: which of several gets the next request is a race.
      const words = ["-p", String(port), "-c", "1", "-n", "400", "-t", "set,get,lrange_300", "-q"];
      const command = ["redis-benchmark", ...words];
      const [interceptor, relay] = [
        await decidedBy(folder, "interceptor", flags, command),
        await decidedBy(folder, "relay", flags, command),
      ];
      expect(expectAlike(interceptor.file, relay.file).get("latency")).toBeGreaterThan(3000);
    } finally {
      redis.child.kill("SIGKILL");
    }
  });
});

async function freeTcpPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === "string") throw new Error(`no port for ${freshProject()}`);
  return address.port;
}
