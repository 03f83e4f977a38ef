// Permissions: how they are written, what they mean, and what they never let through.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import {
  findProgram,
  hostOf,
  isBeneath,
  isPermitted,
  missingPermissions,
  NO_PERMISSIONS,
  netValue,
  type Permissions,
  realPathOf,
  resolvePermissions,
  toFlags,
  withGranted,
} from "../../../src/script/permissions.js";
import { EVERYTHING, flagFor, KINDS, type Kind } from "../../../src/script/wish.js";
import { fromConfigFile, fromFlags, fromHeader, onlyDenied } from "../../../src/script/written.js";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "mishap-permissions-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const where = { cwd: folder, searchPath: "/nowhere:/usr/bin:/bin" };
const permissionsOf = (...flags: string[]): Permissions => resolvePermissions([fromFlags(flags)], where);

describe("flags", () => {
  it("nothing is permitted that was not granted", () => {
    expect(permissionsOf()).toEqual(NO_PERMISSIONS);
    for (const kind of KINDS) expect(isPermitted(NO_PERMISSIONS, kind, "x")).toBe(false);
  });

  it("paths hang on the working directory, and one flag holds several", () => {
    const permissions = permissionsOf("--allow-read=./a,b/../c", "--allow-read=/etc/hosts", "--allow-write");
    expect(permissions.read.allow).toEqual({ all: false, only: ["/etc/hosts", `${folder}/a`, `${folder}/c`] });
    expect(permissions.write.allow).toEqual({ all: true, only: [] });
  });

  it("-A is everything but what is denied", () => {
    const permissions = permissionsOf("-A", "--deny-net=a.example:80", "--deny-sys");
    expect(isPermitted(permissions, "net", "a.example:443")).toBe(true);
    expect(isPermitted(permissions, "net", "a.example:80")).toBe(false);
    expect(isPermitted(permissions, "sys", EVERYTHING)).toBe(false);
    expect(permissionsOf("-A").sys).toBe(true);
  });

  it("a comma within a value is written twice", () => {
    const permissions = permissionsOf("--allow-read=a,,b,c");
    expect(permissions.read.allow.only).toEqual([`${folder}/a,b`, `${folder}/c`]);
    expect(toFlags(permissions)).toEqual([`--allow-read=${folder}/a,,b,${folder}/c`]);
    expect(flagFor({ permission: "read", value: "/a,b" })).toBe("--allow-read=/a,,b");
  });

  it.each([
    ["--allow-red=x", '"--allow-red=x"', "is read"],
    ["--allow-read=", "--allow-read=", "empty value"],
    ["--allow-read=a,", "empty value", "read=./traces"],
    ["--allow-sys=x", "sys has no values", "--allow-sys"],
    ["--read", "is no permission", "--allow-read"],
    ["--allow-net=a b", "--allow-net=a b", "host:port"],
    ["--allow-net=a:99999", "host:port", "[::1]:80"],
    ["--allow-net=::1:80:", "host:port", "[::1]:80"],
    ["--allow-env=A-B", "no name of a variable", "AWS_*"],
    ["--allow-run=no-such-program", "no such program", "PATH"],
  ])("%s is refused in a sentence", (flag, ...parts) => {
    let message = "";
    try {
      permissionsOf(flag);
    } catch (error) {
      message = String(error);
    }
    for (const part of parts) expect(message).toContain(part.replaceAll('"--allow-red=x"', "--allow-red=x"));
  });
});

