/**
 * The vitest plugin: a session around vitest's workers, started before the first of them and closed with vitest. Only
 * the workers get its environment; vitest itself, its servers and its watcher are not intercepted.
 */

import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vitest/config";
import type { TestProject, Vitest } from "vitest/node";
import { EscapeWatch } from "../api/escapes.js";
import { choosePolicy, type PolicySource, policySource, withFields } from "../api/live.js";
import { attachedProcesses, version } from "../api/run.js";
import { Session } from "../api/session.js";
import { type Policy, type PolicyFields, parseFields } from "../policy/index.js";
import { readRunCounters } from "../report/counters.js";
import { buildEvidence } from "../report/evidence.js";
import type { EscapedFlow, Evidence } from "../report/schema.js";
import { renderEvidence } from "../report/text.js";
import { native } from "../segment/index.js";

/** What {@link faults} takes. */
export interface FaultsOptions {
  /**
   * A policy file (`.json`, `.yaml`, `.yml`), by its path from vitest's root: all tests know its policies by name.
   * While vitest watches, an edit of it is in force at once and runs the tests again.
   */
  readonly policies?: string;
  /** What every test meets without asking: a policy of the file or a preset by name, or fields. Default: nothing. */
  readonly policy?: string | PolicyFields;
  /** Repeats the chance of an earlier run, whose evidence says its seed: a number, decimal or 0x text. */
  readonly seed?: number | string;
  /** No evidence after vitest's summary. */
  readonly quiet?: boolean;
}

/** A plugin as vitest's `plugins` takes it. */
export type FaultsPlugin = Pick<Plugin, "name" | "config" | "configureVitest">;

/** Pools whose workers are processes; the others stay inside vitest's own, or in a browser. */
const PROCESS_POOLS = ["forks", "vmForks"];
/** This package's code, which workers load once as it is, wherever it is installed or linked. */
const OWN_FOLDER = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Puts vitest's workers under the interceptor, and prints the evidence of the whole run after vitest's summary when there
 * was anything to fault. For `plugins: [faults()]` in `vitest.config.ts`. Under `mishap run` it leaves everything to that
 * run.
 *
 * @throws PolicyError, as vitest starts, for what is wrong with the file, the policy or the seed
 */
export function faults(options: FaultsOptions = {}): FaultsPlugin {
  return {
    name: "mishap",
    config: () => ({ test: { server: { deps: { external: [startingWith(OWN_FOLDER)] } } } }),
    configureVitest: async ({ vitest, project }) => {
      if (native.intercepted() !== undefined) return leaveToRun(vitest, options);
      requireProcesses(project);
      const workers = await startOnce(vitest, options);
      project.config.env = { ...project.config.env, ...workers.environment(project.config.env) };
    },
  };
}

function leaveToRun({ logger }: Vitest, { policies, policy }: FaultsOptions): void {
  if (policies === undefined && policy === undefined) return;
  const asked = `--policies ${policies ?? "FILE"}${typeof policy === "string" ? ` --policy ${policy}` : ""}`;
  logger.error(
    `mishap: vitest is under mishap run, whose policies hold; there, ${asked} stands for what faults() asks`,
  );
}

function startingWith(folder: string): RegExp {
  return new RegExp(`^${folder.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}/`);
}

function requireProcesses({ config }: TestProject): void {
  const pool = config.browser?.enabled ? "browser" : config.pool;
  if (PROCESS_POOLS.includes(pool)) return;
  throw plain(
    `mishap/vitest: pool "${pool}" has no processes of its own to put under the interceptor; use "forks", vitest's default`,
  );
}

/** One session for all projects of a vitest whose options are alike. */
const running = new WeakMap<Vitest, Map<string, Promise<Workers>>>();

function startOnce(vitest: Vitest, options: FaultsOptions): Promise<Workers> {
  const known = running.get(vitest) ?? new Map<string, Promise<Workers>>();
  running.set(vitest, known);
  const key = JSON.stringify(options);
  const workers = known.get(key) ?? Workers.start(vitest, options);
  known.set(key, workers);
  vitest.onClose(() => void known.delete(key)); // a changed config starts over in the same vitest
  return workers;
}

