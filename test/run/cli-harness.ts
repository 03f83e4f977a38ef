// Runs mishap as a user does: the built command, as a process of its own.
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import type { Evidence } from "../../src/report/schema.js";
import { evidenceSchema } from "../../src/report/schema.js";

export const MISHAP = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface Finished {
  /** The exit code, or the name of the signal that ended it. */
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly finished: Promise<Finished>;
  /** Resolves once stdout holds this text. */
  says(text: string): Promise<void>;
}

/** A folder of this test file's own, removed at its end. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mishap-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A project's name that no other test has. */
export function freshProject(): string {
  return `test_${randomBytes(4).toString("hex")}`;
}

const started = new Set<ChildProcess>();
// Here, because a hook that a test or another hook adds is not run.
afterAll(() => {
  for (const { pid, exitCode, signalCode } of started) {
    if (pid === undefined || exitCode !== null || signalCode !== null) continue;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // It ended just now.
    }
  }
});

/**
 * Starts a command in a session of its own, so that no terminal of the tests takes part. What of it still runs when the file's
 * tests are over is killed.
 */
export function start(
  command: string,
  args: readonly string[],
  options: { input?: Buffer | string; env?: object } = {},
): Running {
  const child = spawn(command, args, {
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
  });
  started.add(child);
  const text = { stdout: "", stderr: "" };
  const waiting: { text: string; resolve: () => void }[] = [];
  child.stdout.on("data", (data) => {
    text.stdout += data;
    for (const each of waiting) if (text.stdout.includes(each.text)) each.resolve();
  });
  child.stderr.on("data", (data) => {
    text.stderr += data;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(options.input ?? "");
  const finished = new Promise<Finished>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code: code ?? signal ?? "unknown", ...text }));
  });
  return {
    child,
    pid: child.pid ?? 0,
    finished,
    says: (wanted) =>
      Promise.race([
        new Promise<void>((resolve) => {
          if (text.stdout.includes(wanted)) resolve();
          waiting.push({ text: wanted, resolve });
        }),
        finished.then((end) => {
          if (!end.stdout.includes(wanted))
            throw new Error(`it ended without saying ${wanted}: ${JSON.stringify(end)}`);
        }),
      ]),
  };
}

/** Starts mishap. */
export function startMishap(args: readonly string[], options: { input?: Buffer | string; env?: object } = {}): Running {
  return start(process.execPath, [MISHAP, ...args], options);
}

/** Runs mishap to its end. */
export function mishap(...args: string[]): Promise<Finished> {
  return startMishap(args).finished;
}

/** Runs a program under mishap and reads the evidence it wrote; every evidence is held to the published schema. */
export async function evidenceOf(
  folder: string,
  flags: readonly string[],
  command: readonly string[],
): Promise<Finished & { evidence: Evidence }> {
  const file = join(folder, `evidence-${randomBytes(4).toString("hex")}.json`);
  const end = await mishap("run", "--json", file, ...flags, "--", ...command);
  const evidence = evidenceSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  // Said of every run with a delay where the kernel's receive buffers are small, as Debian's are: no test is about that.
  const notes = evidence.notes.filter((note) => !note.startsWith("net.core.rmem_max is "));
  return { ...end, evidence: { ...evidence, notes } };
}

/** The files that a project's runs have in shared memory at this moment. */
export function segmentFiles(project: string): string[] {
  const start = `mishap-${process.geteuid?.()}-${project}-`;
  return readdirSync("/dev/shm").filter((name) => name.startsWith(start));
}

/** How many times as long things may take (vitest.config.ts). */
const slow = Number(process.env.MISHAP_SLOW ?? 1);

/** Looks again and again until something holds. */
export async function until(what: string, holds: () => boolean, patienceMs = 5000): Promise<void> {
  const deadline = performance.now() + patienceMs * slow;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited ${patienceMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** State letter of a process (proc(5)); undefined once it is gone. */
export function processState(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "")[0];
  } catch {
    return undefined;
  }
}
