/** What a worker of the host's pool does: it has one script, and each task loads it or asks it. */

import { register } from "node:module";
import { MessageChannel, parentPort } from "node:worker_threads";
import {
  type Asked,
  BROKER_FD,
  type Loaded,
  type LoadOptions,
  type News,
  type Question,
  type Reply,
  type Said,
  type ScriptProblem,
} from "../questions.js";
import { statsOf } from "./flows.js";
import { Instance } from "./instance.js";
import { Newsletter } from "./news.js";
import { permit } from "./permitted.js";
import { problemOf } from "./problems.js";

/** A task of the pool. */
export type Task =
  | { readonly kind: "load"; readonly load: LoadOptions; readonly version: number }
  | { readonly kind: "ask"; readonly question: Question }
  /** Answers programs at a lane of the mailbox, and never ends by itself. Sends {@link News} meanwhile. */
  | {
      readonly kind: "serve";
      readonly lane: number;
      readonly lanes: number;
      readonly seed: string;
      readonly recorded: boolean;
    }
  /** What came of that and was not sent yet. */
  | { readonly kind: "news" };

/** What came of a load. */
export type LoadResult =
  | { readonly loaded: Loaded; readonly said: readonly Said[] }
  | { readonly problem: ScriptProblem };

// Modules are loaded by a thread of their own, which asks here for what files hold.
let sources: LoadOptions["sources"] = {};
const channel = new MessageChannel();
channel.port1.on("message", (file: string) => channel.port1.postMessage(sources[file]));
channel.port1.unref();
const given = { data: channel.port2, transferList: [channel.port2] };
register(new URL("./loader.js", import.meta.url), given);

// A script that ends its process ends nothing but its own hook: it is told so where it did it.
const refuseExit = (): never => {
  throw new Error("process.exit: a script cannot end its host; return from the hook instead");
};
Object.defineProperty(process, "exit", { value: refuseExit });
Object.defineProperty(process, "reallyExit", { value: refuseExit });

let instance: Instance | undefined;
let permitted = false;

const newsletter = new Newsletter((news) => parentPort?.postMessage(news));

export default async function run(task: Task): Promise<LoadResult | Reply | News> {
  if (task.kind === "load") return load(task.load, task.version);
  if (task.kind === "news") return newsletter.take();
  if (task.kind === "serve") {
    const { serveLane } = await import("./lane.js");
    return serveLane(task, ask, newsletter);
  }
  const { question } = task;
  if (question.kind !== "run_tick") return ask(question);
  return ask({ kind: "tick", atMs: question.atMs, stats: statsOf(question.counts) });
}

function ask(question: Asked): Reply {
  if (instance === undefined) throw new Error("the script is not loaded");
  return instance.ask(question);
}

/** A version that does not load leaves the one before in its place. */
async function load(options: LoadOptions, version: number): Promise<LoadResult> {
  const before = sources;
  if (!permitted) permit({ brokerFd: BROKER_FD, variables: options.variables });
  permitted = true;
  try {
    sources = options.sources;
    instance = await Instance.load(options, version, instance);
    return { loaded: instance.loaded, said: instance.takeSaid() };
  } catch (error) {
    sources = before;
    return { problem: problemOf(error, "", { file: options.script, line: 1, column: 1 }) };
  }
}
