/** Compiled policies, into the segment and back out of it: all that is known of one that somebody else registered. */

import type { CompiledPolicy, RowFields, TargetFields } from "../policy/index.js";
import type { Segment, StructValue } from "../segment/index.js";

/** Puts a policy in a slot, in force at once; `scriptAsks`: what it asks a script about, as the contract's Row has it. */
export function publishAt(
  segment: Segment,
  slot: number,
  { row, targets }: CompiledPolicy,
  scriptAsks: number = 0,
): void {
  const rules = targets.map((target): StructValue => ({ ...target }));
  segment.publish(slot, { ...row, script_asks: scriptAsks }, rules);
}

/** What is published in a slot; undefined where nothing ever was. */
export function compiledAt(segment: Segment, slot: number): CompiledPolicy | undefined {
  const row = segment.readRow(slot);
  if (row === undefined) return undefined;
  const targets = segment.readTargets(slot, Number(row.target_count));
  // Decoded by the contract's layout, whose fields and types these are.
  return { row: row as unknown as RowFields, targets: targets as unknown as TargetFields[] };
}
