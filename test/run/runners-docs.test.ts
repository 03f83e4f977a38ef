// docs/testing.md: its files make a project, and each runner's command passes in it.
import { existsSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Project } from "../programs/runners/project.js";

const project = new Project();
const page = readFileSync(fileURLToPath(new URL("../../docs/testing.md", import.meta.url)), "utf8");
/** The page's files, each named by the comment it begins with. */
const files = [...page.matchAll(/^```(?:ts|yaml)\n(?:\/\/|#) (\S+)\n([\s\S]*?)^```/gm)];
const [, json = ""] = /^```json\n([\s\S]*?)^```/m.exec(page) ?? [];
const { scripts }: { scripts: Record<string, string> } = JSON.parse(json);

let server: Server;
beforeAll(async () => {
  server = createServer((_, answer) => answer.end("hello world\n"));
  await new Promise<void>((ready) => void server.listen(0, "127.0.0.1", ready));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  for (const [, name = "", text = ""] of files) project.write(name, text.replaceAll("18080", `${port}`));
  project.write("package.json", JSON.stringify({ name: project.name, type: "module", scripts }));
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

it("names each of its files", () => {
  expect(files.map(([, name]) => name)).toEqual([
    "vitest.config.ts",
    "policies.yaml",
    "slow.test.ts",
    "fixtures.test.ts",
    "slow.mjs",
  ]);
  expect(page.match(/^```(?:ts|yaml)$/gm)).toHaveLength(files.length);
});

it("vitest with the plugin", async () => {
  const { code, stdout, stderr } = await project.run("npx vitest run");
  expect(code, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/Tests +3 passed/);
  expect(stderr).toMatch(/\{slow_link\}: latency +asked 50ms +delivered/);
});

it.each(["test:node", "test:vitest"])("npm run %s", (name) => passes(project, name));

it("npm run test:jest", async ({ skip }) => {
  skip(!installed("jest"), "jest is not installed");
  const jest = new Project();
  jest.write("package.json", JSON.stringify({ name: jest.name, type: "module", scripts }));
  const text = readFileSync(join(project.folder, "slow.mjs"), "utf8");
  jest.write("slow.test.mjs", text.replace('import { test } from "node:test";\n', ""));
  await passes(jest, "test:jest");
});

async function passes(where: Project, script: string): Promise<void> {
  const { code, stdout, stderr } = await where.run(`npm run --silent ${script}`);
  expect(code, stdout + stderr).toBe(0);
  expect(stderr).toMatch(/^mishap: \d+ flows? /m);
  expect(stderr).toMatch(/latency.* +asked 50ms +delivered/);
}

function installed(name: string): boolean {
  return existsSync(fileURLToPath(new URL(`../../node_modules/${name}`, import.meta.url)));
}
