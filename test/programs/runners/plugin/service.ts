// A server for the tests of this project, and a request that takes a connection of its own.
import { createServer } from "node:http";
import type { Faults } from "mishap/vitest";
import { afterAll, beforeAll } from "vitest";

const server = createServer((_, answer) => answer.setHeader("connection", "close").end("hello"));
beforeAll(() => new Promise<void>((ready) => void server.listen(0, "127.0.0.1", ready)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

export function url(): string {
  const address = server.address();
  return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/`;
}

export async function request(faults: Faults): Promise<string> {
  return (await faults.fetch(url())).text();
}
