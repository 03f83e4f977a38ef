/** `mishap run`: its flags, its dry run, and what it prints; the run itself is src/api/run.ts. */

import { closeSync, openSync } from "node:fs";
import { isatty } from "node:tty";
import type { Command } from "commander";
import type { Evidence, RunOptions, ScriptOptions } from "../api/index.js";
import { type Policy, PolicyError } from "../policy/index.js";
import type { Replayed } from "../replay/replay.js";
import {
  askedFor,
  durationOf,
  exampleAmong,
  type Flag,
  ownOptions,
  policyOf,
  policyOptions,
  prepareFlags,
} from "./asked.js";
import { printError, printToStderr, UsageError } from "./errors.js";
import { openOutput } from "./output.js";
import {
  barePermissionFlags,
  givenPermissionFlag,
  type PermittedScript,
  permissionFlags,
  permissionOptions,
  permitScript,
  preparePermissionArguments,
} from "./permissions.js";

const RUN_GROUP = "The run:";
const COMMAND_EXAMPLE = "mishap run --latency 100ms -- curl -s https://example.com";

const NEEDS_PROGRAM = `run needs a program to start, such as ${COMMAND_EXAMPLE}`;

const RUN_FLAGS: readonly Flag[] = [
  { flags: "--policies <file>", help: "policies by name, followed while it is edited", example: "policies.yaml" },
  { flags: "--policy <name>", help: "the policy of that file, or the preset, to run under", example: "slow_link" },
  { flags: "--duration <duration>", help: "end the faults, not the program, after this time", example: "30s" },
  { flags: "--dry-run", help: "say what would be faulted and how, and start nothing" },
  { flags: "--json <file>", help: "write the evidence as JSON", example: "evidence.json" },
  { flags: "--journal <file>", help: "write every decision as a line of JSON", example: "decisions.jsonl" },
  { flags: "--record <file>", help: "record every decision, to read and repeat the run", example: "run.mishap" },
  { flags: "--record-all", help: "record the ops that nothing was decided about, too" },
  { flags: "--record-payload", help: "record the bytes that ops carried, too: they may hold secrets" },
  {
    flags: "--replay <file>",
    help: "decide as in that recording, and end where the program does otherwise",
    example: "run.mishap",
  },
  { flags: "--replay-lenient", help: "let a replay go on where the program does otherwise, and count it" },
  { flags: "--script <file>", help: "a policy script, or a ready-made one by name, that decides", example: "brownout" },
  { flags: "--script-option <name=value>", help: "give the script an option; may be given several times" },
  { flags: "--script-patience <duration>", help: "how long a program waits for the script's answer", example: "5ms" },
  { flags: "--script-workers <n>", help: "how many workers answer, each with a state of its own", example: "1" },
  { flags: "--unsafe-no-jail", help: "run the script even where the kernel cannot jail it" },
  { flags: "--kernel", help: "have the kernel witness every flow, intercepted or not; asks sudo for that" },
  {
    flags: "--executor <which>",
    help: "with --kernel: who carries faults out: auto (default), interceptor, relay (needs no preload)",
    example: "relay",
  },
  { flags: "--as-root", help: "under sudo, run the program as root instead of as the user who called it" },
  { flags: "--setpriority", help: "let the program set faults by setpriority, as older tools do" },
  { flags: "--quiet", help: "print no evidence" },
  { flags: "--project <name>", help: "the runs that `mishap stop` stops together", example: "shop" },
];

const EXAMPLES = `
Examples:
  ${COMMAND_EXAMPLE}
      every packet takes 100 ms each way: a connect 200 ms, a request and its answer 200 ms
  mishap run --connection-error refused:10% --seed 7 -- npm test
      one connect in ten is refused; the same seed refuses the same ones again
  mishap run --uplink.rate 1mbps --packet-loss 1% --json evidence.json -- ./upload
      a slow way out and a lossy line, with the evidence for a machine to read
  mishap run --latency 300ms --target hostname=api.internal,port=443 -- node app.js
      only connections to that host and port
  mishap run --kernel --latency 50ms -- ./static-service
      the kernel sees what the interceptor cannot: coverage says who moved how much
  mishap run --script brownout -- npm test
      a script decides, jailed and with no permission but its own files
  mishap run --script brownout.ts --allow-read=./traces --allow-net=api.local:443 -- npm test
      and may read these files and reach that host
  mishap run --replay run.mishap
      the recorded program again, with the recorded faults at the recorded places
  mishap run --packet-loss 20% --schedule spike:30s/5s --duration 120s -- ./app
      five bad seconds in every thirty

Exit codes:
  the program's own; 128+n when signal n ended it; 2 bad usage; 3 a replay went
  another way than its recording; 125 mishap failed;
  126 the program cannot be executed; 127 it was not found`;

/** A right value of a flag. */
export function exampleOf(flag: string): string | undefined {
  return exampleAmong(RUN_FLAGS, flag);
}

