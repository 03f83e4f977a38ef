// As kernel-kill.test.ts, at so many more moments that both make fifty.
import { beforeAll, beforeEach, it } from "vitest";
import { killAtRandom, moments, needsKernelAndTool } from "./support/kernel-kill.js";
import { echoServer } from "./support/programs.js";

let port = 0;

beforeAll(async () => {
  port = (await echoServer()).port;
});
beforeEach(needsKernelAndTool);

it.each(moments(12))("of the %s, moment %i", (victim) => killAtRandom(victim, port));
