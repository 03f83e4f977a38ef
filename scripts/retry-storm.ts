// Detects retry storms: refuses connects, and stops as soon as clients connect faster instead of backing off.
//
// Options: refused=0.5 (share of connects), limit=20 (connects a second that are a storm), calm=5000 (milliseconds of rest).
import { policy } from "mishap/script";

export default policy({
  name: "retry-storm",
  tickMs: 1000,
  state: () => ({ connects: 0, calmUntilMs: 0 }),
  onTick({ total }, ctx) {
    const rate = total.connects - ctx.state.connects;
    ctx.state.connects = total.connects;
    ctx.metrics.gauge("connects a second", rate);
    if (rate < Number(ctx.options.limit ?? 20)) return undefined;
    ctx.state.calmUntilMs = ctx.now() + Number(ctx.options.calm ?? 5000);
    ctx.metrics.count("retry storms");
    ctx.log(`${rate} connects in a second: a retry storm, so nothing is refused for a while`);
    return undefined;
  },
  onOp(op, ctx) {
    if (op.kind !== "connect" || ctx.now() < ctx.state.calmUntilMs) return undefined;
    return ctx.random() < Number(ctx.options.refused ?? 0.5) ? { connectionError: { kind: "refused" } } : undefined;
  },
});