/** Arguments in the form that the parser takes. */
export function prepareArguments(args: readonly string[]): string[] {
  return prepareFlags(args, RUN_FLAGS, barePermissionFlags(), (word) => preparePermissionArguments([word]));
}

/** Adds `run` to the program. */
export function define(program: Command): void {
  const command = program
    .command("run")
    .summary("run a program with a network that misbehaves")
    .description(
      "Runs a program with the faults asked for, and says at its end what was delivered. No fault at all is valid.",
    )
    .usage("[options] -- COMMAND [ARGUMENT...]")
    .argument("[command...]", "the program and its arguments")
    .passThroughOptions()
    .addHelpText("after", EXAMPLES);
  ownOptions(command, RUN_FLAGS, RUN_GROUP);
  permissionOptions(command);
  policyOptions(command);
  command.action(async (words: string[], values: Record<string, unknown>) => {
    process.exitCode = await execute(words, values, command);
  });
}

async function execute(
  given: readonly string[],
  values: Readonly<Record<string, unknown>>,
  command: Command,
): Promise<number> {
  const flags = policyOf(command, values);
  const durationNs = durationOf("--duration", values.duration, "30s");
  if (values.project === "") throw new UsageError('--project "": a project has a name, such as --project shop');
  for (const [flag, value] of [
    ["--record-all", values.recordAll],
    ["--record-payload", values.recordPayload],
  ]) {
    if (value !== true || values.record !== undefined) continue;
    throw new UsageError(`${flag}: says how much is recorded, and --record run.mishap where`);
  }
  if (given.length === 0 && values.replay === undefined) throw new UsageError(NEEDS_PROGRAM);
  const asked = executorOf(values);
  const kernel = await leaveRoot(values, asked);
  const replayed = await replayedBy(values, flags);
  const words = given.length > 0 || replayed === undefined ? given : replayed.command;
  const [name] = words;
  if (name === undefined) throw new UsageError(NEEDS_PROGRAM);
  const policy = replayed?.policies ?? (await askedFor(flags, values));
  const script = await scriptOf(values);
  const permissions = script === undefined ? undefined : permissionFlags(values);

  const { describeUnreachable, findProgram } = await import("../api/program.js");
  const { run, takesRelay } = await import("../api/run.js");
  const program = findProgram(name);
  const quiet = values.quiet === true;
  if (values.dryRun === true) {
    const { describeDryRun } = await import("./dry-run.js");
    printToStderr(
      describeDryRun(
        words,
        "own" in policy ? policy.own : "read" in policy ? policy.read().own : policy,
        program,
        durationNs,
      ),
    );
    return 0;
  }
  if (program.unreachable !== undefined && !quiet && !takesRelay({ ...kernel, ...asked })) {
    printToStderr(`mishap: ${program.image} runs unfaulted: ${describeUnreachable(program.unreachable)}\n`);
  }

  const permitted = script && permissions && (await permitScript(script.file, script.name, permissions));
  process.once("exit", releaseTerminal);
  const json = openOutput("--json", values.json, exampleOf("--json"));
  const journal = openOutput("--journal", values.journal, exampleOf("--journal"));
  const record = openOutput("--record", values.record, exampleOf("--record"));
  let evidence: Evidence;
  try {
    evidence = await run({
      command: words,
      policy,
      program,
      legacy: values.setpriority === true || replayed?.setpriority === true,
      ...(replayed === undefined ? {} : { replay: replayed.replay, seed: replayed.seed }),
      ...kernel,
      ...asked,
      ...(script && permitted ? { script: { ...script, ...permitted } } : {}),
      notice: quiet ? () => {} : printError,
      ...(typeof values.project === "string" ? { project: values.project } : {}),
      ...(durationNs === undefined ? {} : { durationNs }),
      ...(journal === undefined ? {} : { journal: journal.file }),
      ...(typeof values.record === "string"
        ? {
            record: values.record,
            recordAll: values.recordAll === true,
            recordPayload: values.recordPayload === true,
          }
        : {}),
    });
  } catch (error) {
    json?.discard();
    journal?.discard();
    record?.discard();
    const { ScriptError } = await import("../script/supervisor.js");
    if (error instanceof ScriptError) throw new UsageError(error.message);
    throw error;
  }
  json?.write(`${JSON.stringify(evidence, null, 2)}\n`);
  if (!quiet) {
    const { renderEvidence } = await import("../report/text.js");
    printToStderr(renderEvidence(evidence, { colour: isatty(2) && !process.env.NO_COLOR }));
  }
  if (replayed?.replay.strict === true && evidence.replay?.divergence !== undefined) return DIVERGED;
  return evidence.exit_code;
}

const DIVERGED = 3;

