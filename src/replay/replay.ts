/** A recording as a run takes it: what it decided, under which policies, of which command. */

import type { ReplayOptions } from "../api/kept.js";
import { type RunPolicies, UNNAMED } from "../api/published.js";
import { type Policy, PolicyError, parsePolicy } from "../policy/index.js";
import { openRecording, RecordingError, type RecordingHeader } from "../recording/index.js";
import { missingOf } from "../recording/text.js";
import { layout } from "../segment/index.js";
import { decisionsOf } from "./decisions.js";

/** Slots that are left for policies of programs. */
const POLICIES_OF_PROGRAMS = 256;

/** What is needed to run a recording again. */
export interface Replayed {
  readonly command: readonly string[];
  readonly policies: RunPolicies;
  readonly seed: bigint;
  readonly setpriority: boolean;
  readonly replay: ReplayOptions;
  /** What the recording lacks, a sentence each. */
  readonly missing: readonly string[];
}

/** Reads a recording. Throws a RecordingError or a PolicyError, in a sentence, for one that cannot be run again. */
export function readReplay(path: string, { strict }: { strict: boolean }): Replayed {
  const recording = openRecording(path);
  const { header } = recording;
  if (header === undefined) throw new RecordingError(`${path}: its header is not whole, and says what to run and how`);
  if (header.policies.length === 0) {
    throw new RecordingError(
      `${path}: holds no policies, as recordings made of a journal do; \`mishap run --record\` keeps them`,
    );
  }
  const policies = policiesOf(path, header);
  const { slots, others, missing } = answersOf(path, header, policies);
  return {
    command: header.command,
    policies: { ...policies, others },
    seed: BigInt(header.seed),
    setpriority: header.setpriority,
    replay: { decisions: decisionsOf(recording, slots), strict },
    missing: [...missingOf(recording), ...missing],
  };
}

/** What a script answered, as policies behind the others: a session gives them slots in that order, from 1. */
function answersOf(
  path: string,
  { answers }: RecordingHeader,
  { others }: RunPolicies,
): { slots?: Map<number, number>; others: RunPolicies["others"]; missing: string[] } {
  if (answers === undefined) return { others, missing: [] };
  const { maxPolicies = 0 } = layout.constants;
  const room = Math.max(0, maxPolicies - POLICIES_OF_PROGRAMS - others.size);
  const all = new Map(others);
  const slots = new Map<number, number>();
  for (const [number, { value, fields }] of answers.slice(0, room).entries()) {
    slots.set(value, 1 + all.size);
    all.set(`script answer ${number + 1}`, policyOf(path, `script answer ${number + 1}`, fields));
  }
  const more = answers.length - slots.size;
  const missing = `${path}: holds ${answers.length} answers of its script, of which a replay has room for ${room}`;
  return { slots, others: all, missing: more > 0 ? [missing] : [] };
}

/** The run's own policy is the first; those that programs registered they will register again. */
function policiesOf(path: string, { policies }: RecordingHeader): RunPolicies {
  const [first, ...others] = policies
    .filter(({ by_program }) => by_program !== true)
    .sort((a, b) => a.slot - b.slot)
    .map(({ name, policy }): [string, Policy] => [name, policyOf(path, name, policy)]);
  if (first === undefined) throw new RecordingError(`${path}: does not hold the policy that the run was under`);
  return { name: first[0] === UNNAMED ? undefined : first[0], own: first[1], others: new Map(others) };
}

function policyOf(path: string, name: string, written: unknown): Policy {
  try {
    return parsePolicy(written);
  } catch (error) {
    if (error instanceof PolicyError) throw new RecordingError(`${path}: its policy ${name}: ${error.message}`);
    throw error;
  }
}
