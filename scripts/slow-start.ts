// A service that comes back from an outage slowly: refused at first, then late, and less late from second to second.
//
// Options: down=1000 (milliseconds of refusal), warm=5000 (milliseconds until it is as fast as ever), slow=800 (milliseconds).
import { policy } from "mishap/script";

export default policy({
  name: "slow-start",
  onOp(op, ctx) {
    const option = (name: string, usual: number): number => Number(ctx.options[name] ?? usual);
    const [down, warm] = [option("down", 1000), option("warm", 5000)];
    if (ctx.now() < down) return op.kind === "connect" ? { connectionError: { kind: "refused" } } : undefined;
    const cold = 1 - (ctx.now() - down) / warm;
    if (cold <= 0 || op.kind !== "recv") return undefined;
    return { latency: `${Math.round(cold * option("slow", 800))}ms` };
  },
});
