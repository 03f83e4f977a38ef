// The lines of `mishap observe --json` are what docs/observe.md says they are.
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { observedFlowSchema } from "../../../src/report/observed.js";

it("docs/observe.md lists every field with what it holds", () => {
  const page = readFileSync(new URL("../../../docs/observe.md", import.meta.url), "utf8");
  const [, section = ""] = page.split("## Lines of JSON\n");
  const rows = [...section.matchAll(/^\| `(\w+)` \| (.+) \|$/gm)].map(([, field, holds]) => [field, holds]);
  expect(rows).toEqual(
    Object.entries(observedFlowSchema.shape).map(([field, { description }]) => [field, description]),
  );
});
