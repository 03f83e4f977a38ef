// A fault that is never applied.
import { expect, test } from "mishap/vitest";
import { Service } from "./service.js";

const service = new Service();

test.withFaults({ latency: "20ms", targets: ["tcp://10.1.2.3"] })("elsewhere", async ({ faults }) => {
  await service.ask(faults);
  expect(faults).toHaveApplied("latency");
});
