// kill -9 of the run, of the loader, of the program at random moments: no program, map, link, cgroup or file stays
// once the program is gone, and nothing is in force before that.
import { beforeAll, beforeEach, expect, it } from "vitest";
import { until } from "./cli-harness.js";
import { orphans } from "./support/kernel.js";
import { killAtRandom, moments, needsKernelAndTool } from "./support/kernel-kill.js";
import { echoServer } from "./support/programs.js";

let port = 0;

beforeAll(async () => {
  port = (await echoServer()).port;
});
beforeEach(needsKernelAndTool);

it.each(moments(5))("of the %s, moment %i", (victim) => killAtRandom(victim, port));

it("leaves nothing loaded that no loader holds", async () => {
  await until("everything of mishap's is some loader's", () => orphans().length === 0);
  expect(orphans()).toEqual([]);
});
