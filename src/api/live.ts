/**
 * Policies from a file that is watched while a run lasts: an edit changes the faults, all at once; an edit that is wrong
 * changes nothing and is said.
 */

import { statSync, watch } from "node:fs";
import { dirname } from "node:path";
import { loadPolicyFile } from "../policy/files.js";
import { loadPreset, nearest, type Policy, PolicyError, PRESETS, parsePolicy } from "../policy/index.js";
import type { RunPolicies } from "./published.js";

/** Where a run's policies come from, and how they are read again. */
export interface PolicySource {
  readonly path: string;
  /** Throws a PolicyError for what is wrong with the file. */
  read(): RunPolicies;
}

/**
 * A policy by name: of a file where there is one, else a preset.
 *
 * @throws PolicyError when there is none of that name.
 */
export function choosePolicy(name: string, policies?: ReadonlyMap<string, Policy>, path?: string): Policy {
  const found = policies?.get(name);
  if (found !== undefined) return found;
  if (Object.hasOwn(PRESETS, name)) return loadPreset(name);
  const close = nearest(name, [...(policies?.keys() ?? []), ...Object.keys(PRESETS)]);
  const where =
    path === undefined ? "there is no preset of that name" : `${path} has none of that name, and no preset has it`;
  throw new PolicyError("", `${where}; the nearest is ${close}`, name);
}

/**
 * The policies of a file.
 *
 * @param path - `.json`, `.yaml` or `.yml`
 * @param name - which of them is the run's own; without one, `flags` are
 * @param flags - what the command line asks for; beside a name its fields replace those of that policy
 */
export function policySource(path: string, name: string | undefined, flags: Policy): PolicySource {
  const read = (): RunPolicies => {
    const others = loadPolicyFile(path);
    if (name === undefined) return { own: flags, others };
    return { own: withFields(choosePolicy(name, others, path), flags), name, others };
  };
  return { path, read };
}

/** A policy with some of its fields replaced. */
export function withFields(policy: Policy, fields: Policy): Policy {
  return parsePolicy({ ...policy.written, ...fields.written });
}

/** What follows an edit. */
export interface SourceEvents {
  /** The file was read anew. May throw. */
  changed(policies: RunPolicies): void;
  /** The edit was wrong, in one sentence. */
  refused(problem: string): void;
}

/** Editors write in several steps: the file is read once it has been left alone for this long. */
const SETTLED_AFTER_MS = 15;
/** What is wrong after a step may be right after the next. */
const SURE_AFTER_MS = 60;

/** Watches a source until {@link close}. Its folder is watched, because editors put new files in old ones' places. */
export class SourceWatch {
  readonly #source: PolicySource;
  readonly #events: SourceEvents;
  readonly #close: () => void;
  #timer: NodeJS.Timeout | undefined;
  #seen: string;
  /** Edits that were followed. */
  count = 0;

  constructor(source: PolicySource, events: SourceEvents) {
    this.#source = source;
    this.#events = events;
    this.#seen = this.#state();
    const watcher = watch(dirname(source.path), { persistent: false }, () => this.#look());
    watcher.on("error", () => this.#look());
    this.#close = () => watcher.close();
  }

  get path(): string {
    return this.#source.path;
  }

  close(): void {
    this.#close();
    clearTimeout(this.#timer);
  }

  /** What tells one writing of the file from another. */
  #state(): string {
    const file = statSync(this.#source.path, { bigint: true, throwIfNoEntry: false });
    return file === undefined ? "" : `${file.dev}:${file.ino}:${file.size}:${file.mtimeNs}`;
  }

  #look(): void {
    const state = this.#state();
    if (state === this.#seen) return;
    this.#seen = state;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#read(false), SETTLED_AFTER_MS);
    this.#timer.unref();
  }

  #read(sure: boolean): void {
    try {
      this.#events.changed(this.#source.read());
      this.count += 1;
    } catch (error) {
      if (sure) this.#events.refused(error instanceof Error ? error.message : String(error));
      else this.#timer = setTimeout(() => this.#read(true), SURE_AFTER_MS).unref();
    }
  }
}
