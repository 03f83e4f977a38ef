/**
 * Before a script starts: what it declares and was not granted is asked for on the terminal, naming who asks for what.
 * Without a terminal it is denied, with the flag that would grant it.
 */

import { relative } from "node:path";
import { createInterface } from "node:readline/promises";
import type { Readable, Writable } from "node:stream";
import type { PermissionLog } from "./audit.js";
import { isPermitted, missingPermissions, type Permissions, withGranted } from "./permissions.js";
import { EVERYTHING, flagFor, type Permission, type Wish } from "./wish.js";

/** Who asks, and whom. */
export interface PromptOptions {
  /** The script, as it is named to people. */
  readonly script: string;
  readonly cwd: string;
  readonly log: PermissionLog;
  /**
   * The terminal, best opened anew as `/dev/tty`: what is read ahead from stdin would be missing to the program. Absent
   * where there is none, or where `--no-prompt` was given.
   */
  readonly terminal?: { readonly input: Readable; readonly output: Writable } | undefined;
  /** Told, a sentence each, what was denied without asking. */
  onDenied(sentence: string): void;
}

const DOING: Readonly<Record<Permission, string>> = {
  read: "read",
  write: "write",
  net: "reach",
  env: "know the variable",
  run: "run",
  sys: "know about this system",
};
const ALL_OF: Readonly<Record<Permission, string>> = {
  read: "read every file",
  write: "write every file",
  net: "reach every host",
  env: "know every variable",
  run: "run every program",
  sys: DOING.sys,
};

/** What a script may do: what was granted and what somebody at the terminal grants now. */
export async function grantDeclared(
  declared: Permissions,
  granted: Permissions,
  options: PromptOptions,
): Promise<Permissions> {
  const wishes = missingPermissions(declared, granted);
  if (wishes.length === 0) return granted; // whose terminal is left alone
  let sum = granted;
  const lines = options.terminal === undefined ? undefined : new Lines(options.terminal.input, options.terminal.output);
  try {
    for (const wish of wishes) {
      if (isPermitted(sum, wish.permission, wish.value)) continue; // "all of it" was said meanwhile
      const yes = lines === undefined ? undefined : await ask(lines, wish, options);
      if (yes !== undefined) sum = withGranted(sum, yes);
      else if (lines === undefined) options.onDenied(deniedSentence(wish, options));
      options.log.write({
        source: "prompt",
        action: yes === undefined ? "deny" : "grant",
        ...(yes ?? wish),
        script: options.script,
        why: lines === undefined ? "the script declares it, and there was nobody to ask" : "answered on the terminal",
      });
    }
  } finally {
    lines?.close();
  }
  return sum;
}

/** What a yes grants; nothing for a no. */
async function ask(lines: Lines, wish: Wish, { script, cwd }: PromptOptions): Promise<Wish | undefined> {
  const all = wish.permission === "sys" || wish.value === EVERYTHING ? "" : `  [A]ll of ${wish.permission}`;
  const question = `${visible(script)} asks to ${doing(wish, cwd)}  [y]es  [n]o${all} `;
  for (;;) {
    const answer = await lines.ask(question);
    if (answer === "y" || answer === "yes") return wish;
    if (answer === "A" && all !== "") return { permission: wish.permission, value: EVERYTHING };
    if (answer === undefined || answer === "n" || answer === "no") return undefined;
  }
}

function deniedSentence(wish: Wish, { script, cwd }: PromptOptions): string {
  return `${visible(script)} asks to ${doing(wish, cwd)}, which is denied; ${visible(flagFor(wish))} grants it`;
}

function doing({ permission, value }: Wish, cwd: string): string {
  if (value === EVERYTHING) return ALL_OF[permission];
  return `${DOING[permission]} ${visible(isPath(permission) ? near(value, cwd) : value)}`;
}

function isPath(permission: Permission): boolean {
  return permission === "read" || permission === "write" || permission === "run";
}

/** A path from the working directory where it lies beneath it. */
function near(path: string, cwd: string): string {
  const from = relative(cwd, path);
  return from === "" ? "." : from.startsWith("..") ? path : `./${from}`;
}

/** A text in which nothing is hidden: what a terminal would act on, or would not show, is written out. */
export function visible(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu,
    (each) => `\\u{${each.codePointAt(0)?.toString(16)}}`,
  );
}

/** Answers, a line each; undefined once there are none. */
class Lines {
  readonly #reader;
  readonly #ended: Promise<undefined>;
  #hasEnded = false;

  constructor(input: Readable, output: Writable) {
    this.#reader = createInterface({ input, output });
    this.#ended = new Promise((resolve) => {
      this.#reader.once("close", () => {
        this.#hasEnded = true;
        resolve(undefined);
      });
    });
    this.#reader.on("SIGINT", () => {
      this.#reader.close(); // which gives the terminal its mode back
      process.kill(process.pid, "SIGINT");
    });
  }

  async ask(question: string): Promise<string | undefined> {
    if (this.#hasEnded) return undefined;
    const answer = await Promise.race([this.#reader.question(question), this.#ended]);
    return answer?.trim();
  }

  close(): void {
    this.#reader.close();
  }
}
