/** Tests under a policy: `test.withFaults(…)`, each with a context, a copy of the policy, and evidence of its own. */

import { type TestAPI, type TestFunction, type TestOptions, test as vitestTest } from "vitest";
import { type PolicyContext, runInside } from "../api/context.js";
import { NotInterceptedError, requireSegment } from "../api/inside.js";
import { getPolicy, requirePolicy } from "../api/registry.js";
import { type Policy, type PolicyFields, parseFields } from "../policy/index.js";
import type { Evidence } from "../report/schema.js";
import type { Segment } from "../segment/index.js";
import { TestPolicy } from "./evidence.js";

/** What a test under a policy gets as `faults`: its context, with its pools, and its evidence. */
export type Faults = PolicyContext & {
  /** What this test met so far, asked against delivered. To be read before the next test begins. */
  evidence(): Evidence;
};

type Body<Extra> = TestFunction<Extra & { readonly faults: Faults }>;

/** Defines tests as vitest's `test` does; their body has `faults` beside its fixtures. */
export interface FaultTest<Extra = object> {
  (name: string, body: Body<Extra>, timeout?: number): void;
  (name: string, options: TestOptions, body: Body<Extra>): void;
  readonly concurrent: FaultTest<Extra>;
  readonly fails: FaultTest<Extra>;
  readonly only: FaultTest<Extra>;
  readonly sequential: FaultTest<Extra>;
  readonly skip: FaultTest<Extra>;
}

/** A `test` of vitest's that knows `withFaults`. */
export type FaultTestAPI<Extra = object> = TestAPI<Extra> & {
  /**
   * Tests whose body runs inside a policy: what it opens and looks up is faulted. Hooks and fixtures are outside.
   *
   * @param policy - a name, looked up when a test begins, or fields
   * @throws PolicyError for a bad field, at once
   */
  withFaults(policy: string | PolicyFields): FaultTest<Extra>;
};

type Chain<Extra> = TestAPI<Extra>["only"];

const NOT_SET_UP = `test.withFaults: the workers are not under the interceptor; add plugins: [faults()] to vitest.config.ts, with import { faults } from "mishap/vitest", or set MISHAP_STRICT=0 to run without faults`;

/** Gives `withFaults` to a `test` of vitest's, such as one that was extended with fixtures; it is otherwise as it was. */
export function faultable<Extra>(test: TestAPI<Extra>): FaultTestAPI<Extra> {
  return Object.assign(test, {
    withFaults: (policy: string | PolicyFields) => testsUnder<Extra>(test, policyMaker(policy)),
  });
}

/** vitest's `test`, with `withFaults`. */
export const test: FaultTestAPI = faultable(vitestTest);

function policyMaker(policy: string | PolicyFields): () => TestPolicy {
  if (typeof policy === "string") return () => new TestPolicy(policy, (segment) => registered(segment, policy));
  const parsed = parseFields(policy);
  return () => new TestPolicy(undefined, () => parsed);
}

function registered(segment: Segment, name: string): Policy {
  requirePolicy(segment, name, "test.withFaults");
  return parseFields(getPolicy(name) ?? {});
}

function testsUnder<Extra>(chain: Chain<Extra>, makePolicy: () => TestPolicy): FaultTest<Extra> {
  const define = (name: string, second: TestOptions | Body<Extra>, third?: Body<Extra> | number): void => {
    const timeout = typeof third === "number" ? third : undefined;
    if (typeof second === "function") chain(name, inside(second, makePolicy), timeout);
    else chain(name, second, typeof third === "function" ? inside(third, makePolicy) : undefined);
  };
  const modifiers = {
    get concurrent() {
      return testsUnder(chain.concurrent, makePolicy);
    },
    get fails() {
      return testsUnder(chain.fails, makePolicy);
    },
    get only() {
      return testsUnder(chain.only, makePolicy);
    },
    get sequential() {
      return testsUnder(chain.sequential, makePolicy);
    },
    get skip() {
      return testsUnder(chain.skip, makePolicy);
    },
  };
  // Object.assign would ask each getter for its value, without end; this has no type for what it adds.
  return Object.defineProperties(define, Object.getOwnPropertyDescriptors(modifiers)) as typeof define &
    typeof modifiers;
}

/** The body with its policy around it. */
function inside<Extra>(body: Body<Extra>, makePolicy: () => TestPolicy): TestFunction<Extra> {
  const wrapped: TestFunction<Extra> = (context) => {
    requireWorker();
    const policy = makePolicy();
    const startedMs = performance.now();
    const { file, fullTestName } = context.task;
    const evidence = (): Evidence =>
      policy.evidence({ command: [file.name, fullTestName], durationMs: performance.now() - startedMs });
    return runInside(policy, "test.withFaults", (entered) =>
      body(Object.assign(context, { faults: Object.assign(entered, { evidence }) })),
    );
  };
  // vitest reads off a body's source which fixtures it wants.
  return Object.defineProperty(wrapped, "toString", { value: () => body.toString() });
}

/** Says what a project has to set up, rather than how to run a program. */
function requireWorker(): void {
  try {
    requireSegment("test.withFaults");
  } catch (error) {
    throw error instanceof NotInterceptedError ? new Error(NOT_SET_UP) : error;
  }
}
