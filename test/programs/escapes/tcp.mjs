// Connects to a server.
import { connect } from "node:net";
import { attempt, once, target } from "./attempt.mjs";

await attempt(async () => once(connect(target.port, "127.0.0.1"), "connect").then(() => "connected"));
