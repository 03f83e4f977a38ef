/**
 * What a script sees of its permissions: Node's own functions work for what was granted, and say which flag is missing
 * for the rest. It is called in a worker before the script is loaded. This is for convenience and not the boundary: who
 * gets around it meets the jail.
 */

import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import { permitFiles } from "./permitted-fs.js";
import { permitNetwork } from "./permitted-net.js";
import { Questions } from "./questions.js";

export { PermissionDenied } from "../denied.js";

/** Where the broker is. */
export interface PermittedOptions {
  /** This process's end of the broker's socket. */
  readonly brokerFd: number;
  /** The names of the variables that were granted; no others exist from now on. */
  readonly variables: readonly string[];
}

type Call = (...args: unknown[]) => unknown;

/** Makes Node's own functions go by the permissions, in this thread. */
export function permit({ brokerFd, variables }: PermittedOptions): void {
  const questions = new Questions(brokerFd);
  for (const name of Object.keys(process.env)) {
    if (!variables.includes(name)) delete process.env[name];
  }
  permitFiles(questions);
  permitNetwork(questions);
  permitPrograms(questions);
  syncBuiltinESMExports();
}

/** Programs: what the kernel refuses is said in PermissionDenied. */
function permitPrograms(questions: Questions): void {
  const calls = childProcess as unknown as Record<string, Call>;
  const child = childProcess.ChildProcess.prototype as unknown as { spawn: Call };
  const { spawn } = child;
  child.spawn = function (this: NodeJS.EventEmitter, ...args) {
    const [options] = args as [{ file?: unknown }];
    const explain = (error: unknown): unknown => questions.explain(error, "run", String(options?.file));
    const emit = this.emit.bind(this);
    // Some refusals are told later, by an event.
    this.emit = (event, ...rest) => (event === "error" ? emit(event, explain(rest[0])) : emit(event, ...rest));
    try {
      return spawn.apply(this, args);
    } catch (error) {
      throw explain(error);
    }
  };
  for (const name of ["spawnSync", "execFileSync", "execSync"]) {
    const original = calls[name];
    if (original === undefined) continue;
    calls[name] = (...args) => {
      const program = name === "execSync" ? "/bin/sh" : String(args[0]);
      try {
        const result = original(...args);
        if (name !== "spawnSync") return result;
        const { error, ...rest } = result as { error?: unknown };
        return error === undefined ? result : { ...rest, error: questions.explain(error, "run", program) };
      } catch (error) {
        throw questions.explain(error, "run", program);
      }
    };
  }
}
