// What a script declares, asked for before it starts.
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { PermissionLog, type PermissionLogEntry } from "../../../src/script/audit.js";
import { isPermitted, type Permissions, resolvePermissions, toFlags } from "../../../src/script/permissions.js";
import { grantDeclared, visible } from "../../../src/script/prompt.js";
import { fromFlags } from "../../../src/script/written.js";

const permissionsOf = (...flags: string[]): Permissions =>
  resolvePermissions([fromFlags(flags)], { cwd: "/mishap-none", searchPath: "" });

interface Asked {
  readonly permissions: Permissions;
  readonly shown: string;
  readonly denied: readonly string[];
  readonly log: readonly Omit<PermissionLogEntry, "time">[];
}

/** Asks for what is declared, with these lines typed; without any, there is no terminal. */
async function asked(declared: Permissions, granted: Permissions, typed?: string): Promise<Asked> {
  const input = new PassThrough();
  const output = new PassThrough();
  const denied: string[] = [];
  const log: Omit<PermissionLogEntry, "time">[] = [];
  const recorder = new PermissionLog();
  recorder.write = (entry) => void log.push(entry);
  // Each question gets its line, as from a person; the end of input after the last.
  const lines = (typed ?? "").split("\n");
  output.on("data", (text: Buffer) => {
    if (!text.toString().includes(" asks to ")) return;
    const line = lines.shift();
    if (line === undefined) input.end();
    else setImmediate(() => input.write(`${line}\n`));
  });
  let shown = "";
  output.on("data", (text: Buffer) => {
    shown += text;
  });
  const permissions = await grantDeclared(declared, granted, {
    script: "brownout.ts",
    cwd: "/mishap-none",
    log: recorder,
    terminal: typed === undefined ? undefined : { input, output },
    onDenied: (sentence) => denied.push(sentence),
  });
  return { permissions, shown, denied, log };
}

describe("on a terminal", () => {
  it("each thing is asked for by name, and yes grants it", async () => {
    const { permissions, shown, log } = await asked(
      permissionsOf("--allow-read=./traces", "--allow-net=api.local:443"),
      permissionsOf(),
      "y\nno",
    );
    expect(shown).toContain("brownout.ts asks to read ./traces  [y]es  [n]o  [A]ll of read ");
    expect(shown).toContain("brownout.ts asks to reach api.local:443  [y]es  [n]o  [A]ll of net ");
    expect(toFlags(permissions)).toEqual(["--allow-read=/mishap-none/traces"]);
    expect(log).toMatchObject([
      { source: "prompt", action: "grant", permission: "read", value: "/mishap-none/traces", script: "brownout.ts" },
      { source: "prompt", action: "deny", permission: "net", value: "api.local:443" },
    ]);
  });

  it("A grants all of a kind and ends its questions; anything else is asked again", async () => {
    const declared = permissionsOf("--allow-read=./a,./b", "--allow-sys");
    const { permissions, shown, log } = await asked(declared, permissionsOf("--deny-read=./c"), "what\nA\ny");
    expect(shown.match(/asks to read/g)).toHaveLength(2);
    expect(toFlags(permissions)).toEqual(["--allow-read", "--deny-read=/mishap-none/c", "--allow-sys"]);
    expect(log.map(({ value }) => value)).toEqual(["*", "*"]);
  });

  it("what is granted or denied already is not asked for, and a terminal that ends says no", async () => {
    const none = await asked(
      permissionsOf("--allow-read=./a/b", "--allow-env=X"),
      permissionsOf("--allow-read=./a", "--deny-env=X"),
      "y",
    );
    expect(none.shown).toBe("");
    const { permissions } = await asked(permissionsOf("--allow-read=./a,./b"), permissionsOf(), "");
    expect(isPermitted(permissions, "read", "/mishap-none/a")).toBe(false);
  });
});

it("without a terminal it is denied, with the flag that grants it", async () => {
  const { permissions, denied, log } = await asked(permissionsOf("--allow-read=./traces"), permissionsOf());
  expect(toFlags(permissions)).toEqual([]);
  expect(denied).toEqual([
    "brownout.ts asks to read ./traces, which is denied; --allow-read=/mishap-none/traces grants it",
  ]);
  expect(log).toMatchObject([{ source: "prompt", action: "deny" }]);
});

it("what a terminal would act on is written out", () => {
  expect(visible("a\u001b[2K\r\u202eb\u2028c\n")).toBe("a\\u{1b}[2K\\u{d}\\u{202e}b\\u{2028}c\\u{a}");
});
