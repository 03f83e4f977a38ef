/**
 * The command line's view of a policy: a flag for every field of the schema, made from it by one rule. A field's
 * flag is its path with dots, underscores as hyphens: `uplink.packet_loss` is `--uplink.packet-loss`. Objects with a
 * short form have a flag of their own besides (`--connection-error refused:10%`), rules are `--target`, repeatable,
 * and a schedule is one text.
 */

import { z } from "zod";
import { clip, nearest, PolicyError, quote } from "./errors.js";
import { SHORT_FORMS } from "./faults.js";
import { type FieldHelp, fieldAbout, unwrap } from "./fields.js";
import { scheduleFromFlag } from "./schedule.js";
import { type ParsedPolicy, type Policy, parsePolicy, policyFields } from "./schema.js";
import { targetFromFlag } from "./targets.js";
import { listOf } from "./units.js";

/** One flag, as help and completion show it. */
export interface PolicyFlag extends FieldHelp {
  /** As typed, such as `--uplink.rate`. */
  readonly name: string;
  /** The field's path, such as `uplink.rate`. */
  readonly path: string;
  /** The heading it stands under. */
  readonly group: string;
  /** It may be given several times. */
  readonly repeatable: boolean;
  /** It may be given without a value, which means true. */
  readonly boolean: boolean;
}

/** Values by flag, with or without the two hyphens; `true` for a boolean flag given without a value. */
export type FlagValues = Readonly<Record<string, string | readonly string[] | true>>;

const DELAY = "Delay and bandwidth";
const LOSS = "Loss, order and copies";
const CONNECTIONS = "Connections";
const PAYLOAD = "Payload";
const SCOPE = "Which flows, and when";

/** The heading of each field. A field without one does not compile. */
const GROUPS: Readonly<Record<keyof ParsedPolicy, string>> = {
  latency: DELAY,
  jitter: DELAY,
  jitter_distribution: DELAY,
  rate: DELAY,
  rate_scope: DELAY,
  rate_burst: DELAY,
  packet_loss: LOSS,
  burst_loss: LOSS,
  correlated_loss: LOSS,
  loss_mode: LOSS,
  packet_duplicate: LOSS,
  packet_reorder: LOSS,
  uplink: "One direction only",
  downlink: "One direction only",
  timeout: CONNECTIONS,
  connection_error: CONNECTIONS,
  half_open: CONNECTIONS,
  session_budget: CONNECTIONS,
  dns: "Names",
  payload_mutation: PAYLOAD,
  targets: SCOPE,
  schedule: SCOPE,
  decisions: SCOPE,
  seed: "Repeating a run",
};

/** The flags that stand for a whole object or list: how their value is written, and their help where it differs. */
const WHOLE: Readonly<Record<string, Pick<FieldHelp, "example" | "valueName"> & { readonly help?: string }>> = {
  connection_error: { example: "refused:10%", valueName: "kind[:prob]" },
  half_open: { example: "32kb:reset", valueName: "after[:error]" },
  packet_duplicate: { example: "10%:2", valueName: "prob[:max_extra]" },
  packet_reorder: { example: "10%:3:50ms", valueName: "prob[:window[:max_delay]]" },
  targets: { example: "tcp://10.0.0.0/8", valueName: "rule" },
  schedule: {
    help: "ramp:TIME, spike:EVERY/DURATION or flapping:ON/OFF",
    example: "spike:30s/5s",
    valueName: "schedule",
  },
};

/** The flag of a field. */
export function flagName(path: string): string {
  return path === "targets" ? "--target" : `--${path.replaceAll("_", "-")}`;
}

function collect(shape: Readonly<Record<string, z.core.$ZodType>>, parent: string, group?: string): PolicyFlag[] {
  return Object.entries(shape).flatMap(([key, optional]) => {
    const path = parent + key;
    const schema = unwrap(optional);
    if (path === "decisions") return []; // a list for files
    const heading = group ?? GROUPS[key as keyof ParsedPolicy];
    const about = helpOf(path, schema);
    const own = about && { ...about, name: flagName(path), path, group: heading, repeatable: path === "targets" };
    return [
      ...(own ? [{ ...own, boolean: own.valueName === "true|false" }] : []),
      ...(schema instanceof z.ZodObject ? collect(schema.shape, `${path}.`, heading) : []),
    ];
  });
}

/** What a flag's help says; nothing for an object whose fields alone have flags. */
function helpOf(path: string, schema: z.core.$ZodType): FieldHelp | undefined {
  const about = fieldAbout.get(schema);
  const whole = WHOLE[path];
  if (about === undefined || (schema instanceof z.ZodObject && whole === undefined)) return undefined;
  const { help, example, valueName, words = [] } = about;
  // A long list of words stands in the help, a short one in the value's place.
  if (words.length > 3) return { help: `${help}: ${listOf(words)}`, example, valueName };
  return { help, example, valueName: words.length > 0 ? words.join("|") : valueName, ...whole };
}

