// A folder for segments, processes that own one, and waiting for what ought to happen soon.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach } from "vitest";

const ownerScript = fileURLToPath(new URL("./owner.mjs", import.meta.url));

/** A fresh folder for each test of a file, in memory as real segments are. */
export function useFolder(): { readonly path: string } {
  const folder = { path: "" };
  beforeEach(() => {
    folder.path = mkdtempSync("/dev/shm/mishap-test-");
  });
  afterEach(() => rmSync(folder.path, { recursive: true, force: true }));
  return folder;
}

const children: ChildProcess[] = [];

/** Starts owner.mjs on a segment in the folder and waits until it is ready. */
export async function startOwner(folder: string, then: string, name = "mishap-test"): Promise<[ChildProcess, string]> {
  const path = join(folder, name);
  const child = spawn(process.execPath, [ownerScript, path, then], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  await new Promise((resolve, reject) => {
    child.stdout?.once("data", resolve);
    child.once("exit", reject);
  });
  return [child, path];
}

/** Ends a child as nothing can prepare for, and waits for its end. */
export async function kill9(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

afterEach(async () => {
  for (const child of children.splice(0)) await kill9(child);
});

/** Waits until something holds, looking every 10 ms; false when it does not within the time. */
export async function soon(holds: () => boolean, withinMs = 5000): Promise<boolean> {
  for (const end = performance.now() + withinMs; performance.now() < end; ) {
    if (holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return holds();
}
