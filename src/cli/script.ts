/** `mishap script`: checks policy scripts, tries them on traffic, and lists the ready-made ones. Faults nothing. */

import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import type { Command } from "commander";
import type { StartedHost } from "../script/supervisor.js";
import { printError, printToStderr, UsageError } from "./errors.js";
import {
  type PermittedScript,
  permissionFlags,
  permissionOptions,
  permitScript,
  preparePermissionArguments,
} from "./permissions.js";
import { findScript, READY_MADE, scriptOptions } from "./scripts.js";

const EXAMPLES = `
Examples:
  mishap script check brownout.ts
  mishap script test brownout.ts --flows 20 --seed 7
  mishap script test brownout.ts --recording run.mishap
  mishap script list`;

const MAX_FLOWS = 10_000;
const UNSAFE = ["--unsafe-no-jail", "run the script even where the kernel cannot jail it"] as const;

/** What the flags of permissions say besides. */
interface CheckFlags extends Readonly<Record<string, unknown>> {
  /** Without Landlock, goes on. */
  readonly unsafeNoJail?: boolean;
}

interface TestFlags extends CheckFlags {
  readonly flows: string;
  readonly recording?: string;
  readonly seed: string;
  readonly scriptOption: readonly string[];
  readonly json?: boolean;
}

/** `mishap script` alone says what it can do. */
export function prepareArguments(args: readonly string[]): string[] {
  return args.length === 1 ? ["help", ...args] : preparePermissionArguments(args);
}

/** Adds `script` and its commands to the program. */
export function define(program: Command): void {
  const script = program
    .command("script")
    .summary("check, try and list policy scripts")
    .description("Looks at policy scripts: policies programmed in TypeScript. Faults nothing.")
    .addHelpText("after", EXAMPLES);
  const checking = script
    .command("check")
    .summary("say everything that is wrong with a script")
    .description(
      "Type-checks a script and loads it; says what is wrong with line and column, and exits 1 if anything is.",
    )
    .argument("<file>", "a script: .ts, .mts, .js or .mjs")
    .option(...UNSAFE)
    .action(check);
  permissionOptions(checking);
  const testing = script
    .command("test")
    .summary("try a script on traffic and print what it decides")
    .description(
      "Asks a script about simulated flows, or those of a recording, and prints its decisions; exits 1 on a problem.",
    )
    .argument("<file>", "a script: .ts, .mts, .js or .mjs")
    .option("--flows <n>", "how many flows to simulate", "8")
    .option("--recording <file>", "take the flows and ops of a recording instead")
    .option("--seed <n>", "what ctx.random() hangs on", "0x1")
    .option(
      "--script-option <name=value>",
      "give the script an option; may be given several times",
      (value: string, all: readonly string[]) => [...all, value],
      [],
    )
    .option(...UNSAFE)
    .option("--json", "for machines")
    .action(test);
  permissionOptions(testing);
  script
    .command("list")
    .summary("list the ready-made scripts")
    .description("Lists the ready-made scripts, and what each does.")
    .option("--json", "for machines")
    .action(list);
}

async function check(file: string, flags: CheckFlags): Promise<void> {
  const script = findScript(file);
  const permissions = permissionFlags(flags);
  const { typeProblems } = await import("../script/check.js");
  const { problemText } = await import("../script/questions.js");
  const problems = typeProblems(script);
  for (const problem of problems) printToStderr(`${problemText(problem)}\n`);
  if (problems.length > 0) {
    process.exitCode = 1;
    return;
  }
  const permitted = await permitScript(script, file, permissions);
  const host = await hostOf(script, file, permitted, "0x1", {}, flags.unsafeNoJail);
  if (host === undefined) return;
  const { name, hooks } = host.loaded;
  await host.close();
  process.stdout.write(`${file}: policy ${JSON.stringify(name)}, ${Object.keys(hooks).join(", ") || "no hooks"}\n`);
}

