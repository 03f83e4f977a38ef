// Every row of the interceptor's hook table, and the entry points the table cannot describe: each driven bare and under
// faults by test/programs/hooks.cpp, which takes its names from the table itself.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { evidenceOf, scratchFolder, start } from "./cli-harness.js";
import { compile, echoServer, nameServer } from "./support/programs.js";

interface Driven {
  readonly name: string;
  readonly result: string;
  readonly ms: number;
  readonly ways: number;
  readonly call_ms: number;
}

const WAY_MS = 40;
const table = readFileSync(new URL("../../native/interceptor/hooks.def", import.meta.url), "utf8");
const rows = [...table.matchAll(/^(?:UP|DOWN|FD|ALL)\([^,]+, (\w+),/gm)].map(([, name = ""]) => name);
const names = rows.filter((name) => /^(getaddrinfo|gethostby\w+|(__)?res_\w+)$/.test(name));
const entryPoints = [...rows, "execl", "execlp", "execle", "dprintf", "__dprintf_chk", "syscall"];

const folder = scratchFolder();
let bare: Map<string, Driven>;
let faulted: Map<string, Driven>;

function driven(stdout: string): Map<string, Driven> {
  const lines = stdout.split("\n").filter((line) => line !== "");
  return new Map(lines.map((line) => JSON.parse(line) as Driven).map((each) => [each.name, each]));
}

beforeAll(async () => {
  const [program, echo, dns] = await Promise.all([
    compile(folder, "hooks.cpp", "-lresolv"),
    echoServer(),
    nameServer(),
  ]);
  const command = [program, String(echo.port), String(dns.port)];
  const plain = await start(program, command.slice(1)).finished;
  expect(plain.stderr).toBe("");
  bare = driven(plain.stdout);
  const faults = ["--latency", `${WAY_MS}ms`, "--dns.nxdomain", "100%"];
  const targets = ["tcp://127.0.0.1", "unix://", "hostname=localhost", "hostname=name.test", "hostname=*.in-addr.arpa"];
  const under = await evidenceOf(folder, [...faults, ...targets.flatMap((target) => ["--target", target])], command);
  expect(under.code).toBe(0);
  faulted = driven(under.stdout);
  expect(under.evidence.faults.find(({ fault }) => fault === "dns.nxdomain")?.applied).toBe(names.length);
});

describe("the hook table", () => {
  it("is driven row by row", () => {
    expect(rows.length).toBeGreaterThan(60);
    expect([...bare.keys()]).toEqual(entryPoints);
    expect([...faulted.keys()]).toEqual(entryPoints);
  });

  it.each(entryPoints)("%s", (name) => {
    const [alone, under] = [bare.get(name), faulted.get(name)];
    expect(alone?.ways).not.toBe(-1);
    if (names.includes(name)) {
      expect(alone?.result).toMatch(/^found /);
      expect(under?.result).toBe("not found");
    } else if (name === "syscall") {
      expect(under?.result).toBe("refused");
      expect(alone?.result).not.toContain("broken");
    } else {
      expect(under?.result).toBe(alone?.result);
      expect(alone?.result).not.toMatch(/ -1|errno/);
      expect(under?.ways).toBeGreaterThan(0);
      expect(under?.ms).toBeGreaterThanOrEqual((under?.ways ?? 0) * WAY_MS);
      expect(under?.call_ms).toBeLessThan(WAY_MS / 2); // what it sends leaves later
    }
  });
});
