/**
 * What `import … from "mishap/vitest"` offers: the plugin that puts vitest's workers under the interceptor, `test` with
 * tests under a policy, and `expect` with matchers over evidence.
 */

import { expect } from "vitest";
import { matchers } from "./matchers.js";

expect.extend(matchers);

export type { AppliedOptions, EvidenceSource, FaultName } from "./matchers.js";
export { type FaultsOptions, faults } from "./plugin.js";
export { type Faults, type FaultTest, type FaultTestAPI, faultable, test } from "./test.js";
export { expect };