/** A session, and what belongs to it while vitest runs. */
class Workers {
  readonly #vitest: Vitest;
  readonly #session: Session;
  readonly #escaped: EscapedFlow[] = [];
  readonly #hidden: string[] = [];
  readonly #startedMs = performance.now();
  readonly #close = (): void => this.close();
  #escapes: EscapeWatch | undefined;
  #runs = 0;

  static async start(vitest: Vitest, options: FaultsOptions): Promise<Workers> {
    try {
      const session = await Session.start({
        policy: policyOf(vitest.config.root, options),
        notice: (sentence) => vitest.logger.error(`mishap: ${sentence}`),
      });
      return new Workers(vitest, session, options);
    } catch (error) {
      throw plain(error);
    }
  }

  private constructor(vitest: Vitest, session: Session, { policies, quiet = false }: FaultsOptions) {
    this.#vitest = vitest;
    this.#session = session;
    if (policies !== undefined) vitest.config.forceRerunTriggers.push(resolve(vitest.config.root, policies));
    vitest.config.reporters.push({
      onTestRunStart: () => this.#begin(),
      onTestRunEnd: () => {
        this.#end();
        if (!quiet) this.#print();
      },
    });
    vitest.onClose(this.#close);
    process.once("exit", this.#close);
  }

  /** The variables that put a worker under the interceptor. */
  environment(base: Readonly<Record<string, unknown>> | undefined): Record<string, string> {
    const others = base?.LD_PRELOAD ?? process.env.LD_PRELOAD;
    return this.#session.environment({ LD_PRELOAD: typeof others === "string" ? others : undefined });
  }

  close(): void {
    process.off("exit", this.#close);
    this.#end();
    this.#session.close();
  }

  #begin(): void {
    const { segment } = this.#session;
    this.#runs += 1;
    // There is no process that all come from: workers are known by their environment.
    this.#escapes ??= new EscapeWatch(0, segment.path, () => attachedProcesses(segment), false);
  }

  #end(): void {
    if (this.#escapes === undefined) return;
    this.#escaped.push(...this.#escapes.stop());
    this.#hidden.push(...this.#escapes.notes);
    this.#escapes = undefined;
  }

  #print(): void {
    const evidence = this.#evidence();
    if (evidence.faults.length === 0) return;
    const { errorStream } = this.#vitest.logger;
    const colour = "isTTY" in errorStream && errorStream.isTTY === true && !process.env.NO_COLOR;
    errorStream.write(`${renderEvidence(evidence, { colour })}\n`);
  }

  #evidence(): Evidence {
    const session = this.#session;
    const earlier = this.#runs > 1 ? [`this is of all ${this.#runs} runs since vitest was started`] : [];
    const facts = {
      version: version(),
      command: ["vitest", ...process.argv.slice(2)],
      seed: session.seed,
      exitCode: Number(process.exitCode ?? 0),
      durationMs: performance.now() - this.#startedMs,
      policies: session.policies(),
      escaped: this.#escaped,
      unreachable: undefined,
      notes: [...session.notes, ...this.#hidden, ...earlier],
    };
    return buildEvidence(facts, readRunCounters(session.segment));
  }
}

function policyOf(root: string, { policies, policy, seed }: FaultsOptions): Policy | PolicySource {
  const fields = typeof policy === "string" ? {} : policy;
  const own = parseFields({ ...fields, ...(seed !== undefined && { seed }) });
  const name = typeof policy === "string" ? policy : undefined;
  if (policies !== undefined) return policySource(resolve(root, policies), name, own);
  return name === undefined ? own : withFields(choosePolicy(name), own);
}

/** vitest prints all that an error in its configuration has, where a sentence is all there is to say. */
function plain(error: unknown): Error {
  const sentence = error instanceof Error ? error.message : String(error);
  return Object.assign(new Error(sentence), { stack: sentence });
}
