// Latency as it was measured: each flow gets half of a round trip drawn from data/round-trips.json (milliseconds).
import { policy } from "mishap/script";
import roundTripsMs from "./data/round-trips.json" with { type: "json" };

export default policy({
  name: "measured-latency",
  onFlow(_flow, ctx) {
    const roundTripMs = roundTripsMs[Math.floor(ctx.random() * roundTripsMs.length)] ?? 0;
    return { latency: `${Math.round(roundTripMs * 500)}us` };
  },
});
