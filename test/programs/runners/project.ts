// Projects with tests, run as their authors would run them: a folder of their own, with mishap, undici, vitest, and
// jest where this repository has it, installed.
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Finished, freshProject, MISHAP, type Running, scratchFolder, start } from "../../run/cli-harness.js";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const programs = fileURLToPath(new URL(".", import.meta.url));
/** What vitest gives its workers, such as the one that this runs in, and a vitest of its own must not get. */
const OWN = /^(VITEST|MISHAP_|NODE_ENV$|TEST$|FORCE_|LD_PRELOAD$|DEV$|PROD$|MODE$|SSR$|BASE_URL$)/;

export class Project {
  /** By which its runs are known, as a package's name. */
  readonly name = freshProject();
  readonly folder = scratchFolder();

  /** @param source - a folder beside this file whose files it starts with */
  constructor(source?: string) {
    if (source !== undefined) cpSync(join(programs, source), this.folder, { recursive: true });
    this.write("package.json", JSON.stringify({ name: this.name, type: "module" }));
    const modules = join(this.folder, "node_modules");
    mkdirSync(join(modules, ".bin"), { recursive: true });
    symlinkSync(root, join(modules, "mishap"));
    for (const name of ["undici", "vitest"]) symlinkSync(join(root, "node_modules", name), join(modules, name));
    const commands = { jest: "jest/bin/jest.js", vitest: "vitest/vitest.mjs" };
    for (const [name, file] of Object.entries(commands)) {
      symlinkSync(join(root, "node_modules", file), join(modules, ".bin", name));
    }
    symlinkSync(MISHAP, join(modules, ".bin/mishap"));
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text);
  }

  /** Starts a shell command in the project's folder, with its installed commands in the path. */
  start(command: string, env: Record<string, string> = {}): Running {
    const path = `${join(this.folder, "node_modules/.bin")}:${process.env.PATH}`;
    return startIn(this.folder, command, { PATH: path, ...env });
  }

  run(command: string, env: Record<string, string> = {}): Promise<Finished> {
    return this.start(command, env).finished;
  }
}

/** Runs a command in the repository, as somebody who has a clone of it. */
export function runInClone(command: string, env: Record<string, string> = {}): Promise<Finished> {
  return startIn(root, command, env).finished;
}

function startIn(folder: string, command: string, env: Record<string, string>): Running {
  const own = Object.keys(process.env).filter((name) => OWN.test(name));
  const inherited = Object.fromEntries(own.map((name) => [name, undefined]));
  return start("bash", ["-c", `cd '${folder}' && exec ${command}`], { env: { ...inherited, NO_COLOR: "1", ...env } });
}
