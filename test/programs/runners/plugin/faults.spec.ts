// What a test under a policy has: its faults, fixtures, and evidence of its own.
import { expect, faultable, test } from "mishap/vitest";
import { test as base } from "vitest";
import { Service } from "./service.js";

const service = new Service();

test.withFaults({ latency: "20ms" })("fields", async ({ faults }) => {
  const before = performance.now();
  expect(await (await faults.fetch(service.url)).text()).toBe("hello");
  expect(performance.now() - before).toBeGreaterThan(75);
  expect(faults).toHaveApplied("latency", { atLeast: 2 });
  expect(faults.evidence()).not.toHaveApplied("jitter");
  const evidence = faults.evidence();
  expect(evidence.flows).toBe(1);
  expect(evidence.faults).toMatchObject([{ fault: "latency", asked: "20ms" }]);
  expect(evidence.faults[0]?.p50_ns).toBeGreaterThan(19e6);
  expect(evidence.command).toEqual(["faults.spec.ts", "fields"]);
});

test.withFaults("slow_link")("a policy of the file", async ({ faults }) => {
  await service.ask(faults);
  expect(faults).toHaveApplied("latency", { policy: "slow_link" });
});

test("calm beside them", async () => {
  expect(await (await fetch(service.url)).text()).toBe("hello");
});

const withAnswer = faultable(base.extend<{ answer: number }>({ answer: 42 }));
withAnswer.withFaults({ latency: "1ms" })("fixtures", ({ faults, answer, task }) => {
  expect(answer).toBe(42);
  expect(task.name).toBe("fixtures");
  expect(faults).not.toHaveApplied("latency");
});

for (const count of [2, 5]) {
  test
    .withFaults({ connectionError: { kind: "refused" } })
    .concurrent(`counts its own ${count}`, async ({ faults, expect }) => {
      for (let at = 0; at < count; at++) await expect(service.ask(faults)).rejects.toThrow();
      expect(faults).toHaveApplied("connectionError", { atLeast: count, atMost: count });
    });
}
