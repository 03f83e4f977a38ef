// Policies in files: what is read, and for everything that is wrong a sentence with its place.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { PolicyError } from "../../../src/policy/errors.js";
import { loadPolicyFile, PolicyFileError, parsePolicies } from "../../../src/policy/files.js";
import { parsePolicy } from "../../../src/policy/schema.js";
import type { Format } from "../../../src/policy/source.js";
import { policyArbitrary } from "./support/policies.js";

const folder = mkdtempSync(join(tmpdir(), "mishap-policies-"));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** The sentences about a text, without the file's name. */
function problems(text: string, format: Format = "yaml"): string[] {
  try {
    parsePolicies(text, format, "f");
  } catch (error) {
    if (!(error instanceof PolicyFileError)) throw error;
    return error.sentences.map((sentence) => sentence.replace(/^f:/, ""));
  }
  return [];
}

// As in the documents of the project that these files come from.
const WRITTEN_FOR_FAULTCORE = `{
  "policy_name": {
    "latency": "7ms",
    "jitter": "3ms",
    "packet_loss": "0.2%",
    "burst_loss": "2",
    "rate": "1mbps",
    "timeout": {"connect": "9ms", "recv": "9ms"},
    "targets": [
      {"target": "tcp://10.0.0.0/8", "priority": 10},
      {"target": "tcp://127.0.0.1:9000", "priority": 100}
    ],
    "schedule": {"kind": "spike", "every": "30s", "duration": "5s"}
  }
}`;

describe("a file", () => {
  it("written for faultcore loads unchanged", () => {
    const policies = loadPolicyFile(write("faultcore.json", WRITTEN_FOR_FAULTCORE));
    expect(policies.size).toBe(1);
    const fields = policies.get("policy_name")?.fields;
    expect(fields).toMatchObject({ latency: 7_000_000, packet_loss: 2000, burst_loss: 2, rate: 1_000_000 });
    expect(fields?.targets?.map((target) => target.fields.priority)).toEqual([100, 10]);
  });

  it.each(["a.yaml", "a.yml", "A.YAML"])("%s is read as YAML, in its order", (name) => {
    const text =
      "$schema: ./policy.schema.json\nb: {latency: 50ms}\n# a comment\na:\n  burst_loss: 3\n  packet_loss: 1%\n";
    expect([...loadPolicyFile(write(name, text)).keys()]).toEqual(["b", "a"]);
  });

  it.each([
    ["nothing in it", "{}", 0],
    ["a byte order mark", '\ufeff{"a": {}}', 1],
    ["tabs", '{\n\t"a": {\n\t\t"latency": "1ms"\n\t}\n}\n', 1],
    ["Windows line ends", '{\r\n  "a": {}\r\n}\r\n', 1],
    ["one long line", JSON.stringify({ a: {}, b: { targets: ["tcp://10.0.0.0/8"] } }), 2],
    ["escapes", '{"caf\\u00e9\\/\\ud83d\\ude00": {}}', 1],
  ])("may have %s", (_, text, size) => {
    const policies = loadPolicyFile(write("some.json", text));
    expect(policies.size).toBe(size);
  });

  it("may use anchors and merge keys", () => {
    const text = "slow: &slow\n  latency: 50ms\n  rate: 1mbps\nslower:\n  <<: *slow\n  latency: 100ms\nsame: *slow\n";
    const policies = parsePolicies(text, "yaml", "f");
    expect(policies.get("slower")?.fields).toMatchObject({ latency: 100_000_000, rate: 1_000_000 });
    expect(policies.get("same")?.written).toEqual({ latency: "50ms", rate: "1mbps" });
  });

  it("may use one anchor very often", () => {
    const many = Array.from({ length: 3000 }, (_, at) => `p${at}: {<<: *base, seed: ${at}}`);
    expect(parsePolicies(`base: &base {latency: 1ms}\n${many.join("\n")}`, "yaml", "f").size).toBe(3001);
  });

  it("may name policies as it likes", () => {
    const policies = parsePolicies('{"__proto__": {"latency": "1ms"}, "constructor": {}, "a b": {}}', "json", "f");
    expect(policies.get("__proto__")?.fields.latency).toBe(1_000_000);
    expect(policies.get("constructor")?.fields.latency).toBeUndefined();
    expect(policies.size).toBe(3);
    expect(parsePolicies("__proto__: {latency: 1ms}", "yaml", "f").get("__proto__")?.fields.latency).toBe(1_000_000);
  });
});

