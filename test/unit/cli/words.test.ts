// Commands given as one text: taken apart where a shell would do just that, else given to one.
import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { commandOf, textOf } from "../../../src/cli/words.js";

describe("commandOf", () => {
  it.each<[text: string, words: string[]]>([
    ["npm test", ["npm", "test"]],
    ["  npm   test\t--  --grep=slow ", ["npm", "test", "--", "--grep=slow"]],
    [`pytest -k 'not slow' "tests/a b.py"`, ["pytest", "-k", "not slow", "tests/a b.py"]],
    [`a'b'"c"d ''`, ["abcd", ""]],
    [`echo '$HOME "*"' "it's"`, ["echo", '$HOME "*"', "it's"]],
    ["./prüfe a:b@c,d+e%f", ["./prüfe", "a:b@c,d+e%f"]],
  ])("takes %j apart", (text, words) => {
    expect(commandOf(text)).toEqual(words);
  });

  it.each([
    "cd app && npm test",
    "npm test; true",
    "npm test | grep ok",
    "npm test > log",
    "CI=1 npm test",
    "echo $HOME",
    'echo "$HOME"',
    "echo `date`",
    'echo "a\\"b"',
    "ls *.js",
    "ls ~",
    "! npm test",
    "echo a#b # c",
    "echo 'open",
    "a\nb",
    "'' a",
    "{ npm test",
  ])("leaves %j to a shell", (text) => {
    expect(commandOf(text)).toEqual(["/bin/sh", "-c", text]);
  });

  it("takes apart only what a shell takes apart in the same way", () => {
    const piece = fc.constantFrom("a", "B", "-", "=", " ", "  ", "'", '"', "\\", "$", "*", "#", "~", "é", ".", "\t");
    const text = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(""));
    fc.assert(
      fc.property(text, (tail) => {
        const words = commandOf(`x${tail}`);
        if (words[0] === "/bin/sh") return;
        const script = `set -- x${tail}; for each; do printf '%s\\0' "$each"; done`;
        const said = execFileSync("/bin/sh", ["-f", "-c", script], { encoding: "utf8" });
        expect(words).toEqual(said.split("\0").slice(0, -1));
      }),
      { numRuns: 200 },
    );
  });
});

describe("textOf", () => {
  it("is a line that gives the words again", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.string({ maxLength: 6 }).map((word) => word.replaceAll("\0", "")),
          { minLength: 1, maxLength: 4 },
        ),
        (words) => {
          const script = `set -- ${textOf(["x", ...words])}; for each; do printf '%s\\0' "$each"; done`;
          const said = execFileSync("/bin/sh", ["-c", script], { encoding: "utf8" });
          expect(said.split("\0").slice(0, -1)).toEqual(["x", ...words]);
        },
      ),
      { numRuns: 50 },
    );
  });
});
