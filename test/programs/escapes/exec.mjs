// Starts a shell.
import { execSync } from "node:child_process";
import { attempt } from "./attempt.mjs";

await attempt(() => execSync("echo started").toString().trim());