describe("what cannot be a file of policies", () => {
  it.each([
    ["a.txt", "{}", "a policy file ends in .json, .yaml or .yml"],
    ["no-extension", "{}", "a policy file ends in .json, .yaml or .yml"],
    ["latin1.yaml", Buffer.from("a: {latency: 1ms} # caf\xe9", "latin1"), "is not text in UTF-8"],
    ["large.json", "x".repeat(1_000_001), "has 1000001 bytes; a policy file has at most 1000000"],
  ])("%s", (name, content, sentence) => {
    const path = write(name, content);
    expect(() => loadPolicyFile(path)).toThrow(PolicyFileError);
    expect(() => loadPolicyFile(path)).toThrow(`${path}: ${sentence}`);
  });

  it("is there, and a file", () => {
    expect(() => loadPolicyFile(join(folder, "none.yaml"))).toThrow("none.yaml: cannot be read (ENOENT)");
    mkdirSync(join(folder, "folder.yaml"));
    expect(() => loadPolicyFile(join(folder, "folder.yaml"))).toThrow("folder.yaml: cannot be read (EISDIR)");
  });
});

describe("an error in JSON", () => {
  it.each([
    ["", "1:1: not JSON: a value is wanted here"],
    ["{", "1:2: not JSON: a key in double quotes or } is wanted here"],
    ['{\n  "a": {},\n}', '3:1: not JSON: a key in double quotes is wanted here, not "}"'],
    ['{\n  // hi\n  "a": {}\n}', '2:3: not JSON: a key in double quotes or } is wanted here, not "/"'],
    ["{'a': {}}", '1:2: not JSON: a key in double quotes or } is wanted here, not "\'"'],
    ['{"a": {"latency": 50ms}}', '1:21: not JSON: a comma or } is wanted here, not "m"'],
    ['{"a": nul}', '1:7: not JSON: a value is wanted here, not "n"'],
    ['{"a" {}}', '1:6: not JSON: a colon is wanted here, not "{"'],
    ['{"a": {}} {}', '1:11: not JSON: the end of the file is wanted here, not "{"'],
    ['{"a": {"targets": ["x" "y"]}}', '1:24: not JSON: a comma or ] is wanted here, not "\\""'],
    ['{"a": {"targets": [,]}}', '1:20: not JSON: a value or ] is wanted here, not ","'],
    ['{"a": "open', '1:7: not JSON: a value is wanted here, not "\\""'],
    ["a: {latency: 50ms}", '1:1: not JSON: a value is wanted here, not "a"'],
    ['{"a": {}, "a": {}}', '1:11: "a" is given twice; give it once'],
    ['{"a": {"latency": "1ms",\n "latency": "2ms"}}', '2:2: "latency" is given twice; give it once'],
    ["[]", "1:1: must be an object keyed by policy name, such as {slow_link: {latency: 50ms}}"],
    ["7", "1:1: must be an object keyed by policy name"],
    ['{"a": {"latency": 50}}', "1:19: a.latency 50: a duration needs a unit, such as 50ms"],
  ])("%j", (text, sentence) => {
    const [first, ...more] = problems(text, "json");
    expect(first).toContain(sentence);
    expect(more).toEqual([]);
  });
});

