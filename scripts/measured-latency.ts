// Latency as it was measured: each flow gets half of a round trip drawn from a trace.
//
// Option: csv=FILE, with --allow-read=FILE; the last number of each line is a round trip in milliseconds. Without it, those of
// data/round-trips.json.
import { readFileSync } from "node:fs";
import { policy } from "mishap/script";
import usual from "./data/round-trips.json" with { type: "json" };

function measured(csv: string): number[] {
  const lines = readFileSync(csv, "utf8").split("\n");
  // What ends in no number is a heading, or the file's last line.
  const found = lines.map((line) => Number.parseFloat(line.split(/[,;\t]/).at(-1) ?? "")).filter((ms) => ms >= 0);
  if (found.length === 0) throw new Error(`${csv}: no line ends in a number of milliseconds`);
  return found;
}

export default policy({
  name: "measured-latency",
  state: () => ({ roundTripsMs: [] as number[] }),
  onFlow(_flow, { state, options, random }) {
    if (state.roundTripsMs.length === 0) {
      state.roundTripsMs = options.csv === undefined ? usual : measured(options.csv);
    }
    const roundTripMs = state.roundTripsMs[Math.floor(random() * state.roundTripsMs.length)] ?? 0;
    return { latency: `${Math.round(roundTripMs * 500)}us` };
  },
});
