/**
 * Where a text stops being JSON, and what it would have had to say there. `JSON.parse` is the judge of whether it is
 * JSON at all; its own messages name no place that could be relied on.
 */

/** What may come next. */
type Expected = "value" | "value or ]" | "key or }" | "key" | ":" | ", or }" | ", or ]" | "end";

const WORDS: Readonly<Record<Expected, string>> = {
  value: "a value",
  "value or ]": "a value or ]",
  "key or }": "a key in double quotes or }",
  key: "a key in double quotes",
  ":": "a colon",
  ", or }": "a comma or }",
  ", or ]": "a comma or ]",
  end: "the end of the file",
};

const SPACE = /[ \t\n\r]*/y;
const STRING = String.raw`"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"`;
const NUMBER = String.raw`-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?`;
const TOKEN = new RegExp(`[{}[\\],:]|${STRING}|${NUMBER}|true|false|null`, "y");

/** For a text that is not JSON: the offset where it goes wrong, and what was wanted there. */
export function jsonEnd(text: string): { offset: number; wanted: string } {
  /** The ends of what is open, innermost last. */
  const open: ("}" | "]")[] = [];
  let expected: Expected | undefined = "value";
  let offset = skipSpace(text, 0);
  for (;;) {
    const token = match(TOKEN, text, offset);
    const next: Expected | undefined = token === undefined ? undefined : follow(expected, token, open);
    if (token === undefined || next === undefined) return { offset, wanted: WORDS[expected] };
    expected = next;
    offset = skipSpace(text, offset + token.length);
  }
}

/** What may come after a token; nothing where the token itself may not come. */
function follow(expected: Expected, token: string, open: ("}" | "]")[]): Expected | undefined {
  const takesValue = expected.startsWith("value");
  switch (token) {
    case "{":
      if (takesValue) open.push("}");
      return takesValue ? "key or }" : undefined;
    case "[":
      if (takesValue) open.push("]");
      return takesValue ? "value or ]" : undefined;
    case "}":
    case "]":
      if (!expected.endsWith(`or ${token}`)) return undefined;
      open.pop();
      return afterValue(open);
    case ",":
      if (expected === ", or }") return "key";
      return expected === ", or ]" ? "value" : undefined;
    case ":":
      return expected === ":" ? "value" : undefined;
    default:
      if (takesValue) return afterValue(open);
      return expected.startsWith("key") && token.startsWith('"') ? ":" : undefined;
  }
}

function afterValue(open: readonly ("}" | "]")[]): Expected {
  const end = open.at(-1);
  return end === undefined ? "end" : `, or ${end}`;
}

function match(pattern: RegExp, text: string, offset: number): string | undefined {
  pattern.lastIndex = offset;
  return pattern.exec(text)?.[0];
}

function skipSpace(text: string, offset: number): number {
  return offset + (match(SPACE, text, offset)?.length ?? 0);
}
