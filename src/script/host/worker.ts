/** What a worker of the host's pool does: it has one script, and each task loads it or asks it. */

import { register } from "node:module";
import type { Loaded, LoadOptions, Question, Reply, Said, ScriptProblem } from "../questions.js";
import { Instance } from "./instance.js";
import { problemOf } from "./problems.js";

/** A task of the pool. */
export type Task =
  | { readonly kind: "load"; readonly load: LoadOptions; readonly version: number }
  | { readonly kind: "ask"; readonly question: Question };

/** What came of a load. */
export type LoadResult =
  | { readonly loaded: Loaded; readonly said: readonly Said[] }
  | { readonly problem: ScriptProblem };

register(new URL("./loader.js", import.meta.url));

// A script that ends its process ends nothing but its own hook: it is told so where it did it.
const refuseExit = (): never => {
  throw new Error("process.exit: a script cannot end its host; return from the hook instead");
};
Object.defineProperty(process, "exit", { value: refuseExit });
Object.defineProperty(process, "reallyExit", { value: refuseExit });

let instance: Instance | undefined;

export default async function run(task: Task): Promise<LoadResult | Reply> {
  if (task.kind === "load") return load(task.load, task.version);
  if (instance === undefined) throw new Error("the script is not loaded");
  return instance.ask(task.question);
}

/** A version that does not load leaves the one before in its place. */
async function load(options: LoadOptions, version: number): Promise<LoadResult> {
  try {
    instance = await Instance.load(options, version, instance);
    return { loaded: instance.loaded, said: instance.takeSaid() };
  } catch (error) {
    return { problem: problemOf(error, "", { file: options.script, line: 1, column: 1 }) };
  }
}