describe("what values mean", () => {
  it("a folder holds what is beneath it and nothing beside it", () => {
    const permissions = permissionsOf("--allow-read=/a/b", "--deny-read=/a/b/secret");
    const may = (path: string): boolean => isPermitted(permissions, "read", path);
    expect([may("/a/b"), may("/a/b/c"), may("/a/bc"), may("/a"), may("/")]).toEqual([true, true, false, false, false]);
    expect([may("/a/b/secret"), may("/a/b/secret/x"), may("/a/b/secrets")]).toEqual([false, false, true]);
  });

  it("symlinks are followed before anything is compared", () => {
    mkdirSync(join(folder, "inside"));
    symlinkSync("/etc", join(folder, "inside/out"));
    symlinkSync(join(folder, "inside"), join(folder, "also"));
    expect(permissionsOf("--allow-read=./also").read.allow.only).toEqual([`${folder}/inside`]);
    expect(realPathOf(join(folder, "inside/out/passwd"))).toBe("/etc/passwd");
    expect(realPathOf(join(folder, "also/not/yet"))).toBe(`${folder}/inside/not/yet`);
  });

  it("a host without a port is every port of it; hosts have one spelling", () => {
    const permissions = permissionsOf("--allow-net=API.local.,b:443,[0:0::1]:80,127.1,[::ffff:10.0.0.1]:1");
    const may = (host: string, port: number): boolean => isPermitted(permissions, "net", netValue(host, port) ?? "");
    expect([may("api.local", 1), may("b", 443), may("b", 80), may("c", 443)]).toEqual([true, true, false, false]);
    expect([may("::1", 80), may("[::1]", 80), may("::1", 81)]).toEqual([true, true, false]);
    expect([may("127.0.0.1", 5), may("::ffff:7f00:1", 5), may("10.0.0.1", 1)]).toEqual([true, true, true]);
    expect(["a/b", "a@b", "", "[::1", "a:b", "[fe80::1%eth0]"].map(hostOf)).toEqual(Array(6).fill(undefined));
  });

  it("a variable's name may end in *", () => {
    const permissions = permissionsOf("--allow-env=HOME,AWS_*", "--deny-env=AWS_SECRET*");
    const may = (name: string): boolean => isPermitted(permissions, "env", name);
    expect([may("HOME"), may("HOMER"), may("AWS_REGION"), may("AWS_SECRET_KEY")]).toEqual([true, false, true, false]);
  });

  it("a program is found in PATH, and is itself only", () => {
    const shell = realpathSync("/bin/sh");
    const permissions = permissionsOf("--allow-run=sh");
    expect(permissions.run.allow.only).toEqual([shell]);
    expect(isPermitted(permissions, "run", shell)).toBe(true);
    expect(isPermitted(permissions, "run", `${shell}/x`)).toBe(false);
    expect(findProgram("/etc/passwd", where)).toBeUndefined();
  });
});

describe("headers", () => {
  it("are comments before the code", () => {
    const text = `#!/usr/bin/env mishap
/* A brownout.
 * @permissions read=./traces,./more env
 */
// @permissions net=api.local:443 deny-read=./traces/secret sys
import "x";
// @permissions run
`;
    const declared = fromHeader(text, "brownout.ts");
    expect(declared).toEqual({
      allow: { read: ["./traces", "./more"], env: ["*"], net: ["api.local:443"], sys: ["*"] },
      deny: { read: ["./traces/secret"] },
    });
    expect(onlyDenied(declared)).toEqual({ allow: {}, deny: declared.deny });
  });

  it("are not read from code, and say where they are wrong", () => {
    expect(fromHeader('const a = "// @permissions read";', "a.ts")).toEqual({ allow: {}, deny: {} });
    expect(() => fromHeader("// hello\n// @permissions red=x", "a.ts")).toThrow(/^a\.ts:2: "red=x": .*nearest is read/);
    expect(() => fromHeader("// @permissions", "a.ts")).toThrow("a.ts:1: declares nothing");
  });
});

