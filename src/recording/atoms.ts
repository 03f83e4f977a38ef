/**
 * What of a recording can be left out when it is made smaller: single decisions, and what a policy has done without
 * any. A subset of these is a recording of its own.
 */

import { type Cut, writePart } from "./cut.js";
import type { EventColumns } from "./events.js";
import type { RecordingHeader } from "./format.js";
import type { Recording } from "./reader.js";
import { DIRECTIONS, endsConversation, FAULT_WORDS, isByTheClock, isFaults, OPS, STAGES, wordFor } from "./words.js";

/** One fault of a recording: it is there whole or not at all. */
export interface Atom {
  /** What tells it from the others; the same whenever the recording is read. */
  readonly key: string;
  /** Its policy and what asked for it. */
  readonly group: string;
  /** The flow it happened to; the policy for what is no flow's. */
  readonly flow: string;
  /** Where its first event stands among all; absent for what a policy does without any. */
  readonly first?: number;
  /** What a policy does without any event. */
  readonly field?: PolicyField;
}

/** A part of a policy in the recording's header. */
export interface PolicyField {
  readonly slot: number;
  readonly name: FieldName;
}

/** A part of a policy that is carried out for every flow as it stands there, so that no event says it. */
type FieldName = "rate" | "timeout.connect" | "timeout.recv";
const FIELD_NAMES: readonly FieldName[] = ["rate", "timeout.connect", "timeout.recv"];
/** Where they are written. */
const FIELDS: Readonly<Record<FieldName, readonly (readonly [key: string, inner?: string])[]>> = {
  rate: [["rate"], ["rate_burst"], ["uplink", "rate"], ["downlink", "rate"]],
  "timeout.connect": [["timeout", "connect"]],
  "timeout.recv": [["timeout", "recv"]],
};

/** A policy as a header has it. */
type Written = RecordingHeader["policies"][number]["policy"];

/** All faults of a recording. */
export interface Atoms {
  /** In the order of their first events; those without events first. */
  readonly all: readonly Atom[];
  /** Of each event in the order of the file, the place of its atom in `all`; −1 where it is none. */
  readonly ofEvent: readonly number[];
  /** Decisions about flows that the recording does not name: they cannot be met again. */
  readonly unknown: number;
}

/** Finds the faults of a recording. */
export function atomsOf(recording: Recording): Atoms {
  const all: Atom[] = fieldAtoms(recording.header);
  const ofEvent: number[] = [];
  const places = new Map<string, number>();
  let unknown = 0;
  for (const { events } of recording.blocks()) {
    for (let at = 0; at < events.count; at++) {
      const atom = isFault(events, at) ? eventAtom(recording, events, at, ofEvent.length) : undefined;
      if (atom === undefined || recording.flow(events.flow[at] ?? 0) === undefined) {
        if (atom !== undefined) unknown++;
        ofEvent.push(-1);
        continue;
      }
      const place = places.get(atom.key) ?? all.push(atom) - 1;
      places.set(atom.key, place);
      ofEvent.push(place);
    }
  }
  return { all, ofEvent, unknown };
}

function isFault({ verdict, fault }: EventColumns, at: number): boolean {
  return isFaults(verdict[at] ?? 0) && !isByTheClock(fault[at] ?? 0);
}

function eventAtom(recording: Recording, events: EventColumns, at: number, first: number): Atom {
  const flow = recording.flowWords(events.flow[at] ?? 0);
  const fault = wordFor(FAULT_WORDS, events.fault[at] ?? 0);
  const place = endsConversation(events.fault[at] ?? 0)
    ? []
    : [wordFor(STAGES, events.stage[at] ?? 0), `#${events.unit[at] ?? 0}`];
  const side = [wordFor(DIRECTIONS, events.direction[at] ?? 0), wordFor(OPS, events.op[at] ?? 0)];
  const policy = events.policy[at] ?? 0;
  return { key: [flow, ...side, fault, ...place].join(" "), group: `${policy} ${fault}`, flow, first };
}

function fieldAtoms(header: RecordingHeader | undefined): Atom[] {
  return (header?.policies ?? []).flatMap(({ slot, policy }) =>
    FIELD_NAMES.filter((name) => Object.keys(fieldValues(policy, name)).length > 0).map((name) => ({
      key: fieldKey(slot, name),
      group: `${slot} ${name}`,
      flow: `policy ${slot}`,
      field: { slot, name },
    })),
  );
}

const fieldKey = (slot: number, name: FieldName): string => `policy ${slot} ${name}`;

/** What a policy has of such a part, by path: `{"uplink.rate": "1mbps"}`. A burst alone limits nothing. */
export function fieldValues(policy: Written, name: FieldName): Record<string, unknown> {
  const found = FIELDS[name].flatMap(([key, inner]): [string, unknown][] => {
    const value = inner === undefined ? policy[key] : isBlock(policy[key]) ? policy[key][inner] : undefined;
    return value === undefined ? [] : [[inner === undefined ? key : `${key}.${inner}`, value]];
  });
  return found.every(([path]) => path === "rate_burst") ? {} : Object.fromEntries(found);
}

function isBlock(value: unknown): value is Written {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A policy without some of its fields, each a path; a block that is left empty is not kept. */
export function withoutFields(policy: Written, paths: readonly (readonly (string | undefined)[])[]): Written {
  const kept: Written = {};
  for (const [key, value] of Object.entries(policy)) {
    const own = paths.filter(([first]) => first === key);
    const inner = own.map((path) => path.slice(1));
    if (inner.some((path) => path.length === 0)) continue;
    if (inner.length === 0 || !isBlock(value)) kept[key] = value;
    else {
      const block = withoutFields(value, inner);
      if (Object.keys(block).length > 0) kept[key] = block;
    }
  }
  return kept;
}

/** Writes the recording of a subset of the faults, with the policies that go with it. */
export function writeSubset(recording: Recording, to: string, atoms: Atoms, kept: readonly Atom[]): Promise<Cut> {
  const keys = new Set(kept.map(({ key }) => key));
  const places = atoms.all.map(({ key }) => keys.has(key));
  let event = 0;
  return writePart(
    recording,
    to,
    (header) => headerOf(header, keys),
    () => places[atoms.ofEvent[event++] ?? -1] === true,
  );
}

function headerOf(header: RecordingHeader, kept: ReadonlySet<string>): RecordingHeader {
  const policies = header.policies.map((each) => {
    const gone = FIELD_NAMES.filter((field) => !kept.has(fieldKey(each.slot, field)));
    const policy = withoutFields(
      each.policy,
      gone.flatMap((field) => FIELDS[field]),
    );
    return { ...each, policy };
  });
  return { ...header, policies };
}
