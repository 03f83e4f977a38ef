// Node's fetch on several connections at once, spread over a period: URL CONNECTIONS REQUESTS PERIOD_MS. Prints how long each
// request took, in ms.
import { setTimeout as sleep } from "node:timers/promises";

const [url, connections, requests, periodMs] = process.argv.slice(2);
const took = [];
await Promise.all(
  Array.from({ length: Number(connections) }, async (_, nth) => {
    await sleep((nth * Number(periodMs)) / Number(connections));
    for (let i = 0; i < Number(requests); i++) {
      const start = performance.now();
      await (await fetch(url)).text();
      took.push([i, performance.now() - start]);
    }
  }),
);
console.log(JSON.stringify(took));
