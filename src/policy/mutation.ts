/** payload_mutation: how a call's bytes are changed, and what each kind of change needs. */

import type { z } from "zod";
import { MUTATION_TARGETS, MUTATION_TYPES, words } from "./contract.js";
import { block, byteCount, choice, count, flag, payload, probability, seed } from "./fields.js";

const MAX_INJECT_BYTES = 64;
const MAX_PATTERN_BYTES = 32;
const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

const offset = (help: string, example: string) => count({ help, example, min: 0, max: MAX_OFFSET });

const mutationFields = block(
  {
    enabled: flag({ help: "false keeps the fields and changes nothing", example: "true" }).prefault(true),
    type: choice(words(MUTATION_TYPES), { help: "how payload is changed", example: "corrupt_bytes" }).optional(),
    prob: probability({ help: "chance that a call is changed", example: "10%" }).prefault("100%"),
    target: choice(words(MUTATION_TARGETS), { help: "which direction is changed", example: "uplink_only" }).prefault(
      "both",
    ),
    truncate_size: byteCount({ help: "truncate: bytes kept", example: "16b" }).optional(),
    corrupt_count: count({ help: "corrupt_bytes: bytes corrupted", example: "2", min: 1 }).prefault(1),
    corrupt_seed: seed({ help: "corrupt_bytes: seed of the positions", example: "7" }).prefault(0),
    inject_position: offset("inject_bytes: byte offset, past the end for the end", "4").prefault(0),
    inject_data: payload({
      help: "inject_bytes: what is put in",
      example: "noise",
      min: 1,
      max: MAX_INJECT_BYTES,
    }).optional(),
    replace_find: payload({
      help: "replace_pattern: what is looked for",
      example: "200 OK",
      min: 1,
      max: MAX_PATTERN_BYTES,
    }).optional(),
    replace_with: payload({
      help: "replace_pattern: what is put instead",
      example: "500 NO",
      min: 0,
      max: MAX_PATTERN_BYTES,
    }).prefault(""),
    swap_pos1: offset("swap_bytes: one byte offset", "0").optional(),
    swap_pos2: offset("swap_bytes: the other byte offset", "1").optional(),
    min_size: byteCount({ help: "smaller calls are left alone", example: "16b" }).prefault("0b"),
    max_size: byteCount({ help: "larger calls are left alone", example: "1kb", aboveZero: true }).optional(),
    every_n_packets: count({ help: "every n-th call of a direction", example: "3", min: 1 }).prefault(1),
    dry_run: flag({ help: "decide, and leave the bytes", example: "true" }).prefault(false),
    max_buffer_size: byteCount({ help: "bytes a changed call may hold", example: "64kb", aboveZero: true }).prefault(
      "64kb",
    ),
  },
  {
    help: "change what calls carry",
    example: "{type: corrupt_bytes, prob: 10%}",
    rule: "type is needed unless disabled",
  },
);

type Mutation = z.output<typeof mutationFields>;
type MutationField = keyof Mutation;

/** What each type cannot do without, and a value to suggest. */
const needed: Partial<Record<keyof typeof MUTATION_TYPES, readonly (readonly [MutationField, string])[]>> = {
  truncate: [["truncate_size", "16b"]],
  inject_bytes: [["inject_data", "noise"]],
  replace_pattern: [["replace_find", "200 OK"]],
  swap_bytes: [
    ["swap_pos1", "0"],
    ["swap_pos2", "1"],
  ],
};

/** The schema of payload_mutation. */
export const payloadMutation = mutationFields.superRefine((mutation, context) => {
  const refuse = (path: MutationField, message: string): void =>
    context.addIssue({ code: "custom", path: [path], message });
  if (mutation.max_size !== undefined && mutation.min_size > mutation.max_size) {
    refuse("max_size", "must not be below min_size; raise it or lower min_size");
  }
  if (!mutation.enabled) return;
  if (mutation.type === undefined) return refuse("type", "missing; give one, such as corrupt_bytes");
  for (const [field, example] of needed[mutation.type] ?? []) {
    if (mutation[field] === undefined) refuse(field, `missing; the type ${mutation.type} needs it, such as ${example}`);
  }
});

/** Whether a mutation is asked for at all. */
export function isMutating(mutation: Mutation | undefined): mutation is Mutation & { type: string } {
  return mutation?.enabled === true && mutation.type !== undefined && mutation.type !== "none";
}