describe("an error in YAML", () => {
  it.each([
    ["", "1:1: must be an object keyed by policy name"],
    ["- a", "1:1: must be an object keyed by policy name"],
    ["a: {latency: 50ms", "1:18: cannot be read as YAML: "],
    ["a:\n\tlatency: 50ms", "2:1: cannot be read as YAML: "],
    ["a: {}\n---\nb: {}", "2:1: a second document; a file has one"],
    ["a: !!js/function x", "1:4: cannot be read as YAML: Unresolved tag: "],
    ["a: !mine {latency: 1ms}", "1:4: cannot be read as YAML: Unresolved tag: !mine"],
    ["a: {latency: 1ms}\na: {}", '2:1: "a" is given twice; give it once'],
    ["? [a]\n: {}", "1:3: a key is text, such as latency"],
    ["a: &a {uplink: *a}", '1:16: the alias "*a" is a part of what it stands for; write out what it should stand for'],
    ["a: &a\n  <<: *a", '2:7: the alias "*a" is a part of what it stands for'],
    ["a: *b", '1:4: the alias "*b" has no anchor above it; write out what it should stand for'],
    ["latency: 50ms", '1:10: latency "50ms": must be an object, such as {latency: 50ms}'],
    ["a:\n  latency: 50", "2:12: a.latency 50: a duration needs a unit, such as 50ms"],
    ["a:\n  latncy: 50ms", '2:3: a: unknown field "latncy"; the nearest is latency'],
    ["a:\n  uplink:\n    rat: 1", '3:5: a.uplink: unknown field "rat"; the nearest is rate'],
    ["a:\n  timeout: 200ms", '2:12: a.timeout "200ms": must be an object'],
    ["a:\n  latency:", "2:11: a.latency null: a duration is text, such as 10ms"],
    ["a:\n  connection_error: {prob: 1%}", "2:3: a.connection_error.kind: missing; give one, such as refused"],
    ["a:\n  latency: 1ms\n  targets:\n    - any://a\n    - x", '5:7: a.targets[1] "x": a target starts with tcp://'],
    ["a:\n  targets:\n    - {host: 10.0.0.1, port: 0}", "3:30: a.targets[0].port 0: a port is from 1 to 65535"],
    ["a:\n  targets: []", "2:12: a.targets: must have at least one rule"],
    ["a: &b\n  latency: 5\nc: *b", "2:12: a.latency 5: a duration needs a unit"],
    ["a: &b {latency: 5ms, rat: 1}\n", '1:22: a: unknown field "rat"'],
    ["a: {latency: 1ms}\nb:\n  <<: {jitter: 5}", "3:16: b.jitter 5: a duration needs a unit"],
    ["' ': {}", '1:1: " ": a policy\'s name is not empty'],
    ['"a b\\n": {latency: 1}', '1:20: "a b\\n".latency 1: a duration needs a unit'],
    ["a:\n  __proto__: {x: 1}", '2:3: a: unknown field "__proto__"'],
  ])("%j", (text, sentence) => {
    expect(problems(text)[0]).toContain(sentence);
  });

  it("is said along with all others of the file, and the first stands for them", () => {
    const text = "a: {latency: 5, jiter: 1ms, loss: 1}\nb: {latency: 1ms}\nc:\n  session_budget: {action: timeout}\n";
    expect(problems(text)).toEqual([
      "1:14: a.latency 5: a duration needs a unit, such as 5ms",
      '1:17: a: unknown field "jiter"; the nearest is jitter',
      '1:29: a: unknown field "loss"; the nearest is dns',
      expect.stringContaining("4:3: c.session_budget.max_tx: missing; a budget needs at least one of max_tx, max_rx,"),
      "4:3: c.session_budget.budget_timeout: missing; the action timeout needs it, such as 2s",
    ]);
    expect(() => parsePolicies(text, "yaml", "f")).toThrow(
      /^f:1:14: a\.latency 5: a duration needs a unit, such as 5ms \(and 4 more\)$/,
    );
  });

  it("carries its place for machines", () => {
    try {
      parsePolicies("a:\n  latency: 5", "yaml", "f.yaml");
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(PolicyError);
      expect(error).toMatchObject({
        name: "PolicyFileError",
        file: "f.yaml",
        path: "a.latency",
        value: 5,
        problems: [{ line: 2, column: 12, path: "a.latency", problem: "a duration needs a unit, such as 5ms" }],
      });
    }
  });
});

