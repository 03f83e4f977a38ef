// Starts Node again.
import { fork } from "node:child_process";
import { attempt, once, target } from "./attempt.mjs";

await attempt(async () => once(fork(target.module, { silent: true }), "exit").then(() => "started"));
