// One replica of several fails in a way that health checks miss: it connects at once, and answers late.
//
// Option: address=10.0.0.2; without it, the first peer that is seen. slow=2000 (milliseconds).
import { policy } from "mishap/script";

export default policy({
  name: "gray-replica",
  state: () => ({ address: "" }),
  onFlow(flow, ctx) {
    ctx.state.address ||= ctx.options.address ?? flow.peer.address;
    if (flow.peer.address !== ctx.state.address) return undefined;
    ctx.metrics.count("flows to the gray replica");
    return { downlink: { latency: `${ctx.options.slow ?? 2000}ms` } };
  },
});
