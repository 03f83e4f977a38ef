// The client on bad networks. The service is a real one; it, the client and vitest know nothing of the faults.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, faultable } from "mishap/vitest";
import { test as base } from "vitest";
import { RetryingClient, UnreachableError } from "./client.js";

/** RETRIES=0 shows which of these tests stand on the client's retries. */
const retries = Number(process.env.RETRIES ?? 20);

interface Service {
  readonly port: number;
  /** Orders by their key. */
  readonly orders: Map<string, string>;
}

const test = faultable(
  base.extend<{ service: Service }>({
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads off the pattern that no other fixture is wanted
    service: async ({}, use) => {
      const orders = new Map<string, string>();
      const server = createServer(async (request, answer) => {
        let body = "";
        for await (const part of request.setEncoding("utf8")) body += part;
        const key = request.headers["idempotency-key"];
        if (typeof key === "string") orders.set(key, body);
        answer.setHeader("connection", "close").end(request.url === "/catalogue" ? "x".repeat(20_000) : "done");
      });
      await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
      await use({ port: (server.address() as AddressInfo).port, orders });
      server.closeAllConnections();
      server.close();
    },
  }),
);

test.withFaults("slow_link")("a slow link takes time, nothing else", async ({ faults, service }) => {
  const client = new RetryingClient({
    origin: `http://127.0.0.1:${service.port}`,
    dispatcher: faults.dispatcher,
    retries,
  });
  expect(await client.get("/catalogue")).toHaveLength(20_000);
  expect(faults).toHaveApplied("latency");
  expect(faults).toHaveApplied("rate");
});

test.withFaults("refusing")("a service that refuses every other connection is reached", async ({ faults, service }) => {
  const client = new RetryingClient({
    origin: `http://127.0.0.1:${service.port}`,
    dispatcher: faults.dispatcher,
    retries,
    backoffMs: 1,
  });
  for (let at = 0; at < 20; at++) expect(await client.get("/")).toBe("done");
  expect(faults).toHaveApplied("connectionError", { atLeast: 1 });
});

test.withFaults("half_open")("an order whose answer is lost is placed once", async ({ faults, service }) => {
  const client = new RetryingClient({
    origin: `http://127.0.0.1:${service.port}`,
    dispatcher: faults.dispatcher,
    retries: Math.min(retries, 3),
    backoffMs: 1,
  });
  await expect(client.order("/catalogue", "one teapot")).rejects.toThrow(UnreachableError);
  expect([...service.orders.values()]).toEqual(["one teapot"]);
  expect(faults).toHaveApplied("halfOpen");
});

test.withFaults({ dns: { nxdomain: "100%" } })(
  "a name that is gone is not asked for again",
  async ({ faults, service }) => {
    const client = new RetryingClient({
      origin: `http://localhost:${service.port}`,
      dispatcher: faults.dispatcher,
      retries,
    });
    await expect(client.get("/")).rejects.toMatchObject({ attempts: 1, cause: { code: "ENOTFOUND" } });
    expect(faults).toHaveApplied("dns.nxdomain", { atLeast: 1, atMost: 1 });
  },
);
