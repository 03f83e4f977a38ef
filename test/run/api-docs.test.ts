// Every TypeScript example of docs/api.md is compiled and run as it stands, and prints what its comments say.
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Programs } from "../programs/api-run.js";

const programs = new Programs();
const page = readFileSync(fileURLToPath(new URL("../../docs/api.md", import.meta.url)), "utf8");
const examples = [...page.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, source = ""]) => source);

let server: Server;
beforeAll(async () => {
  server = createServer((_, answer) => answer.end("hello world\n"));
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

it("has every example of the first policies document", () => {
  for (const words of ['registerPolicy("slow_link"', "unregisterPolicy(", "fault()(", "await using", "loadPolicies("]) {
    expect(page).toContain(words);
  }
  expect(examples.length).toBeGreaterThanOrEqual(9);
});

it.each(examples.map((source, at) => [at + 1, source] as const))("example %i", async (_, source) => {
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const expected = [...source.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => text);
  const shown = source
    .replaceAll("18080", String(port))
    .replaceAll('"policies.json"', `"${programs.folder}/policies.json"`);
  const { stdout, stderr, code } = await programs.runFile(programs.writeWhole(shown));
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(stdout.split("\n").filter((line) => line !== "")).toEqual(expected);
});
