// What vitest's test takes behind it, test.withFaults takes too.
import { expect, test } from "mishap/vitest";

const under = test.withFaults({ latency: "1ms" });

under.skip("skipped", () => expect.unreachable());
under.fails("fails", () => expect.unreachable());
under.sequential("with options", { timeout: 5000, retry: 2 }, ({ task, faults }) => {
  expect(task.result?.retryCount ?? 0).toBe(1);
  expect(faults).not.toHaveApplied("latency");
});
under.fails("has too little time", () => new Promise((done) => setTimeout(done, 2000)), 50);
