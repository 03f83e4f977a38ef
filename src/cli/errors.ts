/** How the command line says what was wrong: one sentence on stderr, never a stack trace. */

import { writeSync } from "node:fs";
import type { CommanderError } from "commander";

/** The command line asks for something it cannot have; exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

const STDERR = 2;

/** Writes to stderr in order and at once; a stderr that nobody reads any more is not an error. */
export function printToStderr(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(STDERR, bytes, at);
    } catch (error) {
      // Somebody made it non-blocking and its reader is slow: wait a little.
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** One sentence, with the program's name before it. */
export function printError(message: string): void {
  printToStderr(`mishap: ${message.replace(/\s*\n\s*/g, " ")}\n`);
}

/** A parser's error in a sentence of ours. */
export function explainParseError(
  error: CommanderError,
  command: string | undefined,
  exampleOf: (flag: string) => string | undefined = () => undefined,
): string {
  const help = command === undefined ? "mishap help" : `mishap ${command} --help`;
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? "";
  const suggestion = /Did you mean (?:one of )?([^?]*)\?/.exec(error.message)?.[1];
  switch (error.code) {
    case "commander.unknownOption":
      return `${quoted}: no such flag${suggestion === undefined ? `; \`${help}\` lists them` : `; did you mean ${suggestion}?`}`;
    case "commander.unknownCommand":
      return `${quoted}: no such command${suggestion === undefined ? `; \`${help}\` lists them` : `; did you mean ${suggestion}?`}`;
    case "commander.optionMissingArgument": {
      const flag = quoted.split(" ")[0] ?? "";
      const example = exampleOf(flag);
      return `${flag}: needs a value${example === undefined ? "" : `, such as ${flag} ${example}`}`;
    }
    case "commander.excessArguments":
      return `${command ?? "mishap"}: too many arguments; \`${help}\` shows which it takes`;
    default:
      return `${error.message.replace(/^error: /, "")}; \`${help}\` says more`;
  }
}
