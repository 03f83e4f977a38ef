/** A recording as a run takes it: what it decided, under which policies, of which command. */

import type { ReplayOptions } from "../api/kept.js";
import { type RunPolicies, UNNAMED } from "../api/published.js";
import { type Policy, PolicyError, parsePolicy } from "../policy/index.js";
import { openRecording, RecordingError, type RecordingHeader } from "../recording/index.js";
import { missingOf } from "../recording/text.js";
import { decisionsOf } from "./decisions.js";

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
  return {
    command: header.command,
    policies: policiesOf(path, header),
    seed: BigInt(header.seed),
    setpriority: header.setpriority,
    replay: { decisions: decisionsOf(recording), strict },
    missing: missingOf(recording),
  };
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
