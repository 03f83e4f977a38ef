// The log of permissions: what a line holds, and its published schema.
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { z } from "zod";
import { PermissionLog, permissionLogEntry } from "../../../src/script/audit.js";
import { grantsOf, NO_PERMISSIONS, withGranted } from "../../../src/script/permissions.js";

it("a log is lines of JSON that its user alone may read, and goes on where it ended", () => {
  const folder = mkdtempSync(join(tmpdir(), "mishap-audit-"));
  const file = join(folder, "log.jsonl");
  const entry = {
    source: "flags",
    action: "grant",
    permission: "read",
    value: "/a\nb",
    script: "a.ts",
    why: "x",
  } as const;
  for (const _ of [1, 2]) {
    const log = new PermissionLog(file);
    log.write(entry);
    log.close();
  }
  const lines = readFileSync(file, "utf8").trim().split("\n");
  expect(lines.map((line) => permissionLogEntry.parse(JSON.parse(line)))).toMatchObject([entry, entry]);
  const log = new PermissionLog(file);
  log.writeGrants(grantsOf(withGranted(NO_PERMISSIONS, { permission: "net", value: "a:1" })), "a.ts");
  log.close();
  expect(JSON.parse(readFileSync(file, "utf8").trim().split("\n").at(-1) ?? "")).toMatchObject({
    source: "flags",
    value: "a:1",
    why: "--allow-net=a:1 was given",
  });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  rmSync(folder, { recursive: true });
});

// A new field needs its description in src/script/audit.ts and its place in the published file; the difference that a
// failure shows is what to write there.
it("docs/permission-log.schema.json is the schema", () => {
  const file = new URL("../../../docs/permission-log.schema.json", import.meta.url);
  expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({
    title: "mishap permission log",
    ...z.toJSONSchema(permissionLogEntry, { target: "draft-2020-12" }),
  });
});
