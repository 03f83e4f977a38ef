// The files that a script is made of: what it imports below its own folder, and nothing that a link leads out to.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { graphOf } from "../../../src/script/graph.js";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "mishap-graph-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
mkdirSync(join(folder, "own/parts"), { recursive: true });
const file = (name: string, text = ""): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

it("holds relative imports and JSON, and names what leads out", async () => {
  const outside = file("secret.json", "{}");
  const host = file("own/parts/hosts.json", "[]");
  const limits = file(
    "own/parts/limits.ts",
    'import hosts from "./hosts.json" with { type: "json" };\nimport "./a.js";\n',
  );
  const circle = file("own/parts/a.js", 'import "./limits.ts";\nimport "./missing.ts";\n');
  symlinkSync(outside, join(folder, "own/link.json"));
  const script = file(
    "own/script.ts",
    `import { policy } from "mishap/script";
import type { Gone } from "../types.ts";
const n: number = 1;
import "./parts/limits.ts";
  import "../secret.json";
import "./link.json";
import "node:fs";
`,
  );
  file("types.ts", "export type Gone = 1;");
  const { files, problems } = await graphOf(script, () => false);
  expect(files).toEqual([script, limits, host, circle]);
  expect(problems.map(({ line, column }) => [line, column])).toEqual([
    [5, 11],
    [6, 9],
  ]);
  expect(problems[0]?.message).toContain(`--allow-read=${outside}`);
  expect((await graphOf(script, (path) => path === outside)).files).toContain(outside);
});
