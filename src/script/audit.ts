/**
 * The log of permissions: every grant and denial as a line of JSON, described once; docs/permission-log.schema.json is
 * held to this file by a test.
 */

import { closeSync, openSync, writeSync } from "node:fs";
import { z } from "zod";
import { flagFor, PERMISSIONS, type Wish } from "./wish.js";

/** One line of the log. */
export const permissionLogEntry = z
  .strictObject({
    time: z.iso.datetime().describe("when, in UTC"),
    source: z
      .enum(["flags", "prompt", "broker", "script"])
      .describe(
        "who decided or met it: flags, at the start; prompt, by an answer on the terminal; broker, outside the jail, when the script asked; script, inside, where the kernel refused",
      ),
    action: z.enum(["grant", "deny"]).describe("whether it was permitted"),
    permission: z.enum(PERMISSIONS).describe("what kind of permission"),
    value: z.string().describe("a path, a host with its port, a variable, a program; * is all of them"),
    script: z.string().describe("the script, as it was named"),
    why: z.string().describe("one sentence: what was asked, and what decided"),
  })
  .describe("One grant or denial of a permission to a script.");

export type PermissionLogEntry = z.infer<typeof permissionLogEntry>;

/** Where grants and denials are written; without a file, nowhere. */
export class PermissionLog {
  readonly #fd: number | undefined;

  /** Appends to a file that only this user may read. Throws the system's error when it cannot be opened. */
  constructor(file?: string) {
    this.#fd = file === undefined ? undefined : openSync(file, "a", 0o600);
  }

  /** Writes a line, at once: what was granted is in the log before it is used. */
  write(entry: Omit<PermissionLogEntry, "time">): void {
    if (this.#fd === undefined) return;
    writeSync(this.#fd, `${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`);
  }

  /** Writes what is granted at the start, by flags or a config file. */
  writeGrants(grants: readonly Wish[], script: string): void {
    for (const wish of grants) {
      this.write({ source: "flags", action: "grant", ...wish, script, why: `${flagFor(wish)} was given` });
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}
