/**
 * Policies: what a person asks for, checked and turned into the contract's form and back. Here live the schema, the
 * units, targets, schedules, the flags that stand for them, policies in files (files.ts, which its users load for
 * themselves because it brings a parser of YAML), and presets. Here must not live: memory, processes, or anything that
 * carries a fault out.
 */

export { type Camelized, camelPath, type PolicyFields, parseFields, toCamelKeys, toSnakeKeys } from "./camel.js";
export { type CompiledPolicy, compile, type RowDirectionFields, type RowFields } from "./compile.js";
export { FAULTS } from "./contract.js";
export { decompile, normalForm } from "./decompile.js";
export { nearest, PolicyError } from "./errors.js";
export { type AskedFault, type Direction, describeFaults, everyFault } from "./faults.js";
export { type FlagValues, flagName, type PolicyFlag, policyFlags, policyFromFlags } from "./flags.js";
export { loadPreset, PRESETS, type Preset } from "./presets.js";
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
