// The relay or the loader killed, or stopped, at random moments under load.
import { chmodSync } from "node:fs";
import { beforeAll, beforeEach, expect, it } from "vitest";
import { scratchFolder, until } from "./cli-harness.js";
import { orphans } from "./support/kernel.js";
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

it.each(disturbances(2))("the %s by %s, moment %i", (victim, way, at) => disturb(victim, way, peer, at));

it("leaves nothing loaded that no loader holds", async () => {
  await until("everything of mishap's is some loader's", () => orphans().length === 0);
  expect(orphans()).toEqual([]);
});
