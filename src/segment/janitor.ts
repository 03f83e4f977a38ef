/** The janitor: a detached program that removes a run's segment when the run cannot. */

import { spawn } from "node:child_process";
import { nativeFolder } from "./native.js";

/**
 * Starts the janitor for a segment that this process is about to make. When this process ends, it stays until no program
 * of the run lives and then removes the segment, where it is still there. It keeps neither this process nor its terminal
 * or pipes alive.
 *
 * @param onError - told when the janitor could not be started
 */
export function startJanitor(segmentPath: string, onError: (error: Error) => void): void {
  const janitor = spawn(`${nativeFolder}mishap-janitor`, [segmentPath, String(process.pid)], {
    detached: true,
    stdio: "ignore",
    env: {},
  });
  janitor.once("error", onError);
  janitor.unref();
}
