// A service that browns out: for part of every period answers are slow, and some connections are refused.
//
// Options: period=10000 and length=4000 (milliseconds), slow=400 (milliseconds, at most), refused=0.2 (share of connects).
import { policy } from "mishap/script";

export default policy({
  name: "brownout",
  onOp(op, ctx) {
    const option = (name: string, usual: number): number => Number(ctx.options[name] ?? usual);
    if (ctx.now() % option("period", 10_000) >= option("length", 4000)) return undefined;
    ctx.metrics.count("ops in a brownout");
    if (op.kind === "connect" && ctx.random() < option("refused", 0.2)) return { connectionError: { kind: "refused" } };
    if (op.kind === "recv") return { latency: `${Math.round(ctx.random() * option("slow", 400))}ms` };
    return undefined;
  },
});
