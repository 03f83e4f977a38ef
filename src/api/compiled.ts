/** Policies as the segment holds them: all that is known of one that another process, or another thread, registered. */

import type { CompiledPolicy, RowFields, TargetFields } from "../policy/index.js";
import type { Segment } from "../segment/index.js";

/** What is published in a slot; undefined where nothing ever was. */
export function compiledAt(segment: Segment, slot: number): CompiledPolicy | undefined {
  const row = segment.readRow(slot);
  if (row === undefined) return undefined;
  const targets = segment.readTargets(slot, Number(row.target_count));
  // Decoded by the contract's layout, whose fields and types these are.
  return { row: row as unknown as RowFields, targets: targets as unknown as TargetFields[] };
}