describe("what would cost too much", { timeout: 60_000 }, () => {
  it("is refused: aliases of aliases", () => {
    const levels = Array.from(
      { length: 12 },
      (_, at) => `l${at}: &l${at} [${Array(9).fill(at === 0 ? "x" : `*l${at - 1}`)}]`,
    );
    expect(problems(levels.join("\n"))[0]).toContain("has aliases that stand for too much");
  });

  it.each<[string, Format, (depth: number) => string]>([
    ["JSON", "json", (depth) => `{"a": ${"[".repeat(depth)}${"]".repeat(depth)}}`],
    ["YAML in brackets", "yaml", (depth) => `a: ${"{a: ".repeat(depth)}${"}".repeat(depth)}`],
    [
      "YAML in lines",
      "yaml",
      (depth) => Array.from({ length: Math.min(depth, 1000) }, (_, at) => `${" ".repeat(at)}a:`).join("\n"),
    ],
    ["YAML in one line", "yaml", (depth) => `a:\n ${"- ".repeat(depth)}x`],
    ["keys that are collections", "yaml", (depth) => `${"? ".repeat(depth)}x`],
  ])("is refused: deep nesting in %s", (_, format, nested) => {
    for (const depth of [1000, 2000, 100_000]) {
      expect(problems(nested(depth), format)).toEqual([
        expect.stringContaining("nested too deeply; a policy has three levels"),
      ]);
    }
    expect(problems(nested(20), format)[0]).not.toContain("nested");
  });

  it("is refused: a very long chain of merge keys", () => {
    const chain = Array.from({ length: 20_000 }, (_, at) => `p${at}: &p${at} {${at === 0 ? "" : `<<: *p${at - 1}`}}`);
    expect(problems(chain.join("\n"))).toEqual([expect.stringContaining("has aliases that stand for too much")]);
  });

  it("costs little: very many keys", () => {
    const names = Array.from({ length: 20_000 }, (_, at) => `p${at}: {latency: 1ms}`);
    expect(parsePolicies(names.join("\n"), "yaml", "f").size).toBe(20_000);
    expect(problems(names.join("\n").replaceAll("1ms", "1"))).toHaveLength(20_000);
  });
});

describe("whatever is written", { timeout: 60_000 }, () => {
  const onlyClearErrors = (text: string, format: Format): void => {
    try {
      parsePolicies(text, format, "f");
    } catch (error) {
      if (!(error instanceof PolicyFileError)) throw error;
      for (const sentence of error.sentences) expect(sentence).toMatch(/^f:\d+:\d+: \P{Cc}+$/u);
      expect(error.message.startsWith(error.sentences[0] ?? "nothing")).toBe(true);
    }
  };
  const format = fc.constantFrom<Format>("json", "yaml");

  it("any policies are read as they are, in JSON and in YAML", () => {
    const file = fc.dictionary(fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/), policyArbitrary, { maxKeys: 4 });
    fc.assert(
      fc.property(file, (written) => {
        const expected = Object.entries(written).map(([name, policy]) => [name, parsePolicy(policy)]);
        expect([...parsePolicies(JSON.stringify(written), "json", "f")]).toEqual(expected);
        expect([...parsePolicies(stringify(written), "yaml", "f")]).toEqual(expected);
      }),
    );
  });

  it("random text gives a clear error or none", () => {
    const piece = fc.oneof(
      fc.string(),
      fc.string({ unit: "binary" }),
      fc.constantFrom(
        ..."a:, {}, [, ], &x, *x, <<, - , !t, |, >, \n, \n  , ?, #, '".split(", "),
        '"',
        "latency",
        "50ms",
        "%YAML 1.1\n---\n",
      ),
    );
    const text = fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join(""));
    fc.assert(fc.property(text, format, onlyClearErrors), { numRuns: 500 });
  });

  it("random values give a clear error or none", () => {
    fc.assert(fc.property(fc.json(), format, onlyClearErrors), { numRuns: 200 });
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), format, (value, as) => {
        onlyClearErrors(as === "json" ? JSON.stringify(value) : stringify(value), as);
      }),
    );
  });

  it("a good file with some of it changed gives a clear error or none", () => {
    const change = fc.record({
      at: fc.nat(),
      cut: fc.nat(5),
      put: fc.oneof(
        fc.string({ maxLength: 5 }),
        fc.constantFrom("\n", "  ", "&a", "*a", "!x ", "[", "}", '"', "#", "\t"),
      ),
    });
    fc.assert(
      fc.property(policyArbitrary, format, fc.array(change, { minLength: 1, maxLength: 4 }), (policy, as, changes) => {
        const good = as === "json" ? JSON.stringify({ policy }, null, 1) : stringify({ policy });
        const text = changes.reduce((before, { at, cut, put }) => {
          const place = at % (before.length + 1);
          return before.slice(0, place) + put + before.slice(place + cut);
        }, good);
        onlyClearErrors(text, as);
      }),
      { numRuns: 500 },
    );
  });
});
