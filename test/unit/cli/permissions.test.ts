// The flags of permissions, as a command reads them.
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../../src/cli/errors.js";
import {
  declaredPermissions,
  type PermissionFlags,
  permissionFlags,
  permissionOptions,
  preparePermissionArguments,
} from "../../../src/cli/permissions.js";

function read(...args: string[]): PermissionFlags & { words: readonly string[] } {
  const command = new Command().argument("[words...]").passThroughOptions().exitOverride();
  permissionOptions(command);
  command.parse(preparePermissionArguments(args), { from: "user" });
  return { ...permissionFlags(command.opts()), words: command.args };
}

describe("flags of permissions", () => {
  it("are values with =, all of a kind without one", () => {
    const { written, words } = read("--allow-read=a,b", "--allow-read=c", "--allow-net", "--deny-env=X", "--", "npm");
    expect(written).toEqual([{ allow: { read: ["a", "b", "c"], net: ["*"] }, deny: { env: ["X"] } }]);
    expect(words).toEqual(["npm"]);
  });

  it("never take the word after them, and leave the program's own alone", () => {
    const { written, words } = read("--allow-read", "script.ts", "--", "deno", "--allow-run");
    expect(written[0]?.allow).toEqual({ read: ["*"] });
    expect(words).toContain("script.ts");
    expect(words.at(-1)).toBe("--allow-run");
  });

  it("-A, --allow-sys, --no-prompt and --permission-log are there", () => {
    expect(read("-A").written[0]?.allow).toEqual({
      read: ["*"],
      write: ["*"],
      net: ["*"],
      env: ["*"],
      run: ["*"],
      sys: ["*"],
    });
    expect(read("--allow-sys").written[0]?.allow).toEqual({ sys: ["*"] });
    expect(read()).toMatchObject({ written: [{ allow: {}, deny: {} }], prompt: true });
    expect(read("--no-prompt", "--permission-log", "p.jsonl")).toMatchObject({ prompt: false, log: "p.jsonl" });
  });

  it("that are wrong are wrong usage", () => {
    expect(() => read("--allow-read=")).toThrow(UsageError);
    expect(() => read("--script-config", "none.yaml")).toThrow(/none\.yaml: cannot be read/);
    expect(() => declaredPermissions("// @permissions red", "a.ts")).toThrow(UsageError);
  });
});
