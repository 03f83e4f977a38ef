/**
 * Answers of hooks, rebuilt: what a script returned is copied as plain data, written as JSON of bounded size, read again
 * and checked as a policy. The object itself is used no further, whatever it does when it is looked at.
 */

import { types } from "node:util";
import { nearest, PolicyError, type PolicyInput, parseFields } from "../../policy/index.js";
import type { PolicyFields, ValidFor } from "../index.js";
import type { Answer, HookName } from "../questions.js";

/** JSON of an answer has at most so many bytes; onTick's may hold several policies. */
const MAX_ANSWER_BYTES = 16_384;
const MAX_DEPTH = 8;
const MAX_VALUES = 2000;
const CACHED_ANSWERS = 1024;

/** What a hook answered is none. The message goes behind the hook's name and says what would be right. */
export class AnswerError extends Error {
  override readonly name = "AnswerError";
}

// A script shares this realm and may replace what is in it: what checks its answers is taken before it is loaded.
const { parse, stringify } = JSON;
const { isProxy, isPromise } = types;
const { getPrototypeOf, getOwnPropertyDescriptors, entries, freeze, hasOwn } = Object;
const { isArray } = Array;
const ObjectPrototype = Object.prototype;
const ArrayPrototype = Array.prototype;

const cache = new Map<string, Answer>();

/** The answer that a hook's value stands for. Throws an {@link AnswerError}. */
export function answerOf(hook: HookName, value: unknown): Answer {
  if (value === undefined || value === null) return {};
  if (isPromise(value)) throw new AnswerError("answered a promise; hooks answer at once, without async");
  const text = stringify(plain(value, { left: MAX_VALUES }, MAX_DEPTH, ""));
  if (Buffer.byteLength(text) > MAX_ANSWER_BYTES) {
    throw new AnswerError(
      `answered ${text.length} characters of JSON; an answer has at most ${MAX_ANSWER_BYTES} bytes`,
    );
  }
  const key = `${hook} ${text}`;
  const known = cache.get(key);
  if (known !== undefined) return known;
  const answer = freeze(rebuilt(hook, parse(text)));
  if (cache.size >= CACHED_ANSWERS) cache.clear();
  cache.set(key, answer);
  return answer;
}

/** A copy with nothing in it but data. */
function plain(value: unknown, budget: { left: number }, depth: number, path: string): unknown {
  const refuse = (what: string): never => {
    throw new AnswerError(
      `answered ${what}${path === "" ? "" : ` in ${path}`}; an answer is plain data, such as { latency: "50ms" }`,
    );
  };
  if (--budget.left < 0) return refuse(`more than ${MAX_VALUES} values`);
  if (typeof value === "string") return value.length > MAX_ANSWER_BYTES ? refuse("a giant text") : value;
  if (typeof value === "number" || typeof value === "boolean" || value === undefined || value === null) return value;
  if (typeof value !== "object") return refuse(`a ${typeof value}`);
  if (isProxy(value)) return refuse("a proxy");
  if (depth === 0) return refuse("objects in objects without end");
  const list = isArray(value);
  const prototype: unknown = getPrototypeOf(value);
  if (prototype !== null && prototype !== (list ? ArrayPrototype : ObjectPrototype)) {
    return refuse("an object with a prototype of its own");
  }
  if (list && value.length > MAX_VALUES) return refuse(`more than ${MAX_VALUES} values`);
  const copy: Record<string, unknown> = Object.create(null);
  const items: unknown[] = [];
  for (const [key, descriptor] of entries(getOwnPropertyDescriptors(value))) {
    if (list && key === "length") continue;
    const at = list ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`;
    if (!("value" in descriptor))
      throw new AnswerError(`answered a getter, ${at}; an answer is plain data, such as { latency: "50ms" }`);
    if (key === "__proto__") throw new AnswerError(`answered a field __proto__; an answer is a policy's fields`);
    const each = plain(descriptor.value, budget, depth - 1, at);
    if (list) items.push(each);
    else copy[key] = each;
  }
  return list ? items : copy;
}

const NOT_FAULTS = ["targets", "decisions", "schedule", "seed"] as const;

function rebuilt(hook: HookName, read: unknown): Answer {
  if (!isRecord(read))
    throw new AnswerError(`answered ${describe(read)}; an answer is fields, such as { latency: "50ms" }`);
  if (hook === "onTick") return tickAnswer(read);
  if (hook === "onOp" && hasOwn(read, "validFor")) {
    only(read, ["fields", "validFor"]);
    return { fields: faults(read.fields), validFor: validFor(read.validFor) };
  }
  return { fields: faults(read) };
}

function tickAnswer(read: Readonly<Record<string, unknown>>): Answer {
  only(read, ["policies", "own"]);
  if (read.policies !== undefined && !isRecord(read.policies)) {
    throw new AnswerError(
      'answered policies that are not an object, such as { policies: { slow: { latency: "50ms" } } }',
    );
  }
  const policies = entries(read.policies ?? {}).map(([name, fields]): [string, PolicyInput] => [
    name,
    fieldsOf(fields),
  ]);
  return {
    ...(read.own !== undefined && { fields: faults(read.own) }),
    ...(policies.length > 0 && { policies: Object.fromEntries(policies) }),
  };
}

function faults(read: unknown): PolicyInput {
  const unfit = NOT_FAULTS.find((name) => isRecord(read) && hasOwn(read, name));
  if (unfit !== undefined) throw new AnswerError(`answered ${unfit}, which is for policies of files; leave it out`);
  return fieldsOf(read);
}

function fieldsOf(read: unknown): PolicyInput {
  if (!isRecord(read))
    throw new AnswerError(`answered ${describe(read)}; fields are an object, such as { latency: "50ms" }`);
  try {
    return parseFields(read as PolicyFields).written;
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    throw new AnswerError(`answered ${error.path === "" ? error.problem : error.message}`);
  }
}

function validFor(read: unknown): ValidFor {
  if (read === "op" || read === "flow") return read;
  if (isRecord(read)) {
    const [[unit, amount] = ["", undefined], ...more] = entries(read);
    const fits = typeof amount === "number" && amount > 0 && Number.isSafeInteger(amount);
    if (more.length === 0 && fits && unit === "units") return { units: amount };
    if (more.length === 0 && fits && unit === "ms") return { ms: amount };
  }
  throw new AnswerError('answered a validFor that is none; it is "op", "flow", { units: 10 } or { ms: 500 }');
}

function only(read: Readonly<Record<string, unknown>>, known: readonly string[]): void {
  const unknown = Object.keys(read).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  throw new AnswerError(`answered unknown field ${JSON.stringify(unknown)}; the nearest is ${nearest(unknown, known)}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !isArray(value);
}

function describe(value: unknown): string {
  if (isArray(value)) return "a list";
  return value === undefined ? "nothing" : `a ${typeof value}`;
}
