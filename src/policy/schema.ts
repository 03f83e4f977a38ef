/**
 * Every field of a policy, once: its type, its checks, its help. From this come the TypeScript types, the
 * validation, the command line's flags and the faults evidence answers for.
 *
 * Keys are those of policy files, in snake_case. Parsed policies keep the keys; their values are integers in
 * nanoseconds, bytes, bits a second and parts per million.
 */

import type { z } from "zod";
import {
  BUDGET_ACTIONS,
  ERROR_KINDS,
  FAULTS,
  JITTER_DISTRIBUTIONS,
  LOSS_MODES,
  RATE_SCOPES,
  words,
} from "./contract.js";
import { decisions } from "./decisions.js";
import { PolicyError } from "./errors.js";
import { faultMask, faultsOf } from "./faults.js";
import { block, choice, count, duration, probability, rate, seed, size } from "./fields.js";
import { payloadMutation } from "./mutation.js";
import { firstError, type PolicyProblem, problemsOf } from "./problems.js";
import { schedule } from "./schedule.js";
import { targets } from "./targets.js";

/** What can be asked for one direction apart; `where` ends the help. */
const directional = (where: string) => ({
  latency: duration({ help: `one-way delay${where}`, example: "50ms" }).optional(),
  jitter: duration({ help: `variation around the latency${where}`, example: "10ms" }).optional(),
  packet_loss: probability({ help: `random loss${where}`, example: "1%" }).optional(),
  burst_loss: count({ help: `losses in a row once one happens${where}`, example: "3", min: 0 }).optional(),
  rate: rate({ help: `bandwidth${where}`, example: "10mbps" }).optional(),
});
const direction = (help: string, where: string) =>
  block(directional(where), { help, example: "{latency: 50ms}", rule: "overrides the common field" }).optional();

const correlatedLoss = block(
  {
    p_good_to_bad: probability({ help: "Gilbert-Elliott: chance to turn bad", example: "1%" }),
    p_bad_to_good: probability({ help: "Gilbert-Elliott: chance to turn good", example: "25%" }),
    loss_good: probability({ help: "Gilbert-Elliott: loss while good", example: "0%" }),
    loss_bad: probability({ help: "Gilbert-Elliott: loss while bad", example: "50%" }),
  },
  {
    help: "loss in bursts after Gilbert and Elliott, the state held per flow",
    example: "{p_good_to_bad: 1%, p_bad_to_good: 25%, loss_good: 0%, loss_bad: 50%}",
    rule: "all four are needed",
  },
);

const timeout = block(
  {
    connect: duration({ help: "connects not done by then time out", example: "200ms", aboveZero: true }).optional(),
    recv: duration({ help: "receives without data by then time out", example: "500ms", aboveZero: true }).optional(),
  },
  { help: "limits that end as ETIMEDOUT", example: "{connect: 200ms, recv: 500ms}" },
);

const errorKind = (help: string, rule?: string) =>
  choice(words(ERROR_KINDS), { help, example: "reset", ...(rule !== undefined && { rule }) });
const connectionError = block(
  {
    kind: choice(words(ERROR_KINDS), { help: "which error connections meet", example: "refused" }),
    prob: probability({ help: "how often connections meet the error", example: "10%" }).prefault("100%"),
  },
  {
    help: "make connections fail",
    example: "{kind: refused, prob: 10%}",
    rule: "refused and unreachable are drawn once a connect, reset once a unit",
  },
);
const halfOpen = block(
  {
    after: size({ help: "bytes carried until the connection breaks", example: "32kb", aboveZero: true }),
    error: errorKind("how a half-open connection ends").prefault("reset"),
  },
  { help: "break connections after some bytes", example: "{after: 32kb, error: reset}" },
);

const packetDuplicate = block(
  {
    prob: probability({ help: "chance of each extra copy", example: "10%" }).prefault("100%"),
    max_extra: count({ help: "extra copies at most", example: "2", min: 1 }).prefault(1),
  },
  { help: "send packets more than once", example: "{prob: 10%, max_extra: 2}" },
);
const packetReorder = block(
  {
    prob: probability({ help: "chance that a packet is held back", example: "10%" }).prefault("100%"),
    window: count({ help: "later packets that may overtake", example: "3", min: 1 }).prefault(1),
    max_delay: duration({ help: "longest wait of a held packet, 0ms for no bound", example: "50ms" }).prefault("0ms"),
  },
  { help: "let packets overtake each other", example: "{prob: 10%, window: 3, max_delay: 50ms}" },
);

const dns = block(
  {
    delay: duration({ help: "time added to every lookup", example: "200ms" }).optional(),
    timeout: duration({ help: "lookups wait that long and fail", example: "2s", aboveZero: true }).optional(),
    nxdomain: probability({ help: "chance that a name does not exist", example: "3%" }).optional(),
  },
  { help: "faults of name lookups", example: "{delay: 200ms}" },
);

