/**
 * Whether this process is under the interceptor, and the segment of its run as seen from inside. What only makes sense
 * there (contexts, bindings, faulted functions) asks here first.
 */

import { isMainThread } from "node:worker_threads";
import { native, Segment } from "../segment/index.js";

/** A fault was asked for in a process that no run of mishap has started. */
export class NotInterceptedError extends Error {
  override readonly name = "NotInterceptedError";

  constructor(what: string) {
    super(
      `${what}: this process is not under the interceptor; start it with \`mishap run -- node app.js\`, or let this do nothing with configure({ strict: false }) or MISHAP_STRICT=0`,
    );
  }
}

let strict = process.env.MISHAP_STRICT !== "0";
let found: { readonly segment: Segment | undefined } | undefined;

/**
 * How the API behaves in this thread.
 *
 * @param options.strict - whether entering a context, binding and calling a faulted function throw
 * {@link NotInterceptedError} in a process that is not under the interceptor; otherwise they do nothing there. True at
 * first, unless `MISHAP_STRICT` is `0`.
 */
export function configure(options: { readonly strict: boolean }): void {
  strict = options.strict;
}

/** The segment of the run that this process is part of; undefined where there is no interceptor. */
export function runSegment(): Segment | undefined {
  if (found === undefined) {
    const path = native.intercepted();
    found = { segment: path === undefined ? undefined : Segment.open(path) };
  }
  return found.segment;
}

/** The same for `what` cannot do without: throws {@link NotInterceptedError}; undefined only where that is allowed. */
export function requireSegment(what: string): Segment | undefined {
  const segment = runSegment();
  if (segment === undefined && strict) throw new NotInterceptedError(what);
  return segment;
}

/** Does something when the calling thread ends and the process goes on. */
export function atThreadExit(action: () => void): void {
  if (!isMainThread) process.once("exit", action);
}
