// Wi-Fi that loses packets in bursts: a Gilbert-Elliott model whose figures are fitted to a trace of lost packets.
//
// The trace, data/wifi-loss.json, has one entry a packet: 1 where it was lost. Runs of losses give how long the bad state
// lasts, the gaps between them how long the good one does.
import { policy } from "mishap/script";
import trace from "./data/wifi-loss.json" with { type: "json" };

function fitted(lost: readonly number[]): { turnsBad: number; turnsGood: number } {
  let [good, bad, turnedBad, turnedGood] = [0, 0, 0, 0];
  for (let i = 1; i < lost.length; i++) {
    if (lost[i - 1] === 0) {
      good++;
      if (lost[i] === 1) turnedBad++;
    } else {
      bad++;
      if (lost[i] === 0) turnedGood++;
    }
  }
  return { turnsBad: turnedBad / Math.max(1, good), turnsGood: turnedGood / Math.max(1, bad) };
}

const ppm = (share: number): string => `${Math.round(share * 1e6)}ppm`;
const { turnsBad, turnsGood } = fitted(trace);

export default policy({
  name: "flaky-wifi",
  onFlow: () => ({
    correlatedLoss: { pGoodToBad: ppm(turnsBad), pBadToGood: ppm(turnsGood), lossGood: "0%", lossBad: "100%" },
  }),
});
