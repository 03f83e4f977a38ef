/** `mishap policy`: looks at policies, in files and ready-made, without running anything. */

import type { Command } from "commander";
import { describeFaults, loadPreset, nearest, normalForm, type Policy, PolicyError, PRESETS } from "../policy/index.js";
import { printToStderr, UsageError } from "./errors.js";

const EXAMPLES = `
Examples:
  mishap policy check policies.yaml
  mishap policy show policies.yaml slow_link
  mishap policy presets satellite_geo > policies.yaml
  mishap policy schema > policy.schema.json`;

interface Output {
  readonly json?: boolean;
}

/** `mishap policy` alone says what it can do. */
export function prepareArguments(args: readonly string[]): string[] {
  return args.length === 1 ? ["help", ...args] : [...args];
}

/** Adds `policy` and its commands to the program. */
export function define(program: Command): void {
  const policy = program
    .command("policy")
    .summary("check, list and show policies")
    .description("Looks at policies in JSON and YAML files, and at the ready-made ones. Runs nothing.")
    .addHelpText("after", EXAMPLES);
  policy
    .command("check")
    .summary("say everything that is wrong with files of policies")
    .description(
      "Reads files of policies and says everything that is wrong, with line and column; exit 2 if anything is.",
    )
    .argument("<file...>", "files of policies: .json, .yaml or .yml")
    .action(check);
  policy
    .command("list")
    .summary("list the policies of a file")
    .description("Lists the policies of a file, and what each asks for.")
    .argument("<file>", "a file of policies")
    .option("--json", "for machines")
    .action(list);
  policy
    .command("show")
    .summary("print a policy in its normal form")
    .description("Prints a policy of a file in its normal form, as YAML that is a file of policies itself.")
    .argument("<file>", "a file of policies")
    .argument("<name>", "the policy's name")
    .option("--json", "as JSON")
    .action(show);
  policy
    .command("schema")
    .summary("print the JSON Schema of policy files")
    .description("Prints the JSON Schema (draft 2020-12) of policy files, for editors.")
    .action(async () => {
      const { policyFileSchema } = await import("../policy/json-schema.js");
      process.stdout.write(`${JSON.stringify(policyFileSchema, null, 2)}\n`);
    });
  policy
    .command("presets")
    .summary("list the ready-made policies, or print one")
    .description("Lists the ready-made policies; with a name, prints that one as YAML that is a file of policies.")
    .argument("[name]", "a preset's name")
    .option("--json", "as JSON")
    .action(presets);
}

async function check(files: readonly string[]): Promise<void> {
  const { loadPolicyFile, PolicyFileError } = await import("../policy/files.js");
  for (const file of files) {
    try {
      process.stdout.write(`${file}: ${countOf(loadPolicyFile(file).size)}\n`);
    } catch (error) {
      if (!(error instanceof PolicyFileError)) throw error;
      for (const sentence of error.sentences) printToStderr(`${sentence}\n`);
      process.exitCode = 2;
    }
  }
}

async function list(file: string, { json }: Output): Promise<void> {
  const policies = [...(await load(file))];
  if (json) {
    const entries = policies.map(([name, policy]) => ({
      name,
      faults: describeFaults(policy).map(({ fault, asked, directions }) => ({ fault, asked, directions })),
      targets: policy.fields.targets?.length ?? 0,
      schedule: policy.written.schedule ?? null,
    }));
    process.stdout.write(`${JSON.stringify(entries, null, 2)}\n`);
    return;
  }
  await printTable(policies.map(([name, policy]) => [name, summaryOf(policy)]));
}

async function show(file: string, name: string, { json }: Output): Promise<void> {
  const policies = await load(file);
  const policy = policies.get(name);
  if (policy === undefined) {
    const names = [...policies.keys()];
    const right = names.length === 0 ? "it has none" : `the nearest is ${nearest(name, names)}`;
    throw new UsageError(`${file}: no policy ${JSON.stringify(name)}; ${right}`);
  }
  await printPolicies({ [name]: normalForm(policy) }, json);
}

async function presets(name: string | undefined, { json }: Output): Promise<void> {
  if (name === undefined) {
    const entries = Object.entries(PRESETS);
    if (json)
      process.stdout.write(
        `${JSON.stringify(
          entries.map(([each, preset]) => ({ name: each, ...preset })),
          null,
          2,
        )}\n`,
      );
    else await printTable(entries.map(([each, { description }]) => [each, description]));
    return;
  }
  try {
    const { written } = loadPreset(name);
    const preset = PRESETS[name];
    if (!json && preset !== undefined) process.stdout.write(`# ${preset.description}\n# Source: ${preset.source}\n`);
    await printPolicies({ [name]: written }, json);
  } catch (error) {
    if (error instanceof PolicyError) throw new UsageError(error.message);
    throw error;
  }
}

/** The policies of a file; what is wrong with it is the user's to put right. */
async function load(file: string): Promise<Map<string, Policy>> {
  const { loadPolicyFile, PolicyFileError } = await import("../policy/files.js");
  try {
    return loadPolicyFile(file);
  } catch (error) {
    if (error instanceof PolicyFileError) throw new UsageError(error.message);
    throw error;
  }
}

async function printPolicies(policies: Readonly<Record<string, unknown>>, json = false): Promise<void> {
  const { stringify } = await import("yaml");
  process.stdout.write(json ? `${JSON.stringify(policies, null, 2)}\n` : stringify(policies));
}

async function printTable(rows: readonly (readonly string[])[]): Promise<void> {
  const { alignColumns } = await import("../report/format.js");
  process.stdout.write(
    alignColumns(rows.map((row) => [...row]))
      .map((line) => `${line}\n`)
      .join(""),
  );
}

/** What a policy asks for, in one line. */
function summaryOf(policy: Policy): string {
  const faults = describeFaults(policy).map(({ fault, asked }) => `${fault} ${asked}`);
  const targets = policy.fields.targets?.length ?? 0;
  return [
    faults.length === 0 ? "no faults" : faults.join(", "),
    ...(targets === 0 ? [] : [targets === 1 ? "1 target" : `${targets} targets`]),
    ...(policy.fields.schedule === undefined ? [] : [policy.fields.schedule.kind]),
  ].join(" · ");
}

const countOf = (policies: number): string => (policies === 1 ? "1 policy" : `${policies} policies`);