/** Every flag of a policy, in the schema's order. */
export const policyFlags: readonly PolicyFlag[] = collect(policyFields.shape, "");
const flagsByName = new Map(policyFlags.map((flag) => [flag.name, flag]));

/** A flag as typed, for the sentence that refuses it. */
function typed(flag: string, value: string): string {
  // Text that a terminal would act on, or that could not be seen, is quoted.
  const plain = /^[^\p{C}\s]([^\p{C}]*[^\p{C}\s])?$/u.test(value);
  return `${flag} ${plain ? clip(value) : quote(value)}`;
}

/** A PolicyError in terms of the flag that was typed. */
class FlagError extends PolicyError {
  constructor(where: string, { path, problem, value }: PolicyError) {
    super(path, problem, value);
    this.message = `${where}: ${problem}`;
  }
}

/** What the flags say, and which flag said what. */
class Draft {
  readonly written: Record<string, unknown> = {};
  /** What was typed, by the path it set. */
  readonly #sources = new Map<string, string>();

  set(path: string, value: unknown, source: string): void {
    const earlier = this.#sources.get(path);
    if (earlier !== undefined) {
      throw new FlagError(source, new PolicyError(path, `${earlier} already says this; give one of them`));
    }
    this.#sources.set(path, source);
    const keys = path.split(".");
    const last = keys.pop() ?? path;
    let at = this.written;
    for (const key of keys) {
      at[key] ??= {};
      at = at[key] as Record<string, unknown>;
    }
    at[last] = value;
  }

  add(value: unknown, source: string): void {
    this.written.targets ??= [];
    const targets = this.written.targets as unknown[];
    this.#sources.set(`targets[${targets.length}]`, source);
    targets.push(value);
  }

  /** Says an error of the schema in terms of what was typed: there, above, below or beside the field it names. */
  explain(error: PolicyError): PolicyError {
    const { path, problem } = error;
    for (let above = path; above !== ""; above = above.replace(/[.[]?[^.[]*$/, "")) {
      const source = this.#sources.get(above);
      if (source !== undefined) return new FlagError(source, error);
    }
    const near = (start: string): string | undefined =>
      [...this.#sources].find(([set]) => start !== "" && set.startsWith(start))?.[1];
    const below = near(path);
    if (below !== undefined) return new FlagError(below, error);
    const beside = near(path.split(".")[0] ?? "");
    if (beside === undefined) return error;
    return new FlagError(beside, new PolicyError(path, `${flagName(path)} is ${problem}`, error.value));
  }
}

function apply(draft: Draft, flag: PolicyFlag, value: string): void {
  const source = typed(flag.name, value);
  try {
    const short = SHORT_FORMS[flag.path];
    if (flag.path === "targets") draft.add(targetFromFlag(value), source);
    else if (flag.path === "schedule") draft.set("schedule", scheduleFromFlag(value), source);
    else if (short === undefined) draft.set(flag.path, value, source);
    else {
      const parts = value.split(":");
      if (parts.length > short.length)
        throw new PolicyError(flag.path, `must be ${flag.valueName}, such as ${flag.example}`);
      parts.forEach((part, at) => {
        draft.set(`${flag.path}.${short[at]}`, part, source);
      });
    }
  } catch (error) {
    throw error instanceof PolicyError && !(error instanceof FlagError) ? new FlagError(source, error) : error;
  }
}

/**
 * Makes a policy of the command line's flags. No flags make a policy without faults. The error's sentence names the
 * flag as typed, the value and a right one.
 */
export function policyFromFlags(values: FlagValues): { ok: Policy } | { error: PolicyError } {
  const draft = new Draft();
  try {
    for (const [key, value] of Object.entries(values)) {
      const name = key.startsWith("--") ? key : `--${key}`;
      const flag = flagsByName.get(name);
      if (flag === undefined) {
        const close = nearest(name, [...flagsByName.keys()]);
        throw new FlagError(clip(name), new PolicyError("", `no such flag; the nearest is ${close}`));
      }
      const given = typeof value === "object" ? value : [value === true ? "true" : value];
      if (given.length > 1 && !flag.repeatable) {
        throw new FlagError(name, new PolicyError(flag.path, `given ${given.length} times; give it once`));
      }
      for (const one of given) apply(draft, flag, one);
    }
  } catch (error) {
    if (error instanceof PolicyError) return { error };
    throw error;
  }
  try {
    return { ok: parsePolicy(draft.written) };
  } catch (error) {
    if (error instanceof PolicyError) return { error: draft.explain(error) };
    throw error;
  }
}
