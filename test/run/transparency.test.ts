// A few of CPython's own tests, bare and under mishap; `npm run transparency` runs many more of them, three times.
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { start } from "./cli-harness.js";

const TRANSPARENCY = fileURLToPath(new URL("../bench/transparency.mjs", import.meta.url));
const transparency = (...flags: string[]) => start(process.execPath, [TRANSPARENCY, ...flags]).finished;

it("none of CPython's tests has another outcome, preloaded or with every flow on a link", async () => {
  const { code, stdout, stderr } = await transparency("--quick");
  expect(code, stdout + stderr).toBe(0);
  const [, tests] = /^transparency: (\d+) tests, 0 differ$/m.exec(stdout) ?? [];
  expect(Number(tests)).toBeGreaterThan(300);
}, 240_000);

it("tests that fail or are skipped under mishap only are found, with both outcomes", async () => {
  const only = "--only=test_socket.GeneralModuleTests";
  const { code, stdout, stderr } = await transparency(only, "--runs=1", "--policy=--dns.nxdomain 100%");
  expect(code, stdout + stderr).toBe(1);
  expect(stdout).toMatch(/linked, 1 of 1: test\.test_socket\.\S+\.testGetaddrinfo\n +bare pass\n +linked error \(.+\)/);
  expect(stdout).toMatch(/linked, 1 of 1: test\.test_socket\.\S+\.testHostnameRes\n +bare pass\n +linked skip \(.+\)/);
  expect(stdout).toMatch(/^transparency: \d+ tests, \d+ differ$/m);
}, 60_000);
