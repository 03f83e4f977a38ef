// Network namespaces of a test's own.
import { spawnSync } from "node:child_process";
import { start } from "../cli-harness.js";

/** Why there can be none here; undefined where there can. */
export const notApart: string | undefined = (() => {
  const { error, status, stderr } = spawnSync("unshare", ["--net", "ip", "link", "set", "lo", "up"], {
    encoding: "utf8",
  });
  return error?.message ?? (status === 0 ? undefined : stderr.trim());
})();

/** A network namespace with nothing but its loopback, kept until the tests end: how a command is run in it. */
export async function networkApart(): Promise<readonly [string, ...string[]]> {
  const keeper = start("unshare", ["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"]);
  await keeper.says("up");
  return ["nsenter", `--net=/proc/${keeper.pid}/ns/net`, "--"];
}
