// As relay-kill.test.ts, at so many more moments that both make fifty.
import { chmodSync } from "node:fs";
import { beforeAll, beforeEach, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { needsKernelAndTool } from "./support/kernel-kill.js";
import { compile } from "./support/programs.js";
import { BlocksPeer, disturb, disturbances } from "./support/relay-kill.js";

const folder = scratchFolder();
let peer: BlocksPeer;

beforeAll(async () => {
  chmodSync(folder, 0o755); // for another user, too
  peer = new BlocksPeer(await compile(folder, "blocks.c", "-static"));
});
beforeEach(needsKernelAndTool);

it.each(disturbances(11))("the %s by %s, moment %i", (victim, way, at) => disturb(victim, way, peer, at));
