// One of these runs.
import { expect, test } from "mishap/vitest";

test("not this", () => expect.unreachable());
test.withFaults({ latency: "1ms" }).only("this", ({ faults }) => expect(faults.evidence().flows).toBe(0));
