// Gives each tenant, known by the name its TLS connections ask for (SNI), a bandwidth of its own.
//
// data/tenants.json has the rates by name; "*" is everybody else's.
import { policy } from "mishap/script";
import rates from "./data/tenants.json" with { type: "json" };

const byName: Readonly<Record<string, string | undefined>> = rates;

export default policy({
  name: "tenant-throttle",
  onFlow({ peer }, ctx) {
    const tenant = peer.sni ?? peer.host ?? "*";
    const rate = byName[tenant] ?? byName["*"];
    ctx.metrics.count(`flows of ${tenant}`);
    return rate === undefined ? undefined : { rate, rateScope: "flow" };
  },
});
