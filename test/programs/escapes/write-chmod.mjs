// Makes a file executable.
import { chmodSync } from "node:fs";
import { attempt, target } from "./attempt.mjs";

await attempt(() => chmodSync(target.secret, 0o755) ?? "changed");
