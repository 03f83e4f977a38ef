// From permissions to the jail's rules, over a folder that is really there.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { jailLaunch } from "../../../src/script/jail.js";
import { resolvePermissions } from "../../../src/script/permissions.js";
import { fromFlags } from "../../../src/script/written.js";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "mishap-rules-")));
afterAll(() => rmSync(folder, { recursive: true }));
for (const name of ["a", "a/inner", "b"]) mkdirSync(join(folder, name));
for (const name of ["a/one", "a/two", "a/inner/three", "b/four"]) writeFileSync(join(folder, name), "");
symlinkSync("/etc", join(folder, "a/link"));

/** The launcher's words; what lies in the folder, from there, and else of what is granted as a whole. */
function launch(...flags: string[]): { read: string[]; write: string[]; run: string[]; bare: string[] } {
  const permissions = resolvePermissions([fromFlags(flags)], { cwd: folder, searchPath: "/usr/bin:/bin" });
  const words = jailLaunch({ files: [], permissions, mailbox: false, unsafe: false });
  const given = (flag: string): string[] =>
    words
      .filter((_, at) => words[at - 1] === flag)
      .filter((path) => path.startsWith(folder))
      .map((path) => path.slice(folder.length + 1))
      .sort();
  return {
    read: given("--read"),
    write: given("--write"),
    run: words.filter((_, at) => words[at - 1] === "--run"),
    bare: ["--proc", "--accept"].filter((word) => words.includes(word)),
  };
}

describe("the jail's rules", () => {
  it("are what was granted and is there", () => {
    const nothing = { read: [], write: [], run: [], bare: [] };
    expect(launch()).toEqual(nothing);
    expect(launch("--allow-read=a,b/four,none", "--allow-write=b")).toEqual({
      ...nothing,
      read: ["a", "b/four"],
      write: ["b/four"],
    });
    expect(launch("--allow-write=a")).toEqual({ ...nothing, write: ["a"] });
    expect(launch("--allow-env", "--allow-sys")).toEqual(nothing);
    expect(launch("--allow-net=a.test").bare).toEqual(["--accept"]);
    expect(launch("--allow-read=/proc").bare).toEqual(["--proc"]);
  });

  it("leave out what is denied, and grant what lies beside it, but no links", () => {
    expect(launch("--allow-read=.", "--deny-read=a/inner").read).toEqual(["a/one", "a/two", "b"]);
    expect(launch("--allow-read=a", "--deny-read=a/none").read).toEqual(["a/inner", "a/one", "a/two"]);
    expect(launch("--allow-read=a", "--deny-read=.").read).toEqual([]);
    expect(launch("--allow-read", "--deny-read=a,b").read).toEqual([]);
    expect(launch("--allow-write=a", "--deny-write=a/one").write).toEqual(["a/inner", "a/two"]);
  });

  it("grant no folder to write in which a name says what may be read", () => {
    expect(launch("--allow-write=a", "--allow-read=a/one").write).toEqual(["a/inner", "a/one", "a/two"]);
    expect(launch("--allow-write=a", "--allow-read=a/none").write).toEqual(["a/inner", "a/one", "a/two"]);
    expect(launch("--allow-write=a", "--allow-read=.,a/one").write).toEqual(["a"]);
    expect(launch("--allow-write=a", "--allow-read", "--deny-read=a/one").write).toEqual(["a/inner", "a/one", "a/two"]);
  });

  it("let programs of PATH run where all may", () => {
    vi.stubEnv("PATH", "/usr/bin:/bin");
    expect(launch("--allow-run").run).toEqual([realpathSync("/usr/bin")]);
    const some = launch("--allow-run", "--deny-run=env").run;
    expect(some).not.toContain(realpathSync("/usr/bin"));
    expect(some).not.toContain(realpathSync("/usr/bin/env"));
    expect(some.length).toBeGreaterThan(1);
    vi.unstubAllEnvs();
  });
});
