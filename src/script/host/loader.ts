/**
 * How modules of scripts are loaded (hooks of module.register): types are stripped and everything else stays where it
 * was, so that places in errors are the user's; `mishap/script` is this package; and a version in the URL of a script
 * (`?mishap=2`) goes on to what it imports, so that an edited script is loaded anew with all its parts.
 */

import { once } from "node:events";
import { open, readFile } from "node:fs/promises";
import { createRequire, type InitializeHook, type LoadHook, type ResolveHook } from "node:module";
import { extname } from "node:path";
import type { MessagePort } from "node:worker_threads";
import { BROKER_FD } from "../questions.js";
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
    const isImported = parentURL !== undefined && isUsers(parentURL) && resolved.url.startsWith("file:");
    if (isImported) await assertReadable(fileOf(resolved.url));
    const version = VERSION.exec(parentURL ?? "")?.[0];
    return version !== undefined && isUsers(resolved.url) ? { ...resolved, url: resolved.url + version } : resolved;
  } catch (error) {
    if (parentURL === undefined || !isUsers(parentURL)) throw error;
    const place = await importPlace(fileOf(parentURL), specifier);
    throw new Error(`${place}: cannot import ${JSON.stringify(specifier)}: ${reasonOf(error)}`);
  }
};

/** Where the kernel lets nobody read a file, the broker says which permission is missing. */
async function assertReadable(file: string): Promise<void> {
  if ((await heldBy(file)) !== undefined) return;
  try {
    const opened = await open(file);
    await opened.close();
  } catch (error) {
    const { Questions } = await import("./questions.js");
    throw new Questions(BROKER_FD).explain(error, "read", file);
  }
}

/** Where what files hold is asked for. */
let port: MessagePort | undefined;

export const initialize: InitializeHook<MessagePort> = (given) => {
  port = given;
};

export const load: LoadHook = async (url, context, next) => {
  if (!isUsers(url)) return next(url, context);
  const file = fileOf(url);
  const held = await heldBy(file);
  if (TYPESCRIPT.test(url)) {
    return { format: "module", source: strip(held ?? (await readFile(file, "utf8")), file), shortCircuit: true };
  }
  const format = held === undefined ? undefined : formatOf(file, held);
  return format === undefined ? next(url, context) : { format, source: held, shortCircuit: true };
};

let asked: Promise<unknown> = Promise.resolve();

/** What a file of the script holds, whatever became of it on disk; undefined for any other. One after the other. */
function heldBy(file: string): Promise<string | undefined> {
  const answered = asked.then(async () => {
    if (port === undefined) return undefined;
    port.postMessage(file);
    const [text]: unknown[] = await once(port, "message");
    return typeof text === "string" ? text : undefined;
  });
  asked = answered;
  return answered;
}

/** Undefined for what is left to Node. */
function formatOf(file: string, text: string): "json" | "module" | undefined {
  if (extname(file) === ".json") return "json";
  return extname(file) === ".mjs" || /^\s*(import|export)\b/m.test(text) ? "module" : undefined;
}

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
  const text = (await heldBy(file)) ?? (await readFile(file, "utf8"));
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
