/**
 * Functions under a policy: what a wrapped function opens and looks up while it runs, and while the promise it returns
 * is pending, is faulted. Works as a standard decorator of methods.
 */

import { type PolicyFields, parseFields } from "../policy/index.js";
import { native } from "../segment/index.js";
import { currentSource, indexSource, inlineSource, namedSource, runInside, type Source } from "./context.js";
import { requireSegment } from "./inside.js";
import { policyIndex } from "./registry.js";

/** Wraps a function, or decorates a method: `this`, arguments, result, name and length stay as they are. */
export type Faulting = <This, Args extends unknown[], Result>(
  target: (this: This, ...args: Args) => Result,
  context?: ClassMethodDecoratorContext,
) => (this: This, ...args: Args) => Result;

/** Finds what a call is to run under; undefined: it runs as it is. */
type Chooser = () => Source | undefined;

/**
 * Puts a policy on a function.
 *
 * @param policy - a name, looked up at each call (a function whose policy is missing then runs as it is); fields; or
 * `auto`, the policy that the caller's context or else its thread has at the call
 * @throws PolicyError for a bad field, at once; calls throw NotInterceptedError outside a run
 */
export function fault(policy: string | PolicyFields = "auto"): Faulting {
  const choose = chooser(policy);
  return <This, Args extends unknown[], Result>(target: (this: This, ...args: Args) => Result) => {
    const wrapped = function (this: This, ...args: Args): Result {
      const source = choose();
      if (source === undefined) return target.apply(this, args);
      return runInside(source, "fault", () => target.apply(this, args));
    };
    Object.defineProperties(wrapped, {
      name: { value: target.name, configurable: true },
      length: { value: target.length, configurable: true },
    });
    return wrapped;
  };
}

function chooser(policy: string | PolicyFields): Chooser {
  if (policy === "auto") return automatic;
  if (typeof policy === "string") {
    const source = namedSource(policy);
    return () => {
      const segment = requireSegment("fault");
      return segment !== undefined && policyIndex(segment, policy) !== undefined ? source : undefined;
    };
  }
  const parsed = parseFields(policy);
  const source = inlineSource(policy, () => parsed);
  return () => source;
}

function automatic(): Source | undefined {
  const segment = requireSegment("fault");
  if (segment === undefined) return undefined;
  const inside = currentSource();
  if (inside !== undefined) return inside;
  const bound = segment.boundPolicy(native.threadId());
  return bound === undefined || bound < 0 ? undefined : indexSource(bound);
}

type Value<Field extends keyof PolicyFields> = NonNullable<PolicyFields[Field]>;

/** `fault({ latency })`: one-way delay, such as `50ms`. */
export const latency = (value: Value<"latency">): Faulting => fault({ latency: value });
/** `fault({ jitter })`: variation around the latency, such as `10ms`. */
export const jitter = (value: Value<"jitter">): Faulting => fault({ jitter: value });
/** `fault({ packetLoss })`: random loss, such as `1%`. */
export const packetLoss = (value: Value<"packetLoss">): Faulting => fault({ packetLoss: value });
/** `fault({ burstLoss })`: losses in a row once one happens. */
export const burstLoss = (value: Value<"burstLoss">): Faulting => fault({ burstLoss: value });
/** `fault({ correlatedLoss })`: Gilbert–Elliott loss. */
export const correlatedLoss = (value: Value<"correlatedLoss">): Faulting => fault({ correlatedLoss: value });
/** `fault({ rate })`: bandwidth, such as `10mbps`. */
export const rate = (value: Value<"rate">): Faulting => fault({ rate: value });
/** `fault({ uplink })`: what is sent only. */
export const uplink = (value: Value<"uplink">): Faulting => fault({ uplink: value });
/** `fault({ downlink })`: what is received only. */
export const downlink = (value: Value<"downlink">): Faulting => fault({ downlink: value });
/** `fault({ timeout })`: limits of connects and receives. */
export const timeout = (value: Value<"timeout">): Faulting => fault({ timeout: value });
/** `fault({ connectionError })`: refused, reset or unreachable. */
export const connectionError = (value: Value<"connectionError">): Faulting => fault({ connectionError: value });
/** `fault({ halfOpen })`: connections that break after so many bytes. */
export const halfOpen = (value: Value<"halfOpen">): Faulting => fault({ halfOpen: value });
/** `fault({ packetDuplicate })`: extra copies. */
export const packetDuplicate = (value: Value<"packetDuplicate">): Faulting => fault({ packetDuplicate: value });
/** `fault({ packetReorder })`: packets held back behind later ones. */
export const packetReorder = (value: Value<"packetReorder">): Faulting => fault({ packetReorder: value });
/** `fault({ dns })`: slow and failing lookups. */
export const dns = (value: Value<"dns">): Faulting => fault({ dns: value });
/** `fault({ sessionBudget })`: limits of a connection's bytes, operations or time. */
export const sessionBudget = (value: Value<"sessionBudget">): Faulting => fault({ sessionBudget: value });
/** `fault({ payloadMutation })`: changed bytes. */
export const payloadMutation = (value: Value<"payloadMutation">): Faulting => fault({ payloadMutation: value });
