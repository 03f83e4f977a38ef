/** What is left of a recording as a file of policies: the decisions in words, to be read, changed and run. */

import { Document } from "yaml";
import { faultMask } from "../policy/faults.js";
import { parsePolicy } from "../policy/schema.js";
import { withoutFields } from "./atoms.js";
import { type EventColumns, eventAt } from "./events.js";
import { withoutPassingPort } from "./passing-ports.js";
import type { Recording } from "./reader.js";
import { DIRECTIONS, FAULT_WORDS, isFaults, OPS, STAGES, VERDICTS, wordFor } from "./words.js";

/** The name of the run's own policy in such a file. */
export const SHRUNK = "shrunk";

type Policies = NonNullable<Recording["header"]>["policies"];
type Written = Policies[number]["policy"];
/** As a policy lists it. */
interface Decision {
  readonly flow: string;
  readonly direction: string;
  readonly op: string;
  readonly unit: number;
  readonly offset?: number;
  readonly stage: string;
  readonly verdict: string;
  readonly fault: string;
  readonly value: number;
}

const LOSSES = ["packet_loss", "burst_loss", "correlated_loss"];
/** For which faults a field is needed; those not named here always are. How long a lost segment takes hangs on latency. */
const NEEDED_FOR: readonly (readonly [path: readonly string[], faults: readonly string[]])[] = [
  ...[[], ["uplink"], ["downlink"]].flatMap((side): [string[], string[]][] => [
    [
      [...side, "latency"],
      ["latency", ...LOSSES],
    ],
    [[...side, "jitter"], ["jitter"]],
    [
      [...side, "packet_loss"],
      ["packet_loss", "burst_loss"],
    ],
    [
      [...side, "burst_loss"],
      ["packet_loss", "burst_loss"],
    ],
  ]),
  [["jitter_distribution"], ["jitter"]],
  [["correlated_loss"], ["correlated_loss"]],
  [["loss_mode"], LOSSES],
  [["connection_error"], ["connection_error"]],
  [["half_open"], ["half_open"]],
  [["session_budget"], ["session_budget"]],
  [["packet_duplicate"], ["packet_duplicate"]],
  [["packet_reorder"], ["packet_reorder"]],
  [["payload_mutation"], ["payload_mutation"]],
  [["dns", "delay"], ["dns_delay"]],
  [["dns", "timeout"], ["dns_timeout"]],
  [["dns", "nxdomain"], ["dns_nxdomain"]],
];

/**
 * The text of a file of policies, in YAML: the run's own policy by the name {@link SHRUNK}, without what its decisions do
 * not need and with all decisions; and the run's other policies by their names, but for those that the program registered
 * and will register again.
 *
 * @param source - the path of the recording that this is left of
 * @param file - the path of the file of policies
 * @param isMeant - leaves out events that only repeat what another one says
 */
export function asPolicy(
  recording: Recording,
  source: string,
  file: string,
  isMeant: (ordinal: number) => boolean,
): string {
  const [own, ...others] = policiesOf(recording);
  const found = decisionsOf(recording, isMeant);
  const faults = new Set(found.map(({ fault }) => fault));
  const { decisions: _, ...fields } = needed(own?.policy ?? {}, faults);
  const asked = faultMask(parsePolicy(fields).fields);
  const isAsked = ({ fault }: Decision): boolean => (asked & (1 << FAULT_WORDS.indexOf(fault))) !== 0;
  const decisions = found.filter(isAsked);

  const document = new Document();
  document.contents = document.createNode({
    [SHRUNK]: { ...fields, decisions: decisions.map((decision) => document.createNode(decision, { flow: true })) },
    ...Object.fromEntries(others.filter(({ name }) => name !== SHRUNK).map(({ name, policy }) => [name, policy])),
  });
  document.commentBefore = [
    `What is left of ${oneLine(source)}: with these faults the command still failed, and with any one less it did not.`,
    "Made by `mishap recording shrink`. To run a program under it:",
    `  mishap run --policies ${oneLine(file)} --policy ${SHRUNK} -- COMMAND`,
    ...(decisions.length === found.length
      ? []
      : [
          `${found.length - decisions.length} of ${found.length} decisions are missing: their faults are other policies', which hold no decisions. The recording has them.`,
        ]),
  ]
    .map((line) => ` ${line}`)
    .join("\n");
  return document.toString({ lineWidth: 0 });
}

/** The policies of a run, its own first, without those of the program. */
function policiesOf({ header }: Recording): Policies {
  return (header?.policies ?? []).filter(({ by_program }) => by_program !== true).sort((a, b) => a.slot - b.slot);
}

function decisionsOf(recording: Recording, isMeant: (ordinal: number) => boolean): Decision[] {
  const decisions: Decision[] = [];
  const { portless } = recording;
  let ordinal = 0;
  for (const { events } of recording.blocks()) {
    for (let at = 0; at < events.count; at++) {
      if (isMeant(ordinal++) && isFaults(events.verdict[at] ?? 0))
        decisions.push(decisionOf(recording, events, at, portless));
    }
  }
  return decisions;
}

/** A policy without what is drawn for faults that it has no decision of. */
function needed(policy: Written, faults: ReadonlySet<string>): Written {
  const gone = NEEDED_FOR.filter(([, causes]) => !causes.some((fault) => faults.has(fault)));
  return withoutFields(
    policy,
    gone.map(([path]) => path),
  );
}

function decisionOf(recording: Recording, events: EventColumns, at: number, portless: boolean): Decision {
  const event = eventAt(events, at);
  const flow = recording.flowWords(event.flow);
  return {
    flow: portless ? withoutPassingPort(flow) : flow,
    direction: wordFor(DIRECTIONS, event.direction),
    op: wordFor(OPS, event.op),
    unit: event.unit,
    ...(event.offset === 0 ? {} : { offset: event.offset }),
    stage: wordFor(STAGES, event.stage),
    verdict: wordFor(VERDICTS, event.verdict),
    fault: wordFor(FAULT_WORDS, event.fault),
    value: event.value,
  };
}

/** Within a comment a line break would end it. */
const oneLine = (text: string): string => text.replace(/\s+/g, " ");
