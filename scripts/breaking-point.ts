// Searches by bisection for the latency at which a service breaks, and reports it.
//
// Broken is: in a step, less than share=0.5 of the bytes came that come without latency. Options: max=2000 (milliseconds),
// steps=8, step=5 (ticks of a second each).
import { policy } from "mishap/script";

export default policy({
  name: "breaking-point",
  tickMs: 1000,
  state: () => ({ ticks: 0, steps: -1, low: 0, high: 0, latencyMs: 0, bytes: 0, usual: 0 }),
  onTick({ total }, ctx) {
    const { state, options } = ctx;
    const option = (name: string, usual: number): number => Number(options[name] ?? usual);
    if (++state.ticks % option("step", 5) !== 0 || state.steps >= option("steps", 8)) return undefined;
    const came = total.bytesDown - state.bytes;
    state.bytes = total.bytesDown;
    if (state.steps < 0) [state.usual, state.high] = [came, option("max", 2000)];
    else if (came < state.usual * option("share", 0.5)) state.high = state.latencyMs;
    else state.low = state.latencyMs;
    if (++state.steps === option("steps", 8)) {
      ctx.metrics.gauge("breaking point in ms", state.high);
      ctx.log(`breaks between ${state.low} and ${state.high} ms of latency`);
      return { own: {} };
    }
    state.latencyMs = Math.round((state.low + state.high) / 2);
    return { own: { latency: `${state.latencyMs}ms` } };
  },
});
