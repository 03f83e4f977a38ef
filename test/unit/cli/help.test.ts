// Help and completion are made from the same tables as the parser; these tests hold that nothing falls out of them.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { completionFor } from "../../../src/cli/completion.js";
import { buildProgram } from "../../../src/cli/program.js";
import { prepareArguments } from "../../../src/cli/run.js";
import { policyFlags } from "../../../src/policy/index.js";

const program = await buildProgram();
const run = program.commands.find((command) => command.name() === "run");
const help = run?.helpInformation() ?? "";

describe("help", () => {
  it.each(policyFlags.map(({ name, help: text, group }) => [name, text, group] as const))(
    "of run explains %s under a heading",
    (name, text, group) => {
      expect(help).toContain(`  ${name} `);
      expect(help).toContain(text);
      expect(help).toContain(`\n${group}:\n`);
    },
  );

  it.each(["--duration", "--dry-run", "--json", "--journal", "--quiet", "--project", "--seed", "--target"])(
    "of run explains %s",
    (name) => {
      expect(help).toContain(`  ${name} `);
    },
  );

  it("of mishap names every command", () => {
    expect(program.commands.map((command) => command.name())).toEqual([
      "run",
      "attach",
      "policy",
      "recording",
      "script",
      "stop",
      "observe",
      "doctor",
      "contract",
      "completion",
    ]);
    for (const command of program.commands) expect(program.helpInformation()).toContain(command.summary());
  });
});

describe("arguments", () => {
  it.each([
    [
      "a bare boolean is true",
      ["run", "--payload-mutation.dry-run", "curl"],
      ["run", "--payload-mutation.dry-run=true", "curl"],
    ],
    [
      "its value may stand behind it where flags go on",
      ["run", "--payload-mutation.dry-run", "false", "--latency", "1ms", "--", "curl"],
      ["run", "--payload-mutation.dry-run=false", "--latency", "1ms", "--", "curl"],
    ],
    [
      "a program called true is one",
      ["run", "--payload-mutation.dry-run", "true", "curl"],
      ["run", "--payload-mutation.dry-run=true", "true", "curl"],
    ],
    [
      "a value is not taken for the program",
      ["run", "--json", "out", "curl", "--quiet"],
      ["run", "--json", "out", "curl", "--quiet"],
    ],
    [
      "the program's own flags are left alone",
      ["run", "--quiet", "--", "x", "--payload-mutation.dry-run"],
      ["run", "--quiet", "--", "x", "--payload-mutation.dry-run"],
    ],
    [
      "nor after a program without --",
      ["run", "--latency", "1ms", "x", "--payload-mutation.dry-run"],
      ["run", "--latency", "1ms", "x", "--payload-mutation.dry-run"],
    ],
  ])("%s", (_, given, prepared) => {
    expect(prepareArguments(given)).toEqual(prepared);
  });
});

/** What bash offers after a line; the last word is the one being typed. */
function completeInBash(...words: string[]): string[] {
  const script = `${completionFor("bash", program)}
complete -p mishap >/dev/null || exit 9
COMP_WORDS=(mishap ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}
_mishap
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { status, stdout, stderr } = spawnSync("bash", ["--norc", "-c", script], { encoding: "utf8", cwd: "/" });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout.split("\n").filter((line) => line !== "");
}

describe("completion for bash", () => {
  it("is what bash accepts", () => {
    const { status, stderr } = spawnSync("bash", ["-n"], { input: completionFor("bash", program), encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });

  it("offers commands, flags and shells", () => {
    expect(completeInBash("ru")).toEqual(["run"]);
    expect(completeInBash("run", "--uplink.r")).toEqual(["--uplink.rate"]);
    expect(completeInBash("completion", "")).toEqual(expect.arrayContaining(["bash", "zsh", "fish"]));
    expect(completeInBash("run", "--lat").length).toBe(1);
    expect(new Set(completeInBash("run", "--"))).toEqual(
      new Set(run?.options.map(({ long }) => long).concat("--help")),
    );
  });

  it("offers the commands of a command, then files", () => {
    const names = ["check", "list", "show", "schema", "presets"];
    expect(completeInBash("policy", "")).toEqual(expect.arrayContaining(names));
    expect(completeInBash("policy", "s")).toEqual(["show", "schema"]);
    expect(completeInBash("policy", "check", "")).toEqual([]); // which leaves it to bash: files
    expect(completeInBash("policy", "list", "--j")).toEqual(["--json"]);
    expect(completeInBash("recording", "s")).toEqual(["show", "stats", "shrink"]);
    expect(completeInBash("recording", "cut", "--f")).toEqual(["--flow", "--fault", "--from"]);
  });

  it("leaves the program's own line to the program", () => {
    expect(completeInBash("run", "--latency", "5ms", "--", "/bin/tru")).toContain("/bin/true");
    expect(completeInBash("run", "--quiet", "cat", "/etc/passw")).toContain("/etc/passwd");
    expect(completeInBash("run", "--json", "/etc/passw")).toContain("/etc/passwd");
  });
});

describe.each([
  ["zsh", ["-n"]],
  ["fish", ["--no-execute"]],
] as const)("completion for %s", (shell, checkOnly) => {
  it("names every flag", () => {
    const script = completionFor(shell, program);
    for (const { name } of policyFlags) expect(script).toContain(shell === "fish" ? `'${name.slice(2)}'` : `${name}[`);
  });

  it("is what the shell accepts", ({ skip }) => {
    const folder = mkdtempSync(join(tmpdir(), "mishap-completion-")); // neither shell reads a socket as its script
    const file = join(folder, "completion");
    writeFileSync(file, completionFor(shell, program));
    const { error, status, stderr } = spawnSync(shell, [...checkOnly, file], { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    if (error) skip(`${shell} is not installed`);
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });
});
