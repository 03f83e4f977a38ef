/**
 * A policy that one test alone has, and the evidence of what it did, read from inside the worker that runs the test. Tests
 * that ask for the same policy have copies of it, so that none counts what another did.
 */

import { publishAt } from "../api/compiled.js";
import type { Source } from "../api/context.js";
import { displayName } from "../api/registry.js";
import { version } from "../api/run.js";
import { compile, describeFaults, type Policy, PolicyError } from "../policy/index.js";
import { type PolicyCounters, readPolicyCounters, readRunCounters } from "../report/counters.js";
import { buildEvidence } from "../report/evidence.js";
import type { Evidence } from "../report/schema.js";
import type { Segment } from "../segment/index.js";

const VERSION = version();

/** What evidence says beside counters. */
export interface TestFacts {
  /** Whose evidence it is: file and name of the test. */
  readonly command: readonly string[];
  readonly durationMs: number;
}

/** In force while its test runs; what it did stays readable until the run needs its slot. */
export class TestPolicy implements Source {
  readonly #name: string | undefined;
  readonly #resolve: (segment: Segment) => Policy;
  #held: { readonly segment: Segment; readonly slot: number; readonly policy: Policy } | undefined;

  /**
   * @param name - undefined where the test gave fields
   * @param resolve - the policy, asked when the test begins; may throw
   */
  constructor(name: string | undefined, resolve: (segment: Segment) => Policy) {
    this.#name = name;
    this.#resolve = resolve;
  }

  enter(segment: Segment): void {
    const policy = this.#resolve(segment);
    const seed = runSeed(segment);
    // In braces, as inline policies are: the registry takes it for no name.
    const shown = this.#name === undefined ? displayName(policy) : `{${this.#name}}`;
    const compiled = compile(shown, policy, { runSeed: seed });
    const slot = segment.claimPolicy();
    if (slot < 0) throw new PolicyError("test.withFaults", "the run has no room for another policy; unregister some");
    publishAt(segment, slot, compiled);
    this.#held = { segment, slot, policy };
  }

  leave(segment: Segment): void {
    if (this.#held !== undefined) segment.releasePolicy(this.#held.slot);
  }

  index(): number | undefined {
    return this.#held?.slot;
  }

  /**
   * What the test met so far. Faults, stages, flows and ops are its own; determinism, and what passed through unfaulted,
   * are known of the whole run only.
   */
  evidence(facts: TestFacts): Evidence {
    if (this.#held === undefined) return unfaulted(facts);
    const { segment, slot, policy } = this.#held;
    const counters = readPolicyCounters(segment, [slot]);
    const known = {
      ...facts,
      version: VERSION,
      seed: runSeed(segment),
      exitCode: 0,
      policies: [{ name: this.#name, policy, slots: [slot], asked: describeFaults(policy), counters }],
      escaped: [],
      unreachable: undefined,
      notes: [],
    };
    const evidence = buildEvidence(known, { ...readRunCounters(segment), all: counters });
    const flows = segment.flows().filter((flow) => flow.policy === slot).length;
    return { ...evidence, flows, ops: opsOf(counters) };
  }
}

/** A test that ran without the interceptor, where that is allowed. */
function unfaulted({ command, durationMs }: TestFacts): Evidence {
  return {
    version: VERSION,
    command: [...command],
    seed: "0x0",
    determinism: { level: "exact", reason: "nothing was faulted" },
    exit_code: 0,
    duration_ms: Math.round(durationMs),
    flows: 0,
    ops: 0,
    faults: [],
    stages: {},
    escaped: [],
    fallbacks: {},
    notes: ["nothing was faulted: the test ran without the interceptor, as MISHAP_STRICT=0 or configure allows"],
  };
}

function opsOf({ ops, connects, lookups }: PolicyCounters): number {
  return ops.uplink + ops.downlink + connects + lookups;
}

function runSeed(segment: Segment): bigint {
  const { run_seed } = segment.header();
  return typeof run_seed === "bigint" ? run_seed : 0n;
}
