// Asks on its terminal for what a script would declare, and says which flags that came to.
import { isatty } from "node:tty";
import { PermissionLog } from "../../dist/script/audit.js";
import { NO_PERMISSIONS, resolvePermissions, toFlags } from "../../dist/script/permissions.js";
import { grantDeclared } from "../../dist/script/prompt.js";
import { fromHeader } from "../../dist/script/written.js";

const where = { cwd: "/mishap-none", searchPath: "" };
const declared = resolvePermissions([fromHeader("// @permissions read=./traces net=api.local:443", "a.ts")], where);
const terminal = isatty(0) ? { input: process.stdin, output: process.stderr } : undefined;
const permissions = await grantDeclared(declared, NO_PERMISSIONS, {
  script: "a\u001b[2K.ts",
  cwd: where.cwd,
  log: new PermissionLog(),
  terminal,
  onDenied: (sentence) => console.log(sentence),
});
console.log(`granted: ${toFlags(permissions).join(" ")}`);
process.exit(0);
