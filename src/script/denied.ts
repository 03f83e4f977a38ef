/** What a script gets for anything that it may not do. `mishap/script` exports it. */

import { flagFor, type Wish } from "./wish.js";

const DOING = {
  read: "read of",
  write: "write to",
  net: "network access to",
  env: "environment variable",
  run: "running of",
  sys: "system information",
} as const;

/** Something was not permitted; the message names the flag that would permit it. */
export class PermissionDenied extends Error {
  override readonly name = "PermissionDenied";
  /** The system's code where there was one, such as EACCES; else `EPERM`. */
  readonly code: string;
  readonly permission: Wish["permission"];
  /** What it was about: a path, a host with its port, a variable, a program. */
  readonly value: string;

  constructor(wish: Wish, code = "EPERM") {
    super(`${DOING[wish.permission]} ${JSON.stringify(wish.value)} was denied: run again with ${flagFor(wish)}`);
    this.code = code;
    this.permission = wish.permission;
    this.value = wish.value;
  }
}
