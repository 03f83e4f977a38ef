/**
 * Connections that were there before an attach: which of a policy's faults the kernel can apply to them where they are, in the
 * words of native/loader/main.cpp, and what evidence says of those that it cannot. Pure.
 */

import { type AskedFault, type Direction, describeFaults, type Policy } from "../policy/index.js";
import { baseKey } from "../report/evidence.js";
import type { FaultEvidence } from "../report/schema.js";
import type { Treated } from "./words.js";

/** What is done to them. */
export interface Treatment {
  /** For the loader. */
  readonly flags: readonly string[];
  /** Faults that are applied by it, with what counts them. */
  readonly faults: readonly { readonly asked: AskedFault; readonly by: "reset" | "silenced" | "paced" }[];
  /** Faults that would mean something to them, and cannot be applied. */
  readonly left: readonly AskedFault[];
}

const CERTAIN = 1_000_000;
/** Only of connects, and of lookups. */
const OF_OTHERS = ["timeout.connect", "dns.delay", "dns.timeout", "dns.nxdomain"];

/** What the kernel can do to them of a policy. Where only some flows or times are meant, nothing. */
export function treatmentOf(policy: Policy): Treatment {
  const { fields } = policy;
  const faults = describeFaults(policy).filter(({ fault }) => !OF_OTHERS.includes(fault));
  const { connection_error: error, half_open: half } = fields;
  const meant = faults.filter(({ fault }) => fault !== "connection_error" || error?.kind === "reset");
  if (fields.targets !== undefined || fields.schedule !== undefined) return { flags: [], faults: [], left: meant };

  const resets = error?.kind === "reset" && error.prob === CERTAIN;
  const lossOf = (direction: Direction): number => fields[direction]?.packet_loss ?? fields.packet_loss ?? 0;
  const silent = (["uplink", "downlink"] as const).filter((way) => lossOf(way) === CERTAIN);
  const paceOf = fields.uplink?.rate ?? fields.rate;
  const by = ({ fault, directions }: AskedFault): Treatment["faults"][number]["by"] | undefined => {
    const key = baseKey(fault);
    if (resets) return key === "connection_error" ? "reset" : undefined;
    if (key === "half_open") return "silenced";
    if (key === "packet_loss" && half === undefined && directions.every((way) => silent.includes(way)))
      return "silenced";
    return key === "rate" && directions.includes("uplink") ? "paced" : undefined;
  };
  const applied = meant.flatMap((asked) => {
    const how = by(asked);
    return how === undefined ? [] : [{ asked, by: how }];
  });
  const uses = (how: string): boolean => applied.some((each) => each.by === how);
  return {
    flags: [
      ...(uses("reset") ? ["--reset"] : []),
      ...(uses("silenced") ? ["--silent", half !== undefined || silent.length === 2 ? "both" : wayOf(silent)] : []),
      ...(uses("silenced") && half !== undefined ? ["--silent-after", String(half.after)] : []),
      ...(uses("paced") ? ["--pace", String(Math.max(1, Math.round((paceOf ?? 0) / 8)))] : []),
    ],
    faults: applied,
    left: resets ? [] : meant.filter((asked) => !applied.some((each) => each.asked === asked && whole(each.by, asked))),
  };
}

const wayOf = (ways: readonly Direction[]): string => (ways[0] === "uplink" ? "up" : "down");

/** A pace is kept on the way out alone. */
const whole = (by: string, { directions }: AskedFault): boolean => by !== "paced" || !directions.includes("downlink");

/** What evidence says of them: an entry a fault that was applied, and a note of the others. */
export function describeTreated(
  { faults, left }: Treatment,
  treated: Treated,
): { faults: FaultEvidence[]; notes: string[] } {
  const { problem } = treated;
  const found = treated.found.length;
  const notes = problem === undefined ? [] : [`not all connections that were there before could be had: ${problem}`];
  if (found === 0) return { faults: [], notes };
  const names = [...new Set(left.map(({ fault }) => fault.replaceAll("_", " ")))].join(", ");
  if (names !== "") {
    const them =
      found === 1 ? "1 connection was there before: it does" : `${found} connections were there before: they do`;
    notes.push(`${them} not meet ${names}`);
  }
  return {
    notes,
    faults: faults.map(({ asked, by }) => ({
      fault: asked.fault,
      asked: asked.asked,
      applied: treated[by],
      of: found,
      executor: "kernel",
    })),
  };
}
