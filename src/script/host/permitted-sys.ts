/**
 * What a script may know about the system: functions of node:os ask the broker, which answers what was granted, also where
 * the jail would have nothing to find it out by. Some of it the kernel tells anybody who asks otherwise.
 */

import os from "node:os";
import { SYSTEM_FACTS } from "../asks.js";
import type { Questions } from "./questions.js";

/** Changes node:os in this thread. Its ESM names follow when they are synchronised. */
export function permitSystem(questions: Questions): void {
  const calls = os as unknown as Record<string, () => unknown>;
  for (const fact of SYSTEM_FACTS) {
    calls[fact] = () => JSON.parse(questions.ask({ ask: "sys", fact }).value ?? "null");
  }
}
