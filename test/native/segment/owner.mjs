// A process of its own for tests, on the bare addon: makes a segment, puts it in force, says so, and does as told.
//   owner.mjs PATH stay       until it is killed
//   owner.mjs PATH leave      ends at once, without closing
//   owner.mjs PATH idle       makes the segment and does not put it in force
import { createRequire } from "node:module";

const addon = createRequire(import.meta.url)("../../../build/Release/mishap.node");
const [path, then] = process.argv.slice(2);
const capacities = {
  policies: 1,
  bindings: 64,
  processes: 64,
  owners: 64,
  flows: 64,
  events: 64,
  histograms: 24,
  decided: 1,
};
const segment = new addon.NativeSegment(path, capacities);
if (then !== "idle") segment.activate(0, 0, 1n);
process.stdout.write("ready\n");
if (then !== "leave") setInterval(() => segment.capacities, 1000);
