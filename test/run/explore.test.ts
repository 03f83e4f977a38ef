import { execFileSync } from "node:child_process";
import { writeFileSync, readFileSync } from "node:fs";
import { it } from "vitest";
import { MISHAP, start } from "./cli-harness.js";
import { clients } from "./programs/clients.js";
import { startServers } from "./programs/servers.js";
it("explore", async () => {
  const dir = "/tmp/table";
  execFileSync("javac", ["-d", dir, "test/run/programs/UrlClient.java"]);
  writeFileSync(`${dir}/hosts`, "127.0.0.1 mishap.test\n");
  const servers = await startServers();
  const faults: [string, string[], string][] = [
    ["bare", [], "mishap.test"],
    ["refused", ["--connection-error", "refused"], "127.0.0.1"],
    ["nxdomain", ["--dns.nxdomain", "100%"], "mishap.test"],
    ["dns.delay", ["--dns.delay", "700ms"], "mishap.test"],
    ["budget", ["--session-budget.max-rx", "4kb", "--session-budget.action", "connection_error", "--session-budget.error", "reset"], "127.0.0.1"],
    ["rate", ["--rate", "200kbps"], "127.0.0.1"],
    ["mutation", ["--payload-mutation.type", "replace_pattern", "--payload-mutation.replace-find", "good", "--payload-mutation.replace-with", "evil", "--payload-mutation.target", "downlink_only"], "127.0.0.1"],
    ["up", ["--uplink.latency", "100ms"], "127.0.0.1"],
    ["down", ["--downlink.latency", "100ms"], "127.0.0.1"],
    ["both", ["--latency", "100ms"], "127.0.0.1"],
  ];
  let out = "";
  const only = process.env.ONLY?.split(",");
  try {
  for (const c of clients(dir)) for (const [name, flags, host] of faults) {
    if (only && !only.includes(name) && !only.includes(c.name)) continue;
    const t = performance.now();
    const end = await start("unshare", ["-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', `${dir}/hosts`, process.execPath, MISHAP, "run", "--quiet", "--json", `${dir}/e.json`, ...flags, "--", ...c.command(host, servers)]).finished;
    const ms = Math.round(performance.now() - t);
    let e: any = {}; try { e = JSON.parse(readFileSync(`${dir}/e.json`, "utf8")); } catch {}
    out += `${c.name} | ${name} | ${end.code} | ${end.stdout.length} ${end.stdout.slice(0, 4)} | ${end.stderr.trim().slice(0, 250)} | ${ms} ms e=${e.duration_ms} | flows ${e.flows} ops ${e.ops} ${JSON.stringify(e.faults)} esc ${JSON.stringify(e.escaped)} ${JSON.stringify(e.notes)} ${JSON.stringify(e.fallbacks)}\n`;
    writeFileSync(`${dir}/out.txt`, out);
  }
  } finally { await servers.stop(); }
}, 90000);
