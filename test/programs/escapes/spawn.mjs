// Starts a program.
import { spawn } from "node:child_process";
import { attempt, once } from "./attempt.mjs";

await attempt(async () => once(spawn("/bin/true", { stdio: "ignore" }), "exit").then(() => "started"));
