// What entering and leaving a context costs, in nanoseconds a pair: the median of several rounds. Run under mishap.
import { policyContext, registerPolicy } from "mishap";

const PAIRS = 20_000;
const ROUNDS = 15;
const fields = { latency: "50ms", packetLoss: "1%" };
const nothing = () => {};
registerPolicy("named", fields);

const ways = {
  "named, callback": () => policyContext("named", nothing),
  "named, using": () => policyContext("named")[Symbol.dispose](),
  "inline, callback": () => policyContext(fields, nothing),
  "inline, using": () => policyContext(fields)[Symbol.dispose](),
};

const medians = Object.entries(ways).map(([way, pair]) => {
  const rounds = Array.from({ length: ROUNDS }, () => {
    const begin = process.hrtime.bigint();
    for (let i = 0; i < PAIRS; i++) pair();
    return Number(process.hrtime.bigint() - begin) / PAIRS;
  });
  return [way, Math.round(rounds.sort((a, b) => a - b)[ROUNDS >> 1])];
});
console.log(JSON.stringify(Object.fromEntries(medians)));
