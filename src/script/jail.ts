/**
 * The jail of a script's host: the launcher's command line (docs/script-jail.md), with what the host itself has to read and
 * the files that the script is made of. Everything else is refused by the kernel.
 */

import { existsSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const pathOf = (fromHere: string): string => fileURLToPath(new URL(fromHere, import.meta.url));
const LAUNCHER = pathOf("../../build/Release/mishap-jail");
/** Private memory of the whole process, beyond which allocations fail: array buffers are in no other limit. */
const MEMORY_BYTES = 2 ** 30;
/** What the host's own modules import. */
const PACKAGES = ["amaro", "piscina", "yaml", "zod"];

/** What a script's jail is made of. */
export interface JailOptions {
  /** Descriptors that the host is given, besides its output. */
  readonly descriptors: readonly number[];
  /** The files that the script is made of. */
  readonly files: readonly string[];
  /** Goes on where the kernel has no Landlock, without what that stops. */
  readonly unsafe: boolean;
}

/** The command that the host's own follows. */
export function jailLaunch({ descriptors, files, unsafe }: JailOptions): string[] {
  const read = [pathOf("../"), pathOf("../../package.json"), ...packageFolders(), ...files];
  return [
    LAUNCHER,
    ...descriptors.flatMap((fd) => ["--keep-fd", String(fd)]),
    ...["--memory", String(MEMORY_BYTES)],
    ...read.flatMap((path) => ["--read", path]),
    ...(unsafe ? ["--unsafe-no-jail"] : []),
    "--",
  ];
}

/** Where those packages and all that they need are, and nothing else of the folders that they are in. */
function packageFolders(): string[] {
  const folders = new Set<string>();
  const visit = (name: string, from: string): void => {
    const found = createRequire(from)
      .resolve.paths(name)
      ?.find((folder) => existsSync(join(folder, name, "package.json")));
    if (found === undefined) return; // an optional one
    const folder = realpathSync(join(found, name));
    if (folders.has(folder)) return;
    folders.add(folder);
    const file = join(folder, "package.json");
    const { dependencies, optionalDependencies } = JSON.parse(readFileSync(file, "utf8"));
    for (const each of Object.keys({ ...dependencies, ...optionalDependencies })) visit(each, file);
  };
  for (const name of PACKAGES) visit(name, import.meta.url);
  return [...folders];
}
