/**
 * How the interceptor gets into the program: the environment it is started with, and the library's path in a form that
 * LD_PRELOAD can hold.
 */

import { existsSync, symlinkSync, unlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Where the build puts the interceptor. */
export const INTERCEPTOR_PATH = fileURLToPath(new URL("../../build/Release/libmishap-interceptor.so", import.meta.url));

/** The library as LD_PRELOAD can name it, and what has to be removed at the end. */
export interface Preload {
  readonly path: string;
  remove(): void;
}

/**
 * LD_PRELOAD separates its paths by spaces and colons and knows no escape, so a library in such a place is named through
 * a link beside the segment; the janitor knows that name too.
 */
export function preparePreload(segmentPath: string, library = INTERCEPTOR_PATH): Preload {
  if (!existsSync(library)) {
    throw new Error(`the interceptor is not built: ${library} is not there; \`npm run build\` makes it`);
  }
  if (!/[\s:]/.test(library)) return { path: library, remove: () => {} };
  const link = `${segmentPath}.so`;
  symlinkSync(library, link);
  return {
    path: link,
    remove: () => {
      try {
        unlinkSync(link);
      } catch {
        // Somebody swept it already.
      }
    },
  };
}

/** The program's environment: the caller's own, with ours first in LD_PRELOAD and what was there kept behind it. */
export function preloadEnvironment(
  environment: NodeJS.ProcessEnv,
  preloadPath: string | undefined,
  segmentPath: string,
): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) if (value !== undefined) result[name] = value;
  const others = (environment.LD_PRELOAD ?? "")
    .split(/[\s:]+/)
    .filter((path) => path !== "" && !/(^|\/)(libmishap-interceptor|mishap-[^/]*)\.so$/.test(path));
  const libraries = preloadPath === undefined ? others : [preloadPath, ...others];
  if (libraries.length > 0) result.LD_PRELOAD = libraries.join(":");
  else delete result.LD_PRELOAD;
  result.MISHAP_SEGMENT = segmentPath;
  result.MISHAP_LINEAGE = "0@0000000000"; // the first process of the run, whatever pid it gets
  return result;
}
