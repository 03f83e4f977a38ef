/**
 * The command line. One file a command, loaded only when it is asked for; parsing and printing live here, everything
 * else behind src/api. This file picks the command and turns every error into one sentence and an exit code.
 */

import { Command, CommanderError } from "commander";
import { explainParseError, printError, UsageError } from "./errors.js";

/** What every file of a command exports. */
export interface CommandModule {
  /** Adds the command to the program. */
  define(program: Command): void;
  /** Arguments in the form that the parser takes. */
  prepareArguments?(args: readonly string[]): string[];
  /** A right value of a flag, for the sentence that misses one. */
  exampleOf?(flag: string): string | undefined;
}

const COMMANDS: Readonly<Record<string, () => Promise<CommandModule>>> = {
  run: () => import("./run.js"),
  attach: () => import("./attach.js"),
  policy: () => import("./policy.js"),
  recording: () => import("./recording.js"),
  script: () => import("./script.js"),
  stop: () => import("./stop.js"),
  observe: () => import("./observe.js"),
  doctor: () => import("./doctor.js"),
  contract: () => import("./contract.js"),
  completion: () => import("./completion.js"),
};

const USAGE_EXIT_CODE = 2;
const FAILURE_EXIT_CODE = 125;

const EXAMPLES = `
Examples:
  mishap run --latency 100ms -- curl -s https://example.com     every packet 100 ms later, each way
  mishap run --connection-error refused:10% -- npm test         one connect in ten is refused
  mishap run --rate 1mbps --packet-loss 1% -- ./app             a slow and lossy line
  mishap stop --all                                             back to normal, now

Exit codes:
  the program's own; 128+n when signal n ended it; 2 bad usage; 125 mishap failed;
  126 the program cannot be executed; 127 it was not found`;

/** The whole command tree: with the named command alone, or with all. */
export async function buildProgram(only?: string): Promise<Command> {
  const { version } = await import("./version.js");
  const program = new Command("mishap")
    .description(
      "Makes any Linux program's network misbehave on purpose, proves what it did, and puts everything back.",
    )
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print help for a command")
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText("after", EXAMPLES);
  const loads = only === undefined ? Object.values(COMMANDS) : [COMMANDS[only]];
  for (const module of await Promise.all(loads.map((load) => load?.()))) module?.define(program);
  return program;
}

/** Runs the command line; answers the exit code. `say` gets the one sentence of an error. */
export async function main(args: readonly string[], say: (message: string) => void = printError): Promise<number> {
  const [first] = args;
  const name = first !== undefined && Object.hasOwn(COMMANDS, first) ? first : undefined;
  const named = name === undefined ? undefined : await COMMANDS[name]?.();
  try {
    const program = await buildProgram(name);
    await program.parseAsync(named?.prepareArguments?.(args) ?? (first === undefined ? ["help"] : args), {
      from: "user",
    });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    if (error instanceof CommanderError) {
      say(explainParseError(error, name, named?.exampleOf));
      return USAGE_EXIT_CODE;
    }
    say(error instanceof Error ? error.message : String(error));
    if (error instanceof UsageError) return USAGE_EXIT_CODE;
    return error instanceof Error && "exitCode" in error ? Number(error.exitCode) : FAILURE_EXIT_CODE;
  }
}
