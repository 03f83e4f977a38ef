/**
 * Policies from a file that is watched while a run lasts: an edit changes the faults, all at once; an edit that is wrong
 * changes nothing and is said.
 */

import { loadPolicyFile } from "../policy/files.js";
import { loadPreset, nearest, type Policy, PolicyError, PRESETS, parsePolicy } from "../policy/index.js";
import { EditWatch } from "./edits.js";
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

/** Watches a source until {@link close}. */
export class SourceWatch {
  readonly path: string;
  readonly #watch: EditWatch;
  /** Edits that were followed. */
  count = 0;

  constructor(source: PolicySource, events: SourceEvents) {
    this.path = source.path;
    this.#watch = new EditWatch([source.path], (sure) => {
      try {
        events.changed(source.read());
        this.count += 1;
        return true;
      } catch (error) {
        if (sure) events.refused(error instanceof Error ? error.message : String(error));
        return false;
      }
    });
  }

  close(): void {
    this.#watch.close();
  }
}
