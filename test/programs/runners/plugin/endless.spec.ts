// A test that is still under way when vitest is ended.
import { test } from "mishap/vitest";

test.withFaults({ latency: "1ms" })(
  "waits",
  async () => {
    console.log("inside");
    await new Promise((done) => setTimeout(done, 8_000));
  },
  30_000,
);
