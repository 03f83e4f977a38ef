// The example of a client with retries: its suite passes on bad networks, and fails without its retries.
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { runInClone } from "../programs/runners/project.js";

const suite = "npx vitest run --root examples/retrying-client";

it("passes, under four kinds of faults", async () => {
  const { code, stdout, stderr } = await runInClone(suite);
  expect(code, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/Tests +4 passed/);
  for (const fault of ["latency", "connection error", "half open", "dns.nxdomain"]) {
    expect(stderr).toMatch(new RegExp(`: ${fault} +asked .* delivered `));
  }
});

it("without retries, the test of a service that refuses connections fails, for that reason", async () => {
  const { code, stdout, stderr } = await runInClone(suite, { RETRIES: "0" });
  expect(code).toBe(1);
  expect(stdout).toMatch(/Tests +1 failed \| 3 passed/);
  expect(stderr).toMatch(/FAIL +client\.test\.ts > a service that refuses every other connection is reached/);
  expect(stderr).toMatch(/UnreachableError: .* not answered in 1 attempts/);
  expect(stderr).toMatch(/Caused by: Error: connect ECONNREFUSED/);
});

it("is typed", async () => {
  const compiler = fileURLToPath(new URL("../../node_modules/typescript/bin/tsc", import.meta.url));
  const { code, stdout } = await runInClone(`node ${compiler} -p examples/retrying-client`);
  expect(code, stdout).toBe(0);
});
