/**
 * A text in JSON or YAML, read so that every value has its place: what it says, and the line and column of each part.
 * Knows nothing of policies. YAML here is 1.2 with anchors and merge keys; tags of one's own are refused, and aliases
 * are bounded, so that a small file cannot become a large one.
 */

import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  visit,
  type YAMLMap,
} from "yaml";
import { clip, quote } from "./errors.js";
import { jsonEnd } from "./json-end.js";

/** A place in a text, both counted from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** What is wrong with the text itself. */
export interface SourceProblem {
  readonly place: Place;
  readonly problem: string;
}

/** A text that was read. */
export interface Source {
  readonly value: unknown;
  /** Where a part stands: its value or, where there is none, the last key above it; with `key`, that key within it. */
  placeOf(parts: readonly PropertyKey[], key?: string): Place;
}

/** What a text is written in. */
export type Format = "json" | "yaml";

interface Mistake {
  readonly offset: number;
  readonly problem: string;
}

const MAX_ALIASES = 100;

/** Reads a text. JSON is held to JSON: no comments, no trailing commas, no key twice. */
export function readSource(text: string, format: Format): { ok: Source } | { problems: SourceProblem[] } {
  const lines = new LineCounter();
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) }; // an empty text has no line yet
  };
  const refuse = (mistakes: readonly Mistake[]) => ({
    problems: mistakes.map(({ offset, problem }) => ({ place: placeAt(offset), problem })),
  });
  try {
    const document = parseDocument(text, {
      schema: "core",
      merge: format === "yaml",
      uniqueKeys: false, // checked below: the parser compares every key with every other
      prettyErrors: false,
      logLevel: "error",
      lineCounter: lines,
    });
    const syntax = format === "json" ? jsonMistakes(text) : yamlMistakes(document);
    const mistakes = syntax.length > 0 ? syntax : nodeMistakes(document);
    if (mistakes.length > 0) return refuse(mistakes);
    const value: unknown = format === "json" ? JSON.parse(text) : document.toJS({ maxAliasCount: MAX_ALIASES });
    return { ok: { value, placeOf: (parts, key) => placeAt(offsetOf(document, parts, key)) } };
  } catch (error) {
    if (error instanceof RangeError) return refuse([{ offset: 0, problem: "nested too deeply to be read" }]);
    // Aliases are counted by the parser, which has no other error at this point.
    if (error instanceof ReferenceError) {
      return refuse([{ offset: 0, problem: "has aliases that stand for too much; write out what they stand for" }]);
    }
    throw error;
  }
}

function jsonMistakes(text: string): Mistake[] {
  try {
    JSON.parse(text);
    return [];
  } catch {
    const { offset, wanted } = jsonEnd(text);
    const found = offset < text.length ? `, not ${quote(text.slice(offset, offset + 1))}` : "";
    return [{ offset, problem: `not JSON: ${wanted} is wanted here${found}` }];
  }
}

function yamlMistakes({ errors, warnings }: Document): Mistake[] {
  // The one warning there is says that a tag is unknown.
  return [...errors, ...warnings].map(({ pos, message }) => ({
    offset: pos[0],
    // The parser quotes the text, line ends and all.
    problem: `not YAML that is read here: ${message.replace(/[\s\p{Cc}]+/gu, " ")}`,
  }));
}

/** Keys that are no text or stand twice in one map, and aliases of nothing. */
function nodeMistakes(document: Document): Mistake[] {
  const mistakes: Mistake[] = [];
  const anchors = new Set<string>();
  const see = (node: Node & { anchor?: string }): void => {
    if (node.anchor !== undefined) anchors.add(node.anchor);
  };
  visit(document, {
    Scalar: (_, node) => see(node),
    Seq: (_, node) => see(node),
    Map: (_, node) => {
      see(node);
      mistakes.push(...keyMistakes(node));
    },
    Alias: (_, node) => {
      if (anchors.has(node.source)) return;
      const name = clip(node.source).replace(/\p{Cc}/gu, "?");
      const problem = `the alias *${name} has no anchor above it; write &${name} there`;
      mistakes.push({ offset: startOf(node), problem });
    },
  });
  return mistakes;
}

function keyMistakes(map: YAMLMap<unknown, unknown>): Mistake[] {
  const seen = new Set<string>();
  return map.items.flatMap(({ key }): Mistake[] => {
    const name = keyName(key);
    if (name === undefined) return [{ offset: startOf(key, startOf(map)), problem: "a key is text, such as latency" }];
    const problem = `${quote(name)} is given twice; give it once`;
    const twice = seen.has(name);
    seen.add(name);
    return twice ? [{ offset: startOf(key), problem }] : [];
  });
}

/** The text of a key; nothing for what cannot be one. */
function keyName(key: unknown): string | undefined {
  if (!isScalar(key)) return undefined;
  const { value } = key;
  if (typeof value === "symbol") return value.description; // the merge key
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function startOf(node: unknown, otherwise = 0): number {
  return isNode(node) ? (node.range?.[0] ?? otherwise) : otherwise;
}

function offsetOf(document: Document, parts: readonly PropertyKey[], key: string | undefined): number {
  let at: unknown = document.contents;
  let offset = startOf(at);
  for (const part of key === undefined ? parts : [...parts, key]) {
    at = resolve(document, at);
    if (isMap(at)) {
      const pair = findPair(document, at, String(part));
      if (pair === undefined) return offset;
      offset = startOf(pair.key, offset);
      at = pair.value;
    } else if (isSeq(at) && typeof part === "number") {
      at = at.items[part];
      offset = startOf(at, offset);
    } else return offset;
  }
  return key === undefined ? startOf(at, offset) : offset;
}

/** The pairs of a map by key, made once a map: a file may have very many keys, and something wrong with each. */
const indices = new WeakMap<YAMLMap<unknown, unknown>, ReadonlyMap<string | undefined, Pair>>();

function indexOf(map: YAMLMap<unknown, unknown>): ReadonlyMap<string | undefined, Pair> {
  const index = indices.get(map) ?? new Map(map.items.map((pair) => [keyName(pair.key), pair]));
  indices.set(map, index);
  return index;
}

/** A key of a map or of the maps that are merged into it. */
function findPair(document: Document, map: YAMLMap<unknown, unknown>, name: string): Pair | undefined {
  const own = indexOf(map).get(name);
  if (own !== undefined) return own;
  for (const { key, value } of map.items) {
    if (!isScalar(key) || typeof key.value !== "symbol") continue;
    const merged = resolve(document, value);
    for (const each of isSeq(merged) ? merged.items : [merged]) {
      const source = resolve(document, each);
      const pair = isMap(source) ? findPair(document, source, name) : undefined;
      if (pair !== undefined) return pair;
    }
  }
  return undefined;
}

function resolve(document: Document, node: unknown): unknown {
  return isAlias(node) ? node.resolve(document) : node;
}
