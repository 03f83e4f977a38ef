/**
 * How modules of scripts are loaded (hooks of module.register): types are stripped and everything else stays where it
 * was, so that places in errors are the user's; `mishap/script` is this package; and a version in the URL of a script
 * (`?mishap=2`) goes on to what it imports, so that an edited script is loaded anew with all its parts.
 */

import { readFile } from "node:fs/promises";
import { createRequire, type LoadHook, type ResolveHook } from "node:module";
import { fileOf, isUsers } from "./problems.js";

const API = new URL("../index.js", import.meta.url).href;
const TYPESCRIPT = /\.m?ts(\?|$)/;
const VERSION = /\?mishap=\d+$/;

interface Amaro {
  transformSync(source: string, options: { mode: "strip-only" }): { code: string };
}
const { transformSync }: Amaro = createRequire(import.meta.url)("amaro");

export const resolve: ResolveHook = async (specifier, context, next) => {
  if (specifier === "mishap/script") return { url: API, shortCircuit: true };
  const { parentURL } = context;
  try {
    const resolved = await next(specifier, context);
    const version = VERSION.exec(parentURL ?? "")?.[0];
    return version !== undefined && isUsers(resolved.url) ? { ...resolved, url: resolved.url + version } : resolved;
  } catch (error) {
    if (parentURL === undefined || !isUsers(parentURL)) throw error;
    const place = await importPlace(fileOf(parentURL), specifier);
    throw new Error(`${place}: cannot import ${JSON.stringify(specifier)}: ${reasonOf(error)}`);
  }
};

export const load: LoadHook = async (url, context, next) => {
  if (!TYPESCRIPT.test(url) || !isUsers(url)) return next(url, context);
  const file = fileOf(url);
  return { format: "module", source: strip(await readFile(file, "utf8"), file), shortCircuit: true };
};

/** JavaScript with every line and column where it was. Throws an Error that begins with `file:line:column: `. */
export function strip(source: string, file: string): string {
  try {
    return transformSync(source, { mode: "strip-only" }).code;
  } catch (error) {
    throw new Error(problemIn(String(error), file));
  }
}

/** amaro draws a picture: the sentence, then the line by number, and carets below the place. */
function problemIn(picture: string, file: string): string {
  const [sentence = ""] = picture.trim().replace(/^x\s+/, "").split("\n");
  const lines = picture.split("\n");
  const carets = lines.findIndex((line) => /^\s*[:·]\s.*\^/.test(line));
  const line = Number(/^\s*(\d+)/.exec(lines[carets - 1] ?? "")?.[1] ?? 1);
  const margin = (lines[carets] ?? "").search(/[:·]/) + 2;
  const column = carets < 0 ? 1 : (lines[carets] ?? "").indexOf("^") - margin + 1;
  const right = sentence.includes("strip-only") ? "; write it without, only types may be TypeScript's" : "";
  return `${file}:${line}:${column}: ${sentence.replace(" in strip-only mode", "")}${right}`;
}

/** Where a file imports something, as far as its text says. */
async function importPlace(file: string, specifier: string): Promise<string> {
  const text = await readFile(file, "utf8");
  const at = Math.max(text.indexOf(`"${specifier}"`), text.indexOf(`'${specifier}'`), 0);
  const before = text.slice(0, at).split("\n");
  return `${file}:${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ERR_MODULE_NOT_FOUND")
    return "there is no such file or package; a file is named with its ending, such as ./limits.ts";
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}
