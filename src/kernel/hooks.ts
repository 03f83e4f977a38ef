/**
 * The kernel's hooks as a user sees them: whether each works here, asked of the loader, and what is missing without it.
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { explainStderr, LOADER_PATH } from "./loader.js";
import { type KernelHook, type KernelProbe, parseProbe } from "./words.js";

/** What a run or a watch goes without where a hook of this purpose is missing. */
export const WITHOUT: Readonly<Record<KernelHook["for"], string>> = {
  ownership: "whose a socket is, is known from its first use at best, not from its creation, and its end may go unseen",
  claims: "coverage cannot tell what the interceptor carries, and delays on the way out are not witnessed",
  bytes: "what flows move is not seen: no rates, no coverage, no witnessed delays",
  states: "connections are seen without their states: opening, established, closing",
  arrivals:
    "arrivals are dated by the receiving socket's own timestamps, as without the kernel's side, and round trips are " +
    "known only of flows that are closed",
  retransmits: "segments that TCP sent again are not counted",
  resets: "connections that end by a reset are not told from others",
  inbound: "the relay carries what programs connect, and not what they accept",
  silence: "`mishap attach` cannot silence connections that were there before",
  redirection: "there is no relay: what the interceptor cannot enter runs unfaulted",
};

const PATIENCE_MS = 20_000;

/**
 * Has the loader try every hook, with the rights of this process.
 *
 * @throws {Error} one sentence: why the loader itself did not start
 */
export function probeHooks(): KernelProbe {
  if (!existsSync(LOADER_PATH)) throw new Error(`${LOADER_PATH} is not there`);
  const { error, status, signal, stdout, stderr } = spawnSync(LOADER_PATH, ["probe"], {
    encoding: "utf8",
    timeout: PATIENCE_MS,
    env: {},
  });
  if (error !== undefined) throw new Error(error.message);
  if (status !== 0) throw new Error(explainStderr(stderr, false) ?? `it ended with ${signal ?? `status ${status}`}`);
  return parseProbe(stdout);
}
