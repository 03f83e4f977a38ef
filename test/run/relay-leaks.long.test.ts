// As relay-leaks.test.ts, twenty times as many.
import { beforeEach, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";
import { connectAndLook } from "./support/relay-leaks.js";

const folder = scratchFolder();
beforeEach(needsKernel);

it("of 100,000 connects", { timeout: 900_000 }, () => connectAndLook(folder, 100_000));
