// A server for a file of tests, and a request that takes a connection of its own.
import { createServer, type Server } from "node:http";
import type { Faults } from "mishap/vitest";
import { afterAll, beforeAll } from "vitest";

export class Service {
  readonly #server: Server = createServer((_, answer) => answer.setHeader("connection", "close").end("hello"));

  constructor() {
    beforeAll(() => new Promise<void>((ready) => void this.#server.listen(0, "127.0.0.1", ready)));
    afterAll(() => {
      this.#server.closeAllConnections();
      this.#server.close();
    });
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/`;
  }

  async ask(faults: Faults): Promise<string> {
    return (await faults.fetch(this.url)).text();
  }
}
