// Connects to a Unix socket.
import { connect } from "node:net";
import { attempt, once, target } from "./attempt.mjs";

await attempt(async () => once(connect(target.socket), "connect").then(() => "connected"));
