/** Which events of a recording are meant. */

import type { EventColumns } from "./events.js";
import type { Recording } from "./reader.js";
import { isFaults } from "./words.js";

/** All that is given has to hold. */
export interface EventFilter {
  /** The flow's identity in words contains this. */
  readonly flow?: string;
  /** Numbers of src/recording/words.ts. */
  readonly stage?: number;
  readonly verdict?: number;
  readonly fault?: number;
  /** The policy's slot is one of these. */
  readonly policies?: ReadonlySet<number>;
  /** Not before this time, in nanoseconds since the recording's start. */
  readonly fromNs?: number;
  /** Before this time. */
  readonly toNs?: number;
}

/** Whether the event at a place of a block is meant. Blocks have to come in their order, which names flows. */
export function selection(recording: Recording, filter: EventFilter): (events: EventColumns, at: number) => boolean {
  const { stage, verdict, fault, policies, fromNs = 0, toNs = Number.POSITIVE_INFINITY } = filter;
  const isOfFlow = flowTest(recording, filter.flow);
  return (events, at) => {
    const atNs = events.at_ns[at] ?? 0;
    return (
      atNs >= fromNs &&
      atNs < toNs &&
      (stage === undefined || events.stage[at] === stage) &&
      (verdict === undefined || events.verdict[at] === verdict) &&
      (fault === undefined || (events.fault[at] === fault && isFaults(events.verdict[at] ?? 0))) &&
      (policies === undefined || policies.has(events.policy[at] ?? 0)) &&
      isOfFlow(events.flow[at] ?? 0)
    );
  };
}

function flowTest(recording: Recording, words: string | undefined): (flow: number) => boolean {
  if (words === undefined) return () => true;
  const known = new Map<number, boolean>();
  return (flow) => {
    const answer = known.get(flow) ?? recording.flowWords(flow).includes(words);
    known.set(flow, answer);
    return answer;
  };
}
