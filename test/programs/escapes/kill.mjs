// Signals another process.
import { attempt, target } from "./attempt.mjs";

await attempt(() => process.kill(target.pid, "SIGCONT") && "signalled");
