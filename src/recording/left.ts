/** What is left of a recording once it was shrunk, for people and for machines: each fault once. */

import { type Atom, type Atoms, fieldValues } from "./atoms.js";
import type { Recording } from "./reader.js";
import { eventJson, eventLine } from "./text.js";

/** A line for each fault. */
export function leftLines(recording: Recording, atoms: Atoms): string[] {
  const fields = atoms.all.flatMap(({ field }) => {
    if (field === undefined) return [];
    const values = Object.entries(valuesOf(recording, field)).map(([path, value]) => `${path} ${String(value)}`);
    return [`${"always".padStart(12)}  ${values.join(", ")}  ${recording.policyName(field.slot)}`];
  });
  return [...fields, ...eachFirst(recording, atoms, eventLine)];
}

/** An object for each fault: its first event, or the fields of a policy. */
export function leftJson(recording: Recording, atoms: Atoms): object[] {
  const fields = atoms.all.flatMap(({ field }) => {
    if (field === undefined) return [];
    return [{ policy: recording.policyName(field.slot), fields: valuesOf(recording, field) }];
  });
  return [...fields, ...eachFirst(recording, atoms, eventJson)];
}

function valuesOf({ header }: Recording, { slot, name }: NonNullable<Atom["field"]>): Record<string, unknown> {
  return fieldValues(header?.policies.find((policy) => policy.slot === slot)?.policy ?? {}, name);
}

/** The first event of each fault that has any. */
function eachFirst<Result>(
  recording: Recording,
  atoms: Atoms,
  describe: (...of: Parameters<typeof eventLine>) => Result,
): Result[] {
  const firsts = new Set(atoms.all.map(({ first }) => first));
  const described: Result[] = [];
  let ordinal = 0;
  for (const { events } of recording.blocks()) {
    for (let at = 0; at < events.count; at++) {
      if (firsts.has(ordinal++)) described.push(describe(recording, events, at));
    }
  }
  return described;
}
