// Name servers that disagree: half of the threads cannot find some names that the others find.
//
// Option: names=server-1.test,server-2.test; without it, every name.
import { policy } from "mishap/script";

const hash = (text: string): number => [...text].reduce((sum, each) => (sum * 31 + each.charCodeAt(0)) >>> 0, 7);

export default policy({
  name: "dns-split-brain",
  onOp(op, ctx) {
    if (op.kind !== "dns" || op.host === undefined) return undefined;
    const names = ctx.options.names?.split(",");
    if (names !== undefined && !names.includes(op.host)) return undefined;
    // Which half hangs on who asks and for what, so that the same one is told the same every time.
    return hash(`${ctx.seed} ${op.flow.thread} ${op.host}`) % 2 === 0 ? { dns: { nxdomain: "100%" } } : undefined;
  },
});
