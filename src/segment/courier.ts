/** The courier: a detached program that holds what a run's programs sent until it is due, and sends it then. */

import { spawn } from "node:child_process";
import { unlinkSync } from "node:fs";
import { createInterface } from "node:readline";
import { nativeFolder } from "./native.js";

/** A courier at work. */
export interface Courier {
  /** Resolves once programs can reach it; rejects with the reason when they never will. */
  readonly ready: Promise<void>;
  /**
   * The program ended: resolves when everything sent has left at its time. Rejects, in one sentence, when something has
   * not. Bytes whose peers do not read stay with the courier, as they would stay with the kernel.
   */
  drained(): Promise<void>;
  /** The run is over, however it went: the courier leaves once it is empty, and its socket is gone now. */
  dismiss(): void;
}

const READY_WITHIN_MS = 2000;

/** Starts the courier of a segment. It has to be dismissed, and survives this process's terminal. */
export function startCourier(segmentPath: string): Courier {
  const courier = spawn(`${nativeFolder}mishap-courier`, [segmentPath], {
    detached: true,
    stdio: ["pipe", "pipe", "ignore"],
    env: {},
  });
  courier.unref();
  courier.stdin.on("error", () => {}); // it died: its end says so
  const lines = createInterface({ input: courier.stdout });
  const blocked = new Promise<string>((resolve) => {
    lines.on("line", (line) => {
      if (line === "blocked")
        resolve("peers that do not read were sent more: the courier stays for them, a minute at most");
    });
  });
  const ended = new Promise<string | undefined>((resolve) => {
    courier.once("error", (error) => resolve(error.message));
    courier.once("close", (code, signal) =>
      resolve(code === 0 ? undefined : `the courier ended with ${signal ?? `status ${code}`}`),
    );
  });
  const ready = new Promise<void>((resolve, reject) => {
    const fail = (reason = "it ended at once"): void => reject(new Error(reason));
    lines.once("line", (line) => (line === "ready" ? resolve() : fail(line)));
    void ended.then(fail);
    setTimeout(fail, READY_WITHIN_MS, `it was not ready within ${READY_WITHIN_MS / 1000} s`).unref();
  });
  const started = ready.then(
    () => true,
    () => {
      courier.kill("SIGKILL");
      return false;
    },
  );

  return {
    ready,
    drained: async () => {
      if (!(await started)) return;
      courier.stdin.end();
      courier.ref(); // this process waits for it now
      const problem = await Promise.race([ended, blocked]);
      courier.unref();
      if (problem !== undefined) throw new Error(problem);
    },
    dismiss: () => {
      courier.stdin.destroy();
      courier.stdout.destroy();
      try {
        unlinkSync(`${segmentPath}.courier`);
      } catch {
        // It removed its socket itself.
      }
    },
  };
}
