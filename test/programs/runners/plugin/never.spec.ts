// A fault that is never applied.
import { expect, test } from "mishap/vitest";
import { request } from "./service.js";

test.withFaults({ latency: "20ms", targets: ["tcp://10.1.2.3"] })("elsewhere", async ({ faults }) => {
  await request(faults);
  expect(faults).toHaveApplied("latency");
});