describe("a config file", () => {
  const file = join(folder, "permissions.yaml");
  it("says the same", () => {
    writeFileSync(file, "allow: { read: [./traces], net: true, env: HOME, sys: true }\ndeny: { net: [a:1] }\n");
    expect(fromConfigFile(file)).toEqual({
      allow: { read: ["./traces"], net: ["*"], env: ["HOME"], sys: ["*"] },
      deny: { net: ["a:1"] },
    });
  });

  it.each([
    ["allow: [", "permissions.yaml:1:"],
    ["allow:\n  red: [x]\n", "permissions.yaml:"],
    ["allow:\n  read: ['']\n", "permissions.yaml:2:9"],
    ["allow:\n  read: false\n", "permissions.yaml:2:9"],
  ])("%j is refused with its place", (text, place) => {
    writeFileSync(file, text);
    expect(() => fromConfigFile(file)).toThrow(place);
  });

  it("that is not there is named", () => {
    expect(() => fromConfigFile(join(folder, "none.yaml"))).toThrow("none.yaml: cannot be read (ENOENT)");
  });
});

describe("what is missing", () => {
  it("is what is declared and neither granted nor denied", () => {
    const declared = permissionsOf("--allow-read=/a/b,/c", "--allow-net", "--allow-env=A", "--allow-sys");
    const granted = permissionsOf("--allow-read=/a", "--allow-net=x:1", "--deny-env=A");
    const missing = missingPermissions(declared, granted);
    expect(missing).toEqual([
      { permission: "read", value: "/c" },
      { permission: "net", value: "*" },
      { permission: "sys", value: "*" },
    ]);
    expect(missingPermissions(declared, missing.reduce(withGranted, granted))).toEqual([]);
  });
});

const pathText = fc
  .array(fc.constantFrom("a", "b", "bc", "..", ".", "", "x,y", "ö", "a b"), { maxLength: 5 })
  .map((parts) => `/mishap-none/${parts.join("/")}`);
const values: Readonly<Record<Kind, fc.Arbitrary<string>>> = {
  read: pathText,
  write: pathText,
  net: fc
    .tuple(fc.constantFrom("a.example", "127.0.0.1", "[::1]", "LOCALHOST"), fc.option(fc.nat(65535)))
    .map(([host, port]) => (port === null ? host : `${host}:${port}`)),
  env: fc.constantFrom("HOME", "AWS_*", "A", "A_B*"),
  run: fc.constantFrom("sh", "/bin/cat"),
};
const anyPermissions = fc
  .array(
    fc.constantFrom(...KINDS).chain((kind) =>
      fc.record({
        sense: fc.constantFrom("allow", "deny"),
        kind: fc.constant(kind),
        only: fc.option(fc.array(values[kind], { minLength: 1, maxLength: 3 })),
      }),
    ),
    { maxLength: 8 },
  )
  .map((words) =>
    words.map(({ sense, kind, only }) => {
      const list = only?.map((value) => value.replaceAll(",", ",,")).join(",");
      return list === undefined ? `--${sense}-${kind}` : `--${sense}-${kind}=${list}`;
    }),
  );

describe("for any permissions", () => {
  it("what is printed reads back as the same", () => {
    fc.assert(
      fc.property(anyPermissions, (flags) => {
        const permissions = permissionsOf(...flags);
        expect(permissionsOf(...toFlags(permissions))).toEqual(permissions);
      }),
    );
  });

  it("what is denied is denied, whatever is allowed", () => {
    fc.assert(
      fc.property(anyPermissions, pathText, fc.nat(65535), (flags, path, port) => {
        const real = realPathOf(path);
        expect(
          isPermitted(permissionsOf("-A", ...flags, `--deny-read=${path.replaceAll(",", ",,")}`), "read", real),
        ).toBe(false);
        expect(isPermitted(permissionsOf(...flags, "-A", "--deny-net=a"), "net", `a:${port}`)).toBe(false);
      }),
    );
  });

  it("a path is beneath a folder by its parts, not by its letters", () => {
    fc.assert(
      fc.property(pathText, pathText, (one, other) => {
        const [path, root] = [realPathOf(one), realPathOf(other)];
        const parts = (each: string): string[] => each.split("/").filter((part) => part !== "");
        const expected = parts(root).every((part, at) => parts(path)[at] === part);
        expect(isBeneath(path, root)).toBe(expected);
      }),
    );
  });
});
