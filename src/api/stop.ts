/** Ending faults from outside a run: retires segments, which every interceptor sees at once. */

import { projectId, Segment, type SegmentSummary } from "../segment/index.js";

/** Ends the faults of this user's runs, of one project or, without one, of all; answers which. */
export function stopRuns(project?: string): SegmentSummary[] {
  const wanted = project === undefined ? undefined : projectId(project);
  const stopped: SegmentSummary[] = [];
  for (const summary of Segment.list()) {
    if (summary.state === "retired" || (wanted !== undefined && summary.project !== wanted)) continue;
    try {
      const segment = Segment.open(summary.path);
      segment.retire();
      segment.close({ unlink: false });
      stopped.push(summary);
    } catch {
      // It ended by itself meanwhile.
    }
  }
  return stopped;
}
