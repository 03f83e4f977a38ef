// Real programs on event loops, threads and processes of their own, under delay: a smaller matrix with wide bounds, each
// row with its bare control. `npm run matrix` is the whole one, with the exact bounds.
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished } from "vitest";
import { start } from "./cli-harness.js";

const MATRIX = fileURLToPath(new URL("../bench/matrix.mjs", import.meta.url));
const ROWS = 9;

it("real programs see nothing but a slower network", { timeout: 180_000 }, async () => {
  const running = start(process.execPath, [MATRIX, "--quick"]);
  onTestFinished(() => {
    if (running.child.exitCode === null) running.child.kill("SIGTERM"); // it ends what it started
  });
  const { code, stdout, stderr } = await running.finished;
  expect(stderr).toBe("");
  expect(stdout.split("\n").filter((line) => line.includes("| NO: "))).toEqual([]);
  expect(stdout.trimEnd().split("\n").at(-1)).toBe(`matrix: ${ROWS} rows hold, 0 do not`);
  expect(code).toBe(0);
});
