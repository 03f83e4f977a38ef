// A folder of a user's in which mishap is run as that user does, with no terminal, and whether scripts are jailed here.
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import { type Finished, MISHAP } from "../cli-harness.js";
import type { User } from "./jail.js";

const LAUNCHER = fileURLToPath(new URL("../../../build/Release/mishap-jail", import.meta.url));

/** Why scripts are not jailed here; undefined where they are. */
export const unjailed: string | undefined =
  spawnSync(LAUNCHER, ["--", "/bin/true"], { encoding: "utf8" }).stderr || undefined;

/** Why an ordinary user cannot run the mishap that is tested; undefined where it can. */
export function unreachable({ uid, gid }: User): string | undefined {
  const { error, status } = spawnSync(process.execPath, [MISHAP, "--version"], { uid, gid, cwd: "/" });
  return error === undefined && status === 0 ? undefined : "this user cannot reach mishap's files";
}

/** A user's folder; it goes with the tests. */
export class UserFolder {
  readonly folder = mkdtempSync(join(tmpdir(), "mishap-user-"));

  constructor(readonly user: User) {
    chmodSync(this.folder, 0o755);
    chownSync(this.folder, user.uid, user.gid);
    afterAll(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  file(name: string, text: string): string {
    const path = this.path(name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    for (const each of [dirname(path), path]) chownSync(each, this.user.uid, this.user.gid);
    return path;
  }

  /** Runs mishap in the folder, with no terminal. */
  mishap(...args: string[]): Promise<Finished> {
    const child = spawn(process.execPath, [MISHAP, ...args], {
      uid: this.user.uid,
      gid: this.user.gid,
      cwd: this.folder,
      env: { PATH: process.env.PATH, HOME: this.folder, GRANTED: "yes", SECRET: "no" },
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const text = { stdout: "", stderr: "" };
    child.stdout.on("data", (data) => {
      text.stdout += data;
    });
    child.stderr.on("data", (data) => {
      text.stderr += data;
    });
    return new Promise((resolve) =>
      child.on("close", (code, signal) => resolve({ code: code ?? signal ?? "", ...text })),
    );
  }
}
