/** `mishap attach`: its flags and what it prints; what it does is src/api/attach.ts. */

import { resolve } from "node:path";
import { isatty } from "node:tty";
import { type Command, Option } from "commander";
import type { AttachOptions } from "../api/attach.js";
import type { Evidence } from "../api/index.js";
import type { Subject } from "../kernel/witness.js";
import type { Policy } from "../policy/index.js";
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

const FLAGS: readonly Flag[] = [
  { flags: "--pid <pid>", help: "the process to attach to: all of its threads, none of its children", example: "4242" },
  {
    flags: "--cgroup <path>",
    help: "or the cgroup whose processes to attach to",
    example: "/sys/fs/cgroup/shop.service",
  },
  { flags: "--duration <duration>", help: "end it after this time", example: "30s" },
  { flags: "--policies <file>", help: "policies by name, followed while it is edited", example: "policies.yaml" },
  { flags: "--policy <name>", help: "the policy of that file, or the preset, to put in force", example: "slow_link" },
  { flags: "--json <file>", help: "write the evidence as JSON", example: "evidence.json" },
  { flags: "--journal <file>", help: "write every decision as a line of JSON", example: "decisions.jsonl" },
  { flags: "--quiet", help: "print no evidence" },
  { flags: "--project <name>", help: "what `mishap stop` stops together", example: "shop" },
];

const EXAMPLES = `
Examples:
  sudo mishap attach --pid 4242 --latency 100ms --duration 30s
      every connection that this process makes in the next 30 seconds is 100 ms further away
  sudo mishap attach --cgroup /sys/fs/cgroup/system.slice/shop.service --connection-error refused:10%
      one connect in ten of this service's processes is refused, until Control-C

It ends at --duration, at Control-C, at \`mishap stop\`, or with the process. Connections
that were there before go on; those made meanwhile end in a reset when it ends.

Exit codes:
  0 its time is over, it was stopped, or the process ended; 128+n when signal n ended it;
  2 bad usage; 125 it cannot be attached to, or mishap failed`;

/** A right value of a flag. */
export function exampleOf(flag: string): string | undefined {
  return exampleAmong(FLAGS, flag);
}

/** Arguments in the form that the parser takes. */
export function prepareArguments(args: readonly string[]): string[] {
  return prepareFlags(args, FLAGS);
}

/** Adds `attach` to the program. */
export function define(program: Command): void {
  const command = program
    .command("attach")
    .summary("make the network of a running program misbehave")
    .description(
      "Attaches to a process or a cgroup that runs already: connections that it makes from now on meet the faults asked for. Needs root, or sudo.",
    )
    .addHelpText("after", EXAMPLES);
  ownOptions(command, FLAGS, "What to attach to:");
  command.addOption(new Option("--script <file>").hideHelp());
  policyOptions(command);
  command.action(async (values: Record<string, unknown>) => {
    process.exitCode = await execute(values, command);
  });
}

async function execute(values: Readonly<Record<string, unknown>>, command: Command): Promise<number> {
  const flags = policyOf(command, values);
  const durationNs = durationOf("--duration", values.duration, "30s");
  if (values.script !== undefined) {
    throw new UsageError("--script: only the interceptor asks a script, and attach has none");
  }
  if (values.project === "") throw new UsageError('--project "": a project has a name, such as --project shop');
  const subject = await subjectOf(values);
  const { policy, witness } = await leaveRoot(values, subject, flags);
  const quiet = values.quiet === true;
  const json = openOutput("--json", values.json, exampleOf("--json"));
  const journal = openOutput("--journal", values.journal, exampleOf("--journal"));
  let evidence: Evidence;
  try {
    const { attach } = await import("../api/attach.js");
    evidence = await attach({
      subject,
      policy,
      ...(witness === undefined ? {} : { witness }),
      notice: quiet ? () => {} : printError,
      onStart: quiet ? () => {} : () => printError(`attached to ${wordsOf(subject)}; Control-C ends it`),
      ...(typeof values.project === "string" ? { project: values.project } : {}),
      ...(durationNs === undefined ? {} : { durationNs }),
      ...(journal === undefined ? {} : { journal: journal.file }),
    });
  } catch (error) {
    json?.discard();
    journal?.discard();
    throw error;
  }
  json?.write(`${JSON.stringify(evidence, null, 2)}\n`);
  if (!quiet) {
    const { renderEvidence } = await import("../report/text.js");
    if (evidence.attached?.ended_by === "process") printError(`${wordsOf(subject)} ended, and the faults with it`);
    printToStderr(renderEvidence(evidence, { colour: isatty(2) && !process.env.NO_COLOR }));
  }
  return evidence.exit_code;
}

async function subjectOf({ pid, cgroup }: Readonly<Record<string, unknown>>): Promise<Subject> {
  if (pid !== undefined && cgroup !== undefined) {
    throw new UsageError("--pid and --cgroup: one of them says what to attach to, such as --pid alone");
  }
  const { expectCgroup, ScopeError, watchFor } = await import("../api/observe.js");
  try {
    if (typeof cgroup === "string") {
      const path = resolve(cgroup);
      expectCgroup(path);
      return { cgroup: path };
    }
    if (pid === undefined) throw new UsageError("attach: needs to know to what, such as --pid 4242");
    if (!/^[1-9]\d{0,8}$/.test(String(pid))) {
      throw new UsageError(`--pid ${String(pid)}: is no process's number, such as --pid 4242`);
    }
    if (Number(pid) === process.pid) throw new UsageError(`--pid ${String(pid)}: this is mishap itself`);
    watchFor({ pid: Number(pid) });
    return { pid: Number(pid) };
  } catch (error) {
    if (!(error instanceof ScopeError)) throw error;
    throw new UsageError(`${pid === undefined ? "--cgroup" : "--pid"} ${String(pid ?? cgroup)}: ${error.message}`);
  }
}

const wordsOf = (subject: Subject): string => ("pid" in subject ? `pid ${subject.pid}` : `cgroup ${subject.cgroup}`);

/** Under sudo, what needs root is done first; then we are the user who called it, whose files the rest are. */
async function leaveRoot(
  values: Readonly<Record<string, unknown>>,
  subject: Subject,
  flags: Policy,
): Promise<Pick<AttachOptions, "policy" | "witness">> {
  const { actAs, becomeInvoker, findInvoker } = await import("../kernel/invoker.js");
  const invoker = findInvoker();
  if (invoker === undefined) return { policy: await askedFor(flags, values) };
  const policy = await actAs(invoker, () => askedFor(flags, values));
  const { Witness } = await import("../kernel/witness.js");
  const { defaultProject } = await import("../api/project.js");
  const { policiesOf } = await import("../api/session.js");
  const project = typeof values.project === "string" ? values.project : defaultProject();
  const witness = await Witness.attach(project, subject, policiesOf(policy).own, invoker);
  becomeInvoker(invoker);
  return { policy, witness };
}
