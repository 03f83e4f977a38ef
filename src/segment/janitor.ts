/** The janitor: a detached program that removes a run's segment when the run cannot. */

import { spawn } from "node:child_process";
import { nativeFolder } from "./native.js";

/** A janitor on watch. */
export interface Janitor {
  readonly pid: number | undefined;
  /** Sends it home once the segment is removed; resolves when it is gone, so that nothing is left of the run. */
  dismiss(): Promise<void>;
}

/**
 * Starts the janitor for a segment of this process. When this process ends without dismissing it, it stays until no
 * program of the run lives and then removes the segment. It keeps neither this process nor its terminal or pipes alive.
 *
 * @param onError - told when the janitor could not be started
 */
export function startJanitor(segmentPath: string, onError: (error: Error) => void): Janitor {
  const janitor = spawn(`${nativeFolder}mishap-janitor`, [segmentPath, String(process.pid)], {
    detached: true,
    stdio: "ignore",
    env: {},
  });
  const gone = new Promise<void>((resolve) => {
    janitor.once("exit", () => resolve());
    janitor.once("error", (error) => {
      onError(error);
      resolve();
    });
  });
  janitor.unref();
  return {
    pid: janitor.pid,
    dismiss: () => {
      janitor.ref();
      janitor.kill("SIGTERM");
      return gone;
    },
  };
}
