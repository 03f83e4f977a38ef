/**
 * What `import … from "mishap"` offers: policies in code and the contexts, functions, threads and sockets they are put
 * on, inside a program that `mishap run` started; and, from outside, running a program under a policy, its evidence, and
 * ending runs. Parsing of arguments and printing live in src/cli; what a policy means lives in src/policy.
 */

export type { ExecutorChoice } from "../kernel/witness.js";
export { type Policy, PolicyError, type PolicyFields, type PolicyInput, parsePolicy } from "../policy/index.js";
export type { Determinism, EscapedFlow, Evidence, FaultEvidence } from "../report/schema.js";
export { renderEvidence } from "../report/text.js";
export { type AttachOptions, attach } from "./attach.js";
export {
  bindFd,
  clearFd,
  getThreadPolicy,
  type SocketLike,
  setProcessPolicy,
  setProjectPolicy,
  setThreadPolicy,
} from "./bindings.js";
export { type PolicyContext, policyContext } from "./context.js";
export { type Check, diagnose } from "./doctor.js";
export {
  burstLoss,
  connectionError,
  correlatedLoss,
  dns,
  downlink,
  type Faulting,
  fault,
  halfOpen,
  jitter,
  latency,
  packetDuplicate,
  packetLoss,
  packetReorder,
  payloadMutation,
  rate,
  sessionBudget,
  timeout,
  uplink,
} from "./fault.js";
export { configure, NotInterceptedError } from "./inside.js";
export { findProgram, type Program, ProgramError } from "./program.js";
export { defaultProject } from "./project.js";
export { getPolicy, listPolicies, loadPolicies, registerPolicy, unregisterPolicy } from "./registry.js";
export { RunError, type RunOptions, run, version } from "./run.js";
export type { ScriptOptions } from "./scripted.js";
export { stopRuns } from "./stop.js";