async function test(file: string, flags: TestFlags): Promise<void> {
  const script = findScript(file);
  const permissions = permissionFlags(flags);
  const { parseSeed } = await import("../policy/index.js");
  const { play, recordedTraffic, simulatedTraffic } = await import("../script/traffic.js");
  const { problemText } = await import("../script/questions.js");
  const { Trial } = await import("../script/trial.js");
  const seed = `0x${seedOf(flags.seed, parseSeed).toString(16)}`;
  const traffic =
    flags.recording === undefined
      ? simulatedTraffic(flowsOf(flags.flows))
      : recordedTraffic(await (await import("./recordings.js")).open(flags.recording));
  const permitted = await permitScript(script, file, permissions);
  const host = await hostOf(script, file, permitted, seed, scriptOptions(flags.scriptOption), flags.unsafeNoJail);
  if (host === undefined) return;
  const trial = new Trial();
  trial.say(host.said);
  try {
    const { hooks, tickMs } = host.loaded;
    await play(traffic, hooks.onTick === undefined ? undefined : tickMs, async (question) => {
      const reply = await host.ask(question);
      trial.add(question, reply);
      if (reply.problem !== undefined) {
        printToStderr(`${problemText(reply.problem)}\n`);
        process.exitCode = 1;
      }
      return reply.answer;
    });
  } finally {
    await host.close();
  }
  if (flags.json)
    process.stdout.write(`${JSON.stringify({ script: host.loaded.name, seed, ...trial.json() }, null, 2)}\n`);
  else for (const line of trial.lines()) process.stdout.write(`${line}\n`);
}

async function list({ json }: { readonly json?: boolean }): Promise<void> {
  const { alignColumns } = await import("../report/format.js");
  const files = readdirSync(READY_MADE).filter((name) => name.endsWith(".ts"));
  const entries = files.sort().map((name) => ({
    name: basename(name, ".ts"),
    description: /^\/\/ (.*)/.exec(readFileSync(`${READY_MADE}${name}`, "utf8"))?.[1] ?? "",
    file: `${READY_MADE}${name}`,
  }));
  if (json) process.stdout.write(`${JSON.stringify(entries, null, 2)}\n`);
  else
    for (const line of alignColumns(entries.map((each) => [each.name, each.description])))
      process.stdout.write(`${line}\n`);
}

/** The script in its host; what is wrong with it is said, and there is none. */
async function hostOf(
  script: string,
  name: string,
  { permissions, permissionLog: log }: PermittedScript,
  seed: string,
  options: Record<string, string>,
  unsafe = false,
): Promise<StartedHost | undefined> {
  const { ScriptError, ScriptHost } = await import("../script/supervisor.js");
  const { DEFAULT_LIMITS, problemText } = await import("../script/questions.js");
  const { graphOf } = await import("../script/graph.js");
  const { jailLaunch } = await import("../script/jail.js");
  const { isPermitted } = await import("../script/permissions.js");
  const { files, sources, problems } = await graphOf(script, (path) => isPermitted(permissions, "read", path));
  for (const problem of problems) printToStderr(`${problemText(problem)}\n`);
  if (problems.length > 0) {
    process.exitCode = 1;
    return undefined;
  }
  try {
    const onLine = (source: string, text: string): void => printError(`${source} of the script: ${text}`);
    return await ScriptHost.start({
      script,
      sources,
      seed,
      options,
      policies: {},
      limits: DEFAULT_LIMITS,
      recorded: false,
      launch: jailLaunch({ files, permissions, mailbox: false, unsafe }),
      broker: { permissions, script: name, log },
      onLine,
      onNews: ({ problems }) => {
        for (const { problem } of problems) printError(problemText(problem));
      },
    });
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    printToStderr(`${error.message}\n`);
    process.exitCode = 1;
    return undefined;
  }
}

function seedOf(text: string, parseSeed: (text: string) => bigint): bigint {
  try {
    return parseSeed(text);
  } catch (error) {
    throw new UsageError(`--seed ${text}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function flowsOf(text: string): number {
  const flows = Number(text);
  if (Number.isInteger(flows) && flows > 0 && flows <= MAX_FLOWS) return flows;
  throw new UsageError(`--flows ${text}: is a number from 1 to ${MAX_FLOWS}, such as 20`);
}
