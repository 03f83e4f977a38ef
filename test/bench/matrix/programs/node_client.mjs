// Node's fetch on several connections at once: URL CONNECTIONS REQUESTS. Prints how long each request took, in ms.
const [url, connections, requests] = process.argv.slice(2);
const took = [];
await Promise.all(
  Array.from({ length: Number(connections) }, async () => {
    for (let i = 0; i < Number(requests); i++) {
      const start = performance.now();
      await (await fetch(url)).text();
      took.push([i, performance.now() - start]);
    }
  }),
);
console.log(JSON.stringify(took));
