/** Matchers over evidence: whether a fault was applied, and if not, why not. */

import { camelPath, nearest, type PolicyFields } from "../policy/index.js";
import { baseKey, basisNoun } from "../report/evidence.js";
import { formatPlural } from "../report/format.js";
import type { Evidence, FaultEvidence } from "../report/schema.js";
import { renderEvidence } from "../report/text.js";

const DIRECTIONAL = ["latency", "jitter", "packetLoss", "burstLoss", "rate"] as const satisfies readonly Field[];
const UNDIRECTED = [
  "correlatedLoss",
  "timeout",
  "connectionError",
  "halfOpen",
  "packetDuplicate",
  "packetReorder",
  "dns",
  "sessionBudget",
  "payloadMutation",
] as const satisfies readonly Field[];
const PARTS = ["timeout.connect", "timeout.recv", "dns.delay", "dns.timeout", "dns.nxdomain"] as const;

type Field = keyof PolicyFields;
type Directional = (typeof DIRECTIONAL)[number];

/** A fault as policies in TypeScript name it. Without a direction it means both; `timeout` and `dns` mean all of theirs. */
export type FaultName =
  | Directional
  | `${"uplink" | "downlink"}.${Directional}`
  | (typeof UNDIRECTED)[number]
  | (typeof PARTS)[number];

const NAMES: readonly string[] = [
  ...DIRECTIONAL,
  ...UNDIRECTED,
  ...PARTS,
  ...DIRECTIONAL.flatMap((name) => [`uplink.${name}`, `downlink.${name}`]),
];

/** What has evidence: a run, read from `--json` too, or a test's `faults`. */
export type EvidenceSource = Evidence | { evidence(): Evidence };

/** How often a fault is to have been applied; at least once where nothing is said. */
export interface AppliedOptions {
  readonly atLeast?: number;
  readonly atMost?: number;
  /** Of this policy only, by its name in the evidence. */
  readonly policy?: string;
}

interface Verdict {
  readonly pass: boolean;
  readonly message: () => string;
}

/** Passes when a fault took effect as often as asked. Fails with what was asked, what was delivered, and why not. */
function toHaveApplied(received: unknown, fault: FaultName, options: AppliedOptions = {}): Verdict {
  const evidence = evidenceIn(received);
  const name = knownName(fault);
  const { atLeast = options.atMost === undefined ? 1 : 0, atMost = Number.POSITIVE_INFINITY, policy } = options;
  const found = evidence.faults.filter((each) => matches(each, name) && (policy ?? each.policy) === each.policy);
  const applied = found.reduce((sum, each) => sum + each.applied, 0);
  const pass = applied >= atLeast && applied <= atMost;
  return { pass, message: () => explain(evidence, found, name, pass, { ...options, atLeast, atMost }) };
}

/** For `expect.extend`. */
export const matchers = { toHaveApplied };

function evidenceIn(received: unknown): Evidence {
  const given: unknown =
    isObject(received) && "evidence" in received && typeof received.evidence === "function"
      ? received.evidence()
      : received;
  if (isEvidence(given)) return given;
  throw new TypeError(
    "toHaveApplied: expects evidence, such as what run() resolves to, what --json writes, or a test's faults",
  );
}

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

function isEvidence(value: unknown): value is Evidence {
  return isObject(value) && "faults" in value && Array.isArray(value.faults) && "notes" in value;
}

function knownName(fault: string): string {
  const name = camelPath(fault);
  if (NAMES.includes(name)) return name;
  throw new TypeError(
    `toHaveApplied: no fault is called ${JSON.stringify(fault)}; the nearest is ${nearest(name, NAMES)}`,
  );
}

function matches({ fault }: FaultEvidence, name: string): boolean {
  const [whole, base] = [camelPath(fault), camelPath(baseKey(fault))];
  return whole === name || base === name || base.startsWith(`${name}.`);
}

function explain(
  evidence: Evidence,
  found: readonly FaultEvidence[],
  name: string,
  pass: boolean,
  { atLeast = 1, atMost = Number.POSITIVE_INFINITY, policy }: AppliedOptions,
): string {
  const of = policy === undefined ? "" : ` of ${policy}`;
  const wanted = `expected ${name}${of} ${pass ? "not " : ""}to be applied${howOften(atLeast, atMost)}`;
  return `${wanted}; ${whatWas(found)}\n\n${renderEvidence(evidence, { colour: false })}`;
}

function howOften(atLeast: number, atMost: number): string {
  if (atMost === Number.POSITIVE_INFINITY) return atLeast === 1 ? "" : ` at least ${formatPlural(atLeast, "time")}`;
  if (atLeast === atMost) return ` exactly ${formatPlural(atLeast, "time")}`;
  return atLeast === 0
    ? ` at most ${formatPlural(atMost, "time")}`
    : ` between ${atLeast} and ${formatPlural(atMost, "time")}`;
}

function whatWas(found: readonly FaultEvidence[]): string {
  if (found.length === 0) return "it was not asked for";
  const each = found.map((fault) => {
    const count = fault.applied === 0 ? "was never applied" : `was applied ${formatPlural(fault.applied, "time")}`;
    return `${camelPath(fault.fault)} (asked ${fault.asked}) ${count}, of ${formatPlural(fault.of, basisNoun(fault))}`;
  });
  return each.join("; ");
}

declare module "vitest" {
  interface Matchers<T> {
    /**
     * On evidence: whether a fault took effect, at least once or as often as `options` say.
     *
     * @param fault - in camelCase, with or without a direction: `latency`, `uplink.rate`, `dns.nxdomain`
     */
    toHaveApplied(fault: FaultName, options?: AppliedOptions): T;
  }
}
