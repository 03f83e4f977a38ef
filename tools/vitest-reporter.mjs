// A vitest reporter that leaves what test.mjs adds up in the file named by MISHAP_VITEST_COUNTS: the numbers of tests
// passed, failed and skipped, and each skip with the reason its test gave to skip().
import { writeFileSync } from "node:fs";

export default class CountsReporter {
  onTestRunEnd(modules, errors) {
    const counts = { passed: 0, failed: errors.length, skipped: 0, skips: [] };
    for (const module of modules) {
      // A file or suite that could not even be collected holds no tests to count.
      counts.failed += module.errors().length;
      for (const suite of module.children.allSuites()) counts.failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") counts.passed++;
        else if (result.state === "failed") counts.failed++;
        else {
          counts.skipped++;
          counts.skips.push(`${module.relativeModuleId} > ${test.fullName}: ${result.note ?? "no reason given"}`);
        }
      }
    }
    writeFileSync(process.env.MISHAP_VITEST_COUNTS, JSON.stringify(counts));
  }
}
