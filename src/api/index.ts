/**
 * What `import … from "mishap"` offers: running a program under a policy, its evidence, and ending runs. Parsing of
 * arguments and printing live in src/cli; what a policy means lives in src/policy.
 */

export { type Policy, PolicyError, type PolicyInput, parsePolicy } from "../policy/index.js";
export type { Determinism, EscapedFlow, Evidence, FaultEvidence } from "../report/schema.js";
export { renderEvidence } from "../report/text.js";
export { type Check, diagnose } from "./doctor.js";
export { findProgram, type Program, ProgramError } from "./program.js";
export { defaultProject } from "./project.js";
export { RunError, type RunOptions, run, version } from "./run.js";
export { stopRuns } from "./stop.js";
