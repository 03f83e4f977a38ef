/**
 * Policies: what a person asks for, checked and turned into the contract's form. Here live the schema, the units,
 * targets, schedules and the flags that stand for them. Here must not live: files, memory, processes, or anything
 * that carries a fault out.
 */

export { type CompiledPolicy, compile, type RowDirectionFields, type RowFields } from "./compile.js";
export { FAULTS } from "./contract.js";
export { PolicyError } from "./errors.js";
export { type AskedFault, type Direction, describeFaults } from "./faults.js";
export { type FlagValues, flagName, type PolicyFlag, policyFlags, policyFromFlags } from "./flags.js";
export { type ParsedPolicy, type Policy, type PolicyInput, parsePolicy, policySchema } from "./schema.js";
export { parseTarget, type TargetFields, type TargetInput, targetFromFlag } from "./targets.js";
export {
  formatDuration,
  formatProbability,
  formatRate,
  formatSize,
  parseDuration,
  parseProbability,
  parseRate,
  parseSeed,
  parseSize,
} from "./units.js";
