// Runs small TypeScript programs that use the API, as their author would: compiled, against the built package, under
// `mishap run` or without it.
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, beforeAll } from "vitest";
import { evidenceSchema } from "../../src/report/schema.js";
import { type Finished, scratchFolder, start, startMishap } from "../run/cli-harness.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const asks = fileURLToPath(new URL("./api-asks.mjs", import.meta.url));
/** MISHAP_TEST_NODE runs the programs with another Node than the tests. */
const node = process.env.MISHAP_TEST_NODE ?? process.execPath;
const names = "ask, askFetch, askHttp, askOver, port, say, tally, thrown, torn, url";

export interface Outcome extends Finished {
  /** What the program told with `say`, in order. */
  readonly said: unknown[];
  /** What evidence notes of the run, such as a lapsed lease. */
  readonly notes: readonly string[];
}

export interface Options {
  /** Without it the program runs on its own. */
  readonly intercepted?: boolean;
  readonly flags?: readonly string[];
  readonly env?: Record<string, string>;
  /** Arguments of node itself. */
  readonly node?: readonly string[];
}

/** A place for programs, with a server that answers "calm". */
export class Programs {
  readonly folder = scratchFolder();
  #server: Server | undefined;

  constructor() {
    beforeAll(async () => {
      mkdirSync(join(this.folder, "node_modules"));
      symlinkSync(root, join(this.folder, "node_modules/mishap"));
      symlinkSync(join(root, "node_modules/undici"), join(this.folder, "node_modules/undici"));
      const server = createServer((_, answer) => answer.end("calm"));
      server.keepAliveTimeout = 30_000;
      await new Promise<void>((ready) => server.listen(0, "127.0.0.1", 4096, ready));
      this.#server = server;
    });
    afterAll(() => {
      this.#server?.closeAllConnections();
      this.#server?.close();
    });
  }

  get port(): number {
    const address = this.#server?.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Writes a program that has the API as `mishap`, and what api-asks.mjs offers; the path. */
  write(source: string): string {
    const head = `import * as mishap from "mishap";\nimport { ${names} } from ${JSON.stringify(asks)};\n`;
    return this.writeWhole(head + source);
  }

  /** Writes a program as it stands; the path. */
  writeWhole(source: string): string {
    const path = join(this.folder, `program-${randomBytes(4).toString("hex")}.mjs`);
    const compilerOptions = {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
    };
    writeFileSync(path, ts.transpileModule(source, { compilerOptions }).outputText);
    return path;
  }

  /** Runs a program's source to its end. */
  async run(source: string, options: Options = {}): Promise<Outcome> {
    return this.runFile(this.write(source), options);
  }

  async runFile(path: string, options: Options = {}): Promise<Outcome> {
    const command = [node, ...(options.node ?? []), path];
    const env = { TEST_PORT: String(this.port), ...options.env };
    const evidence = `${path}.json`;
    const running =
      options.intercepted === false
        ? start(node, command.slice(1), { env })
        : startMishap(["run", "--quiet", "--json", evidence, ...(options.flags ?? []), "--", ...command], { env });
    const end = await running.finished;
    const lines = end.stdout.split("\n").filter((line) => line !== "");
    const notes = existsSync(evidence) ? evidenceSchema.parse(JSON.parse(readFileSync(evidence, "utf8"))).notes : [];
    return { ...end, said: lines.map(parsed), notes };
  }

  /** What a program says, when it does so without a word on stderr; faults were in force all the time. */
  async said(source: string, options: Options = {}): Promise<unknown[]> {
    const { said, stderr, code, notes } = await this.run(source, options);
    if (stderr !== "" || code !== 0) throw new Error(`it ended with ${code}: ${stderr}`);
    const lapsed = notes.find((note) => note.includes("lease"));
    if (lapsed !== undefined) throw new Error(lapsed);
    return said;
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return line;
  }
}
