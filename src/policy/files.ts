/**
 * Policies in files: JSON or YAML, an object keyed by policy name. A file is read as a whole or not at all, and what
 * is wrong with it is said with its line and column. Only who reads files loads this, and the parser of YAML with it.
 */

import { readFileSync, statSync } from "node:fs";
import { extname } from "node:path";
import { joinPath, PolicyError, quote } from "./errors.js";
import type { PolicyProblem } from "./problems.js";
import { checkPolicyName, type Policy, readPolicy } from "./schema.js";
import { type Format, type Place, readSource, type Source } from "./source.js";

/** More than a thousand policies, with rules, need; larger ones would take the parser seconds. */
const MAX_FILE_BYTES = 1_000_000;

const FORMATS: Readonly<Record<string, Format>> = { ".json": "json", ".yaml": "yaml", ".yml": "yaml" };
const ROOT_EXAMPLE = "{slow_link: {latency: 50ms}}";
/** A root key that names the JSON Schema for editors. */
const SCHEMA_KEY = "$schema";

/** One thing that is wrong with a file. */
export interface FileProblem extends Partial<Place> {
  /** The key, such as `slow_link.uplink.rate`; empty for the file as a whole. */
  readonly path: string;
  /** What is wrong and what would be right. */
  readonly problem: string;
  /** The value as written, where it is one that can be shown. */
  readonly value?: unknown;
}

/** Says everything that is wrong with a file of policies; its message is the first of it. */
export class PolicyFileError extends PolicyError {
  override readonly name = "PolicyFileError";
  readonly file: string;
  readonly problems: readonly FileProblem[];

  constructor(file: string, problems: readonly [FileProblem, ...FileProblem[]]) {
    const [{ path, problem, value }, ...more] = problems;
    super(path, problem, value);
    this.file = file;
    this.problems = problems;
    this.message = this.sentences[0] + (more.length === 0 ? "" : ` (and ${more.length} more)`);
  }

  /** One sentence a problem: `file:line:column: key "value": what is wrong, what would be right`. */
  get sentences(): string[] {
    return this.problems.map(({ line, column, path, problem, value }) => {
      const place = line === undefined ? this.file : `${this.file}:${line}:${column}`;
      return path === "" ? `${place}: ${problem}` : `${place}: ${new PolicyError(path, problem, value).message}`;
    });
  }
}

/**
 * Reads the policies of a `.json`, `.yaml` or `.yml` file, by name, in the file's order.
 * @throws PolicyFileError for a file that cannot be read or has anything wrong in it.
 */
export function loadPolicyFile(path: string): Map<string, Policy> {
  const format = FORMATS[extname(path).toLowerCase()];
  const refuse = (problem: string): never => {
    throw new PolicyFileError(path, [{ path: "", problem }]);
  };
  if (format === undefined) return refuse("a policy file ends in .json, .yaml or .yml, such as policies.yaml");
  return parsePolicies(readText(path, refuse), format, path);
}

/** Reads policies from a text; `file` is what errors call it. Throws a PolicyFileError. */
export function parsePolicies(text: string, format: Format, file: string): Map<string, Policy> {
  const policies = new Map<string, Policy>();
  const problems: FileProblem[] = [];
  const read = readSource(text, format);
  if ("problems" in read) {
    problems.push(...read.problems.map(({ place, problem }) => ({ ...place, path: "", problem })));
  } else if (!isRecord(read.ok.value)) {
    const problem = `must be an object keyed by policy name, such as ${ROOT_EXAMPLE}`;
    problems.push({ ...read.ok.placeOf([]), path: "", problem });
  } else {
    for (const [name, written] of Object.entries(read.ok.value)) {
      if (name === SCHEMA_KEY) continue;
      problems.push(...nameProblems(name, read.ok));
      const result = readPolicy(written);
      if ("ok" in result) policies.set(name, result.ok);
      else problems.push(...result.problems.map((problem) => locate(name, problem, read.ok)));
    }
  }
  const [first, ...more] = problems;
  if (first !== undefined) throw new PolicyFileError(file, [first, ...more]);
  return policies;
}

function readText(path: string, refuse: (problem: string) => never): string {
  let bytes: Buffer;
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) refuse(`has ${size} bytes; a policy file has at most ${MAX_FILE_BYTES}`);
    bytes = readFileSync(path);
  } catch (error) {
    if (error instanceof PolicyFileError || !(error instanceof Error)) throw error;
    return refuse(`cannot be read (${"code" in error ? String(error.code) : error.message}); give a file that can`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return refuse("is not text in UTF-8; save it as such");
  }
}

function nameProblems(name: string, source: Source): FileProblem[] {
  try {
    checkPolicyName(name);
    return [];
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    return [{ ...source.placeOf([], name), path: shown(name), problem: error.problem }];
  }
}

function locate(name: string, { parts, unknownKey, problem, value }: PolicyProblem, source: Source): FileProblem {
  const place = source.placeOf([name, ...parts], unknownKey);
  return { ...place, path: joinPath([shown(name), ...parts]), problem, value };
}

/** A policy's name within a path. */
function shown(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : quote(name);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