const sessionBudget = block(
  {
    max_tx: size({ help: "bytes a flow may send", example: "1mb", aboveZero: true }).optional(),
    max_rx: size({ help: "bytes a flow may receive", example: "1mb", aboveZero: true }).optional(),
    max_ops: count({ help: "operations a flow may make", example: "100", min: 1 }).optional(),
    max_duration: duration({ help: "time a flow may last", example: "30s", aboveZero: true }).optional(),
    action: choice(words(BUDGET_ACTIONS), { help: "what happens past the budget", example: "drop" }).prefault("drop"),
    budget_timeout: duration({
      help: "wait of the timeout action",
      example: "2s",
      aboveZero: true,
      rule: "only and always with it",
    }).optional(),
    error: errorKind("error of the connection_error action", "only with it; reset where it is left out").optional(),
  },
  {
    help: "limits of a flow, and what happens past them",
    example: "{max_tx: 1mb, action: drop}",
    rule: "at least one of max_tx, max_rx, max_ops, max_duration",
  },
).superRefine((budget, context) => {
  const refuse = (path: string, message: string): void => context.addIssue({ code: "custom", path: [path], message });
  const limits = [budget.max_tx, budget.max_rx, budget.max_ops, budget.max_duration];
  if (limits.every((limit) => limit === undefined)) {
    refuse("max_tx", "missing; a budget needs at least one of max_tx, max_rx, max_ops or max_duration, such as 1mb");
  }
  if (budget.action === "timeout" && budget.budget_timeout === undefined) {
    refuse("budget_timeout", "missing; the action timeout needs it, such as 2s");
  }
  if (budget.action !== "timeout" && budget.budget_timeout !== undefined) {
    refuse("budget_timeout", "only the action timeout takes this; set action to timeout or leave it out");
  }
  if (budget.action !== "connection_error" && budget.error !== undefined) {
    refuse("error", "only the action connection_error takes this; set action to connection_error or leave it out");
  }
});

/** The fields of a policy, every one optional. */
export const policyFields = block(
  {
    ...directional(""),
    jitter_distribution: choice(words(JITTER_DISTRIBUTIONS), {
      help: "shape of the jitter",
      example: "normal",
    }).prefault("uniform"),
    rate_scope: choice(words(RATE_SCOPES), { help: "who shares the bandwidth", example: "flow" }).prefault("link"),
    rate_burst: size({
      help: "bytes an idle line takes at once",
      example: "16kb",
      aboveZero: true,
      rule: "by default what 10 ms carry",
    }).optional(),
    loss_mode: choice(words(LOSS_MODES), { help: "what loss means on streams", example: "drop" }).prefault(
      "retransmit",
    ),
    correlated_loss: correlatedLoss.optional(),
    uplink: direction("what the program sends", ", outgoing only"),
    downlink: direction("what the program receives", ", incoming only"),
    timeout: timeout.optional(),
    connection_error: connectionError.optional(),
    half_open: halfOpen.optional(),
    session_budget: sessionBudget.optional(),
    dns: dns.optional(),
    payload_mutation: payloadMutation.optional(),
    packet_duplicate: packetDuplicate.optional(),
    packet_reorder: packetReorder.optional(),
    targets: targets.optional(),
    schedule: schedule.optional(),
    decisions: decisions.optional(),
    seed: seed({ help: "repeats the random choices of another run", example: "0x7f3a" }).optional(),
  },
  { help: "a policy: the faults asked for, which flows they are for, and when", example: "{latency: 50ms}" },
);

/** A policy as a person writes it. */
export type PolicyInput = z.input<typeof policyFields>;
/** A policy in integers: nanoseconds, bytes, bits a second, parts per million. */
export type ParsedPolicy = z.output<typeof policyFields>;

/** A policy with the rules that hold between its fields. */
export const policySchema = policyFields.superRefine((policy, context) => {
  const bits = faultMask(policy);
  const unasked = policy.decisions?.find(({ fault }) => (bits & (1 << FAULTS[fault])) === 0);
  if (unasked !== undefined) {
    const message = `the policy does not ask for ${unasked.fault}, which one of them decides; add the field that does`;
    context.addIssue({ code: "custom", path: ["decisions"], message });
  }
  // A rule that no operation of an asked fault can match would ask for a fault that never comes.
  if (policy.targets === undefined) return;
  const asked = faultsOf(policy);
  const refuse = (message: string): void => context.addIssue({ code: "custom", path: ["targets"], message });
  if (asked.some((path) => path.startsWith("dns.")) && !policy.targets.some((rule) => rule.hostnameOnly)) {
    refuse("dns faults need at least one rule with a host name and no port or protocol, such as hostname=api.internal");
  }
  if (asked.some((path) => !path.startsWith("dns.")) && !policy.targets.some((rule) => rule.observable)) {
    refuse("at least one rule must name a host, cidr, hostname, sni or unix:// path, such as tcp://10.0.0.0/8");
  }
});

/** A policy that passed every check. */
export interface Policy {
  /** As written, for evidence. */
  readonly written: PolicyInput;
  /** As parsed, for compiling. */
  readonly fields: ParsedPolicy;
}

/** Checks a policy: the policy, or everything that is wrong with it. */
export function readPolicy(written: unknown): { ok: Policy } | { problems: PolicyProblem[] } {
  const result = policySchema.safeParse(written);
  if (!result.success) return { problems: problemsOf(result.error, written) };
  return { ok: { written: written as PolicyInput, fields: result.data } };
}

/** Checks a policy. Throws a PolicyError for the first thing that is wrong. */
export function parsePolicy(written: unknown): Policy {
  const result = readPolicy(written);
  if ("problems" in result) throw firstError(result.problems);
  return result.ok;
}

/** A policy's name: not empty, and fit to end with NUL in the contract. */
export function checkPolicyName(name: string): void {
  if (name.trim() === "" || name.includes("\0")) {
    throw new PolicyError("", "a policy's name is not empty and has no NUL, such as slow_link", name);
  }
}
