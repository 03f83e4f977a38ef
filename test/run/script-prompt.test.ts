// The prompt on a terminal of its own, which util-linux's script gives it.
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { start } from "./cli-harness.js";

const PROGRAM = fileURLToPath(new URL("../programs/script-prompt.mjs", import.meta.url));

it("asks on a terminal, and shows there what is typed", async () => {
  const command = `${process.execPath} ${PROGRAM}`;
  const { stdout } = await start("script", ["-qec", command, "/dev/null"], { input: "y\nn\n" }).finished;
  expect(stdout).toContain("a\\u{1b}[2K.ts asks to read ./traces  [y]es  [n]o  [A]ll of read ");
  expect(stdout).toContain("granted: --allow-read=/mishap-none/traces");
  expect(stdout).not.toContain("\u001b[2K.ts");
});

it("asks nobody without one", async () => {
  const { stdout } = await start(process.execPath, [PROGRAM]).finished;
  expect(stdout).toContain("asks to reach api.local:443, which is denied; --allow-net=api.local:443 grants it");
  expect(stdout).toContain("granted: \n");
});
