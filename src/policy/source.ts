/**
 * A text in JSON or YAML, read so that every value has its place: what it says, and the line and column of each part.
 * Knows nothing of policies. YAML here is 1.2 with anchors and merge keys; tags of one's own are refused, and aliases
 * are bounded, so that a small file cannot become a large one.
 */

import {
  type Alias,
  Composer,
  type CST,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  type Pair,
  Parser,
  visit,
  type YAMLMap,
} from "yaml";
import { quote } from "./errors.js";
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

/** Uses of an anchor, those within what it stands for multiplied. */
const MAX_ALIASES = 10_000;
/** What is open at once; a level of nesting opens two at most. */
const MAX_OPEN = 200;

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
    const composer = new Composer({
      schema: "core",
      merge: format === "yaml",
      uniqueKeys: false, // checked below: the parser compares every key with every other
      logLevel: "error",
    });
    const [document, second] = composer.compose(tokensOf(text, lines), true, text.length);
    if (document === undefined) throw new Error("a text has a document, even if it is empty");
    const syntax = format === "json" ? jsonMistakes(text) : yamlMistakes(document, second);
    if (syntax.length > 0) return refuse(syntax);
    const { mistakes, aliased } = readNodes(document);
    if (mistakes.length > 0) return refuse(mistakes);
    const value: unknown = format === "json" ? JSON.parse(text) : document.toJS({ maxAliasCount: MAX_ALIASES });
    return { ok: { value, placeOf: (parts, key) => placeAt(offsetOf(document.contents, aliased, parts, key)) } };
  } catch (error) {
    if (error instanceof NestingError) return refuse([{ offset: error.offset, problem: error.message }]);
    // The parser counts aliases as it resolves them, and a long chain of them may end its stack before.
    if (error instanceof ReferenceError || error instanceof RangeError) {
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

class NestingError extends Error {
  constructor(readonly offset: number) {
    super("nested too deeply; a policy has three levels");
  }
}

/** The tokens of a text, up to where it is nested deeper than those who read them recursively could bear. */
function* tokensOf(text: string, lines: LineCounter): Generator<CST.Token> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    if (parser.stack.length > MAX_OPEN) throw new NestingError(parser.offset);
  }
  yield* parser.end();
}

function yamlMistakes({ errors, warnings }: Document, second: Document.Parsed | undefined): Mistake[] {
  if (second !== undefined) return [{ offset: second.range[0], problem: "a second document; a file has one" }];
  // A warning is of something not understood, such as a tag.
  return [...errors, ...warnings].map(({ pos, message }) => ({
    offset: pos[0],
    // The parser quotes the text, line ends and all.
    problem: `cannot be read as YAML: ${message.replace(/[\s\p{Cc}]+/gu, " ")}`,
  }));
}

/** What each alias stands for. */
type Aliased = ReadonlyMap<unknown, Node>;

/** What the aliases stand for, and what is wrong: aliases of nothing, keys that are no text or stand twice in a map. */
function readNodes(document: Document): { mistakes: Mistake[]; aliased: Aliased } {
  const mistakes: Mistake[] = [];
  const anchors = new Map<string, Node>();
  const aliased = new Map<unknown, Node>();
  visit(document, {
    Node: (_, node, ancestors) => {
      if (isAlias(node)) {
        const meant = anchors.get(node.source);
        if (meant === undefined) mistakes.push(aliasMistake(node, "has no anchor above it"));
        else if (ancestors.includes(meant)) mistakes.push(aliasMistake(node, "is a part of what it stands for"));
        else aliased.set(node, meant);
        return;
      }
      if (node.anchor !== undefined) anchors.set(node.anchor, node);
      if (isMap(node)) mistakes.push(...keyMistakes(node));
    },
  });
  return { mistakes, aliased };
}

function aliasMistake(alias: Alias, what: string): Mistake {
  const problem = `the alias ${quote(`*${alias.source}`)} ${what}; write out what it should stand for`;
  return { offset: startOf(alias), problem };
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

function offsetOf(root: unknown, aliased: Aliased, parts: readonly PropertyKey[], key: string | undefined): number {
  let at = root;
  let offset = startOf(at);
  for (const part of key === undefined ? parts : [...parts, key]) {
    at = aliased.get(at) ?? at;
    if (isMap(at)) {
      const pair = findPair(at, aliased, String(part));
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
function findPair(map: YAMLMap<unknown, unknown>, aliased: Aliased, name: string): Pair | undefined {
  const own = indexOf(map).get(name);
  if (own !== undefined) return own;
  for (const { key, value } of map.items) {
    if (!isScalar(key) || typeof key.value !== "symbol") continue;
    const merged = aliased.get(value) ?? value;
    for (const each of isSeq(merged) ? merged.items : [merged]) {
      const source = aliased.get(each) ?? each;
      const pair = isMap(source) ? findPair(source, aliased, name) : undefined;
      if (pair !== undefined) return pair;
    }
  }
  return undefined;
}
