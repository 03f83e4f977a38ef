// Nothing of a connection stays in the relay once it is over, however it ended.
import { beforeEach, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";
import { connectAndLook } from "./support/relay-leaks.js";

const folder = scratchFolder();
beforeEach(needsKernel);

it("of 5,000 connects", () => connectAndLook(folder, 5000));
