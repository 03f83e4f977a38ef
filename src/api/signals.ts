/**
 * Signals during a run. What is sent to mishap alone is meant for the program and is passed on; what the terminal sends
 * reaches the whole foreground group by itself, so it is only survived here. Either way the run ends in order: nothing
 * a signal does leaves the segment behind.
 */

import { readFileSync } from "node:fs";
import { constants } from "node:os";

const FORWARDED = ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const;
const SENT_BY_TERMINALS: ReadonlySet<NodeJS.Signals> = new Set(["SIGINT", "SIGQUIT", "SIGWINCH"]);

/** Passes signals on to a program from before it exists to after it ended. */
export class SignalRelay {
  readonly #handlers = new Map<NodeJS.Signals, () => void>();
  readonly #waiting: NodeJS.Signals[] = [];
  #pid: number | undefined;

  constructor() {
    for (const signal of FORWARDED) {
      const handler = (): void => this.#receive(signal);
      this.#handlers.set(signal, handler);
      process.on(signal, handler);
    }
  }

  /** The program is there: it gets what came since the start, and what comes. */
  forwardTo(pid: number): void {
    this.#pid = pid;
    for (const signal of this.#waiting.splice(0)) send(pid, signal);
  }

  /** The program is gone; signals are survived, no longer passed on. */
  stopForwarding(): void {
    this.#pid = undefined;
  }

  /** Back to how signals were. */
  close(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }

  #receive(signal: NodeJS.Signals): void {
    if (SENT_BY_TERMINALS.has(signal) && inForeground()) return;
    if (this.#pid === undefined) this.#waiting.push(signal);
    else send(this.#pid, signal);
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended just now, or changed its user: then the signal was not ours to deliver.
  }
}

/** Whether this process group is the one its terminal's keys go to (proc(5), stat fields 5 and 8). */
function inForeground(): boolean {
  const fields = readFileSync("/proc/self/stat", "latin1")
    .replace(/^.*\) /s, "")
    .split(" ");
  return fields[2] === fields[5];
}

/** The shell's number for a program that a signal ended. */
export function signalExitCode(signalNumber: number): number {
  return 128 + signalNumber;
}

/** `SIGTERM` for 15. */
export function signalName(signalNumber: number): string {
  const found = Object.entries(constants.signals).find(([, number]) => number === signalNumber);
  return found?.[0] ?? `signal ${signalNumber}`;
}
