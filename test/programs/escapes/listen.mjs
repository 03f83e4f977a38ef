// Listens on a port.
import { createServer } from "node:net";
import { attempt, once } from "./attempt.mjs";

await attempt(async () => once(createServer().listen(0, "127.0.0.1"), "listening").then(() => "listening"));