/** What `--script` and the flags beside it ask for; undefined without it. */
async function scriptOf(
  values: Readonly<Record<string, unknown>>,
): Promise<Omit<ScriptOptions, keyof PermittedScript> | undefined> {
  const { script, scriptOption, scriptPatience, scriptWorkers, unsafeNoJail } = values;
  if (typeof script !== "string") {
    const flag = givenPermissionFlag(values);
    if (flag !== undefined) {
      throw new UsageError(`${flag}: says what a script may do, and --script brownout which one`);
    }
    const given = Array.isArray(scriptOption) && scriptOption.length > 0 ? "option" : "patience";
    if (given === "patience" && scriptPatience === undefined) return undefined;
    throw new UsageError(`--script-${given}: says how a script is run, and --script brownout which one`);
  }
  if (values.replay !== undefined) {
    throw new UsageError("--script: a replay decides as the recording does; leave out --script");
  }
  const { findScript, scriptOptions } = await import("./scripts.js");
  return {
    file: findScript(script),
    name: script,
    options: scriptOptions(Array.isArray(scriptOption) ? scriptOption.map(String) : []),
    patienceNs: durationOf("--script-patience", scriptPatience, "5ms") ?? DEFAULT_PATIENCE_NS,
    workers: workersOf(scriptWorkers),
    unsafe: unsafeNoJail === true,
  };
}

const DEFAULT_PATIENCE_NS = 5_000_000;
const MAX_WORKERS = 16;

function workersOf(written: unknown): number {
  const workers = written === undefined ? 1 : Number(written);
  if (Number.isInteger(workers) && workers >= 1 && workers <= MAX_WORKERS) return workers;
  throw new UsageError(`--script-workers ${String(written)}: is a number from 1 to ${MAX_WORKERS}, such as 2`);
}

/** What `--replay` names; undefined without it. */
async function replayedBy(values: Readonly<Record<string, unknown>>, flags: Policy): Promise<Replayed | undefined> {
  if (typeof values.replay !== "string") {
    if (values.replayLenient !== true) return undefined;
    throw new UsageError("--replay-lenient: says how a recording is replayed, and --replay run.mishap which one");
  }
  const beside = ["policies", "policy", "setpriority"].find((name) => values[name] !== undefined);
  const [field] = Object.keys(flags.written);
  const wrong = beside ?? field;
  if (wrong !== undefined) {
    throw new UsageError(`--replay ${values.replay}: the recording says which faults there are; leave out ${wrong}`);
  }
  const { readReplay } = await import("../replay/replay.js");
  try {
    const replayed = readReplay(values.replay, { strict: values.replayLenient !== true });
    for (const sentence of replayed.missing) printError(sentence);
    return replayed;
  } catch (error) {
    const { RecordingError } = await import("../recording/index.js");
    if (error instanceof RecordingError || error instanceof PolicyError) throw new UsageError(error.message);
    const { cannotRead } = await import("./recordings.js");
    throw cannotRead(values.replay, error);
  }
}

function executorOf({ executor, script }: Readonly<Record<string, unknown>>): Pick<RunOptions, "executor"> {
  if (executor === undefined) return {};
  if (executor !== "interceptor" && executor !== "relay" && executor !== "auto") {
    throw new UsageError(`--executor ${executor}: it is interceptor, relay or auto`);
  }
  if (executor === "relay" && script !== undefined) {
    throw new UsageError("--executor relay: only the interceptor asks a script; leave out one of the two");
  }
  return { executor };
}

/**
 * Under sudo, what needs root is done first: the kernel's witness. Then we are the user who called it, whose files,
 * programs and processes are the rest.
 */
async function leaveRoot(
  values: Readonly<Record<string, unknown>>,
  { executor }: Pick<RunOptions, "executor">,
): Promise<Pick<RunOptions, "kernel" | "witness">> {
  const { becomeInvoker, findInvoker, throughSudo } = await import("../kernel/invoker.js");
  const kernel = values.kernel === true || throughSudo();
  if (executor !== undefined && executor !== "interceptor" && !kernel) {
    throw new UsageError(`--executor ${executor}: the kernel hands connections to the relay, so add --kernel`);
  }
  if (values.asRoot === true && process.getuid?.() !== 0) {
    throw new UsageError("--as-root: mishap is not root here; `sudo mishap run --as-root` is");
  }
  const invoker = values.asRoot === true ? undefined : findInvoker();
  if (invoker === undefined) return { kernel };
  if (values.dryRun === true) {
    becomeInvoker(invoker);
    return { kernel };
  }
  const { Witness } = await import("../kernel/witness.js");
  const { defaultProject } = await import("../api/project.js");
  const project = typeof values.project === "string" ? values.project : defaultProject();
  const witness = await Witness.start(project, { owner: invoker, executor: executor ?? "auto" });
  becomeInvoker(invoker);
  return { kernel, witness };
}

/**
 * As it ends, Node puts the terminal back to the modes it found at its start, which would undo what the program set on
 * purpose (stty(1), an editor). It leaves descriptors alone that are no longer what they were.
 */
function releaseTerminal(): void {
  for (const fd of [0, 1, 2]) {
    try {
      closeSync(fd);
      openSync("/dev/null", "r+");
    } catch {
      // It was closed before: nothing to protect.
    }
  }
}
