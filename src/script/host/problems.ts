/** Errors of scripts, as one sentence with the user's own file, line and column. */

import { fileURLToPath } from "node:url";
import type { ScriptProblem, ScriptProblemPlace } from "../questions.js";

/** Where mishap itself lives: its frames are not the user's. */
const OWN = new URL("../../", import.meta.url).href;
/** The ready-made scripts, which are treated as the user's wherever this package is installed. */
const READY_MADE = new URL("../../../scripts/", import.meta.url).href;
const FRAME = /(file:\/\/[^\s?)]+)(?:\?[^\s:)]*)?:(\d+)(?::(\d+))?/g;
const PLACED = /^(\/.*?):(\d+):(\d+): ([\s\S]*)$/;

/** Whether code at a URL is the user's. */
export function isUsers(url: string): boolean {
  if (url.startsWith(READY_MADE)) return true;
  return url.startsWith("file://") && !url.startsWith(OWN) && !url.includes("/node_modules/");
}

/** A URL that modules are loaded by, as the file it stands for. */
export function fileOf(url: string): string {
  return fileURLToPath(url.replace(/[?#].*$/, ""));
}

/** The problem that an error is; `where` is its place when it names none of the user's. `what` begins the sentence. */
export function problemOf(error: unknown, what: string, where?: ScriptProblemPlace): ScriptProblem {
  const message = messageOf(error);
  const placed = PLACED.exec(message);
  const begin = what === "" ? "" : `${what}: `;
  if (placed !== null) {
    const [, file = "", line, column, sentence = ""] = placed;
    return { message: oneLine(begin + sentence), file, line: Number(line), column: Number(column) };
  }
  return { message: oneLine(begin + message), ...(placeIn(stackOf(error)) ?? where) };
}

/** The first place of a stack that is the user's. */
export function placeIn(stack: string): ScriptProblemPlace | undefined {
  for (const [, url = "", line, column] of stack.matchAll(FRAME)) {
    if (isUsers(url)) return { file: fileOf(url), line: Number(line), column: Number(column ?? 1) };
  }
  return undefined;
}

// What is thrown is the script's: reading it may throw again.
function messageOf(error: unknown): string {
  try {
    if (error instanceof Error) return error.name === "Error" ? error.message : `${error.name}: ${error.message}`;
    return `threw ${typeof error === "string" ? JSON.stringify(error) : String(error)}`;
  } catch {
    return "threw something that cannot be shown";
  }
}

function stackOf(error: unknown): string {
  try {
    return error instanceof Error ? String(error.stack) : "";
  } catch {
    return "";
  }
}

const LONGEST = 2000;
const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, " ").slice(0, LONGEST);
