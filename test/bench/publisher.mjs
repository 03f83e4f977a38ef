// Changes a policy again and again while another process of the run sends, and says how many microseconds after each
// publication the first send met it; negative where a send met it before the call that publishes had returned. Run
// under mishap: publisher.mjs YARDSTICK TIMES
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { compile, parsePolicy } from "../../dist/policy/index.js";
import { Segment } from "../../dist/segment/index.js";

const [yardstick, times] = process.argv.slice(2);
const PAUSE_MS = 1;
const segment = Segment.open(process.env.MISHAP_SEGMENT);
const rows = [{}, { connection_error: { kind: "refused" } }].map((fields) => {
  return compile("changed", parsePolicy(fields), { runSeed: 1n }).row;
});
const slot = segment.claimPolicy();
segment.publish(slot, rows[0], []);
segment.bindProject(slot);

const sender = spawn(yardstick, ["notice", "seconds=60"], { stdio: ["ignore", "pipe", "inherit"] });
const lines = createInterface({ input: sender.stdout })[Symbol.asyncIterator]();
await lines.next();
const lateUs = [];
for (let i = 0; i < times; i++) {
  await pause(PAUSE_MS);
  segment.publish(slot, rows[(i + 1) % 2], []);
  const publishedNs = process.hrtime.bigint();
  const { turn_ns: turnNs } = JSON.parse((await lines.next()).value);
  lateUs.push((turnNs - Number(publishedNs)) / 1000);
}
sender.kill();
console.log(JSON.stringify(lateUs));
