// What a test under a policy has: its faults, fixtures, evidence of its own, and matchers over that.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, faultable, test } from "mishap/vitest";
import { afterAll, beforeAll, test as base, describe } from "vitest";

const server = createServer((_, answer) => answer.end("hello"));
beforeAll(() => new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready)));
afterAll(() => void server.close());
const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;

test.withFaults({ latency: "20ms" })("fields", async ({ faults }) => {
  const before = performance.now();
  expect(await (await faults.fetch(url())).text()).toBe("hello");
  expect(performance.now() - before).toBeGreaterThan(75);
  expect(faults).toHaveApplied("latency", { atLeast: 2 });
  expect(faults.evidence()).not.toHaveApplied("jitter");
  expect(faults.evidence().flows).toBe(1);
});

test.withFaults("slow_link")("a policy of the file", async ({ faults }) => {
  await faults.fetch(url());
  expect(faults).toHaveApplied("latency");
  expect(faults.evidence().faults[0]?.policy).toBe("slow_link");
});

const withAnswer = faultable(base.extend<{ answer: number }>({ answer: 42 }));
withAnswer.withFaults({ latency: "1ms" })("fixtures", ({ faults, answer, task }) => {
  expect(answer).toBe(42);
  expect(task.name).toBe("fixtures");
  expect(faults).not.toHaveApplied("latency");
});
