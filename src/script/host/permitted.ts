/**
 * What a script sees of its permissions: Node's own functions work for what was granted, and say which flag is missing
 * for the rest. It is called in a worker before the script is loaded. This is for convenience and not the boundary: who
 * gets around it meets the jail.
 */

import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import { permitFiles } from "./permitted-fs.js";
import { permitNetwork } from "./permitted-net.js";
import { permitSystem } from "./permitted-sys.js";
import { Questions } from "./questions.js";

export { PermissionDenied } from "../denied.js";

/** Where the broker is. */
export interface PermittedOptions {
  /** This process's end of the broker's socket. */
  readonly brokerFd: number;
  /** The variables that were granted. */
  readonly variables: Readonly<Record<string, string>>;
}

type Call = (...args: unknown[]) => unknown;

/** Makes Node's own functions go by the permissions, in this thread. */
export function permit({ brokerFd, variables }: PermittedOptions): void {
  const questions = new Questions(brokerFd);
  permitVariables(questions, variables);
  permitFiles(questions);
  permitNetwork(questions);
  permitPrograms(questions);
  permitSystem(questions);
  syncBuiltinESMExports();
}

/** The line of a stack for Node's own modules, and for what the language brings. */
const NOT_THE_SCRIPTS = /\bnode:|\(<anonymous>\)/;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,254}$/;

/** Variables: the granted ones are there, others are asked for when they are read. */
function permitVariables(questions: Questions, variables: PermittedOptions["variables"]): void {
  const own = process.env;
  for (const name of Object.keys(own)) delete own[name];
  Object.assign(own, variables);
  process.env = new Proxy(own, {
    get: (target, name) => {
      if (typeof name !== "string" || name in target || !NAME.test(name)) return Reflect.get(target, name);
      // Node looks for variables of its own, which are just not there.
      const [, , caller = ""] = new Error().stack?.split("\n") ?? [];
      if (NOT_THE_SCRIPTS.test(caller)) return undefined;
      return questions.ask({ ask: "env", name }).value;
    },
    set: (target, name, value) => Reflect.set(target, name, value), // a variable takes no other receiver
  });
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
