// As relay-alike.test.ts, over more than a million units: four policies, each over a quarter of them.
import { beforeAll, beforeEach, expect, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { alikeServer, expectAlikeUnder } from "./support/alike.js";
import { needsKernel } from "./support/kernel.js";

const folder = scratchFolder();
let ports = "";
beforeAll(async () => {
  ports = await alikeServer();
});
beforeEach(needsKernel);

const LOST = ["--packet-loss", "1%", "--loss-mode", "drop"];

it.each([
  [
    "streams, disordered",
    ["--jitter", "1ms", ...LOST, "--burst-loss", "2", "--packet-duplicate", "2%:2", "--packet-reorder", "3%:4:10ms"],
    { streams: 4, bytes: 48_000_000 },
  ],
  ["streams, on a line", ["--jitter", "3ms", "--rate", "400mbps", ...LOST], { streams: 5, bytes: 38_000_000 }],
  ["streams, repaired", ["--jitter", "500us", "--packet-loss", "0.01%"], { streams: 4, bytes: 48_000_000 }],
  ["requests and answers", ["--jitter", "200us", "--packet-loss", "0.05%"], { talks: 12, exchanges: 4000 }],
] as const)("%s", { timeout: 600_000 }, async (_, flags, load) => {
  // The latency is nothing that the clock would notice; it counts the units.
  const times = await expectAlikeUnder(folder, ports, ["--seed", "23", "--latency", "1us", ...flags], load);
  expect(times.get("latency")).toBeGreaterThanOrEqual(250_000);
  expect(times.get("jitter")).toBeGreaterThan(0);
});
