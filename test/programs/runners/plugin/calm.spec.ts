// A test under a policy that asks for no evidence.
import { expect, test } from "mishap/vitest";
import { request } from "./service.js";

test.withFaults({ latency: "20ms" })("answers", async ({ faults }) => {
  expect(await request(faults)).toBe("hello");
});
