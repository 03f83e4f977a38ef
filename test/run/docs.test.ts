/** Every `mishap` command that the README and docs/ show is run as it stands, against a server of the test's own. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const pages = ["README.md", ...readdirSync(join(root, "docs")).map((name) => join("docs", name))].filter((name) =>
  name.endsWith(".md"),
);

/** Scripts that a page shows: their first line names their file, which is there for its commands. */
const SCRIPTS = /^```ts\n(\/\/ ([\w-]+\.ts): [\s\S]*?)^```/gm;

/** The commands of a page's `sh` and `console` blocks, continuation lines joined, comments and output left out. */
function commandsOf(page: string): string[] {
  const text = readFileSync(join(root, page), "utf8");
  const blocks = [...text.matchAll(/^```(sh|console)\n([\s\S]*?)^```/gm)];
  return blocks.flatMap(([, kind, body = ""]) => {
    const lines = body.replace(/\\\n\s*/g, " ").split("\n");
    const said =
      kind === "console" ? lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2)) : lines;
    return said.map((line) => line.replace(/\s{2,}#.*$/, "").trim()).filter((line) => line.startsWith("mishap "));
  });
}

let server: Server;
let port: number;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "mishap-docs-"));
  mkdirSync(join(folder, "bin"));
  symlinkSync(join(root, "dist/cli/main.js"), join(folder, "bin/mishap"));
  for (const [, text = "", name = ""] of pages.flatMap((page) => [
    ...readFileSync(join(root, page), "utf8").matchAll(SCRIPTS),
  ])) {
    writeFileSync(join(folder, name), text);
  }
  server = createServer((_, answer) => answer.end("hello world\n"));
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

function run(command: string): Promise<{ code: number; stderr: string }> {
  const shown = command.replaceAll(":18080", `:${port}`);
  const env = { ...process.env, PATH: `${join(folder, "bin")}:${process.env.PATH}`, NO_COLOR: "1" };
  return new Promise((done) => {
    execFile("bash", ["-c", shown], { cwd: folder, env, timeout: 30_000 }, (error, _stdout, stderr) => {
      done({ code: typeof error?.code === "number" ? error.code : error ? -1 : 0, stderr });
    });
  });
}

const shown = pages.flatMap((page) => commandsOf(page).map((command) => [page, command] as const));

it.each(shown)("%s: %s", async (_page, command) => {
  const { code, stderr } = await run(command);
  // The program's own exit code is its own (a reset curl fails); mishap's are what a wrong example would show.
  expect([-1, 2, 125, 126, 127], stderr).not.toContain(code);
});

it("the README says of every folder of the source what lives there", () => {
  const table = readFileSync(join(root, "README.md"), "utf8").match(/^\| folder \|[\s\S]*?\n\n/m)?.[0] ?? "";
  const folders = ["native", "src"].flatMap((top) =>
    readdirSync(join(root, top), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => `\`${top}/${name}/\``),
  );
  expect(folders.filter((folder) => !table.includes(folder))).toEqual([]);
});

it("the README's first example has the evidence it shows", async () => {
  const [example] = commandsOf("README.md");
  expect(example).toContain("--connection-error refused:10%");
  const { stderr } = await run(example ?? "");
  expect(stderr).toMatch(/^mishap: 8 flows · [\d,]+ ops · seed 0x7$/m);
  expect(stderr).toMatch(/^ {2}latency {2,}asked 100ms {2,}delivered p50 \d/m);
  expect(stderr).toMatch(/^ {2}connection error {2,}asked refused:10% /m);
});

it("the README's script decides as it shows", async () => {
  const shown = commandsOf("README.md").filter((command) => command.includes("every-third.ts"));
  const [check, example] = [await run(shown[0] ?? ""), await run(shown[1] ?? "")];
  expect(check).toMatchObject({ code: 0, stderr: "" });
  expect(example.stderr).toMatch(/^ {2}latency {2}asked by the script {2}delivered p50 25\d/m);
  expect(example.stderr).toMatch(/^ {2}script {3}every-third: 13 questions · .*slowed 2$/m);
});
