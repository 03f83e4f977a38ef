// A test under a policy that asks for no evidence.
import { expect, test } from "mishap/vitest";
import { Service } from "./service.js";

const service = new Service();

test.withFaults({ latency: "20ms" })("answers", async ({ faults }) => {
  expect(await service.ask(faults)).toBe("hello");
});
