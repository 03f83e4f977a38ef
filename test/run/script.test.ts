/** `mishap script`, as a user runs it: what is wrong has the user's own file, line and column. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { PermissionLog } from "../../dist/script/audit.js";
import { NO_PERMISSIONS } from "../../dist/script/permissions.js";
import { DEFAULT_LIMITS, type FlowFacts, type Question } from "../../dist/script/questions.js";
import { ScriptHost, type StartedHost } from "../../dist/script/supervisor.js";
import { mishap, scratchFolder } from "./cli-harness.js";
import { unjailed } from "./support/user-folder.js";

const folder = scratchFolder();
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
};
const policy = (hooks: string): string => `import { policy } from "mishap/script";
export default policy({
  name: "x",
${hooks}
});
`;

describe("check", () => {
  it("accepts a script with types, imports of its own and JSON", async () => {
    file("parts/limits.ts", "export const limit: number = 5;\n");
    file("parts/hosts.json", '["a.test"]\n');
    const path = file(
      "good.ts",
      `import { limit } from "./parts/limits.ts";
import hosts from "./parts/hosts.json" with { type: "json" };
${policy("  flowState: () => ({ n: limit }),\n  onFlow: (flow) => (hosts.includes(flow.peer.host ?? '') ? { latency: flow.state.n + 'ms' } : undefined),")}`,
    );
    expect(await mishap("script", "check", path)).toEqual({
      code: 0,
      stdout: `${path}: policy "x", onFlow\n`,
      stderr: "",
    });
  });

  it.each<[what: string, text: string, where: string, sentence: string]>([
    ["a wrong type", policy('  onFlow: () => ({ latncy: "5ms" }),'), "4:", "latncy"],
    ["what is not only types", `enum A { B }\n${policy("")}`, "1:6: ", "only types may be TypeScript's"],
    ["a name that is empty", policy("").replace('"x"', '""'), "2:16: ", "policy: name must be a text"],
    ["no policy", "export default { name: 'x' };\n", "1:1: ", "exports no policy"],
    ["a throw while it loads", `${policy("")}\nthrow new Error("bang");\n`, "7:7: ", "bang"],
  ])("names the place of %s", async (what, text, where, sentence) => {
    const path = file(`${what.replaceAll(" ", "-")}.ts`, text);
    const { code, stderr } = await mishap("script", "check", path);
    expect(code).toBe(1);
    expect(stderr).toContain(`${path}:${where}`);
    expect(stderr).toContain(sentence);
  });

  it("ends a script that never loads", async () => {
    const path = file("endless.js", `${policy("")}\nfor (;;) {}\n`);
    const { code, stderr } = await mishap("script", "check", path);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/^.*endless\.js:7:\d+: the script did not return within 5000 ms/),
    });
  });
});

describe("the jail", () => {
  beforeEach(({ skip }) => skip(unjailed !== undefined, unjailed));

  it.each([
    ["read a file", `readFileSync("/etc/passwd")`, "EACCES"],
    ["read beside itself", `readFileSync(new URL("./beside.txt", import.meta.url))`, "EACCES"],
    ["write", `writeFileSync(new URL("./written", import.meta.url), "")`, "EACCES"],
    ["start a program", `execFileSync("/bin/true")`, "EPERM"],
  ])("does not let a script %s", async (what, attempt, code) => {
    file("beside.txt", "secret");
    const path = file(
      `${what.replaceAll(" ", "-")}.ts`,
      `import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
let came = "nothing";
try { ${attempt}; } catch (error) { came = (error as { code: string }).code; }
${policy("  onFlow: (_, ctx) => { ctx.log('came: ' + came); return {}; },")}`,
    );
    const { stdout } = await mishap("script", "test", path, "--flows", "1");
    expect(stdout).toContain(`log: came: ${code}`);
    expect(existsSync(join(folder, "written"))).toBe(false);
  });

  it("does not let a script import from elsewhere, and says what would", async () => {
    const elsewhere = file("elsewhere/part.ts", "export const n = 1;\n");
    const path = file("inner/script.ts", `import { n } from "../elsewhere/part.ts";\n${policy("  tickMs: n,")}`);
    const { code, stderr } = await mishap("script", "test", path);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `${path}:1:20: imports ${elsewhere}, which needs --allow-read=${elsewhere}\n`,
    });
  });
});

describe("test", () => {
  it.each(["brownout", "flaky-wifi", "gray-replica", "tenant-throttle", "dns-split-brain", "measured-latency"])(
    "repeats what %s decides, by the seed",
    async (name) => {
      const args = ["script", "test", name, "--flows", "6", "--seed", "7", "--json"];
      const [first, second] = [await mishap(...args), await mishap(...args)];
      expect(first).toEqual(second);
      expect(first).toMatchObject({ code: 0, stderr: "" });
      const { answered, problems } = JSON.parse(first.stdout);
      expect(answered).toBeGreaterThan(0);
      expect(problems).toBe(0);
    },
  );

  it("takes options, and gives each script what it is for", async () => {
    const decisions = async (...args: string[]): Promise<{ asked: string; flow: string; answer: object }[]> =>
      JSON.parse((await mishap("script", "test", ...args, "--json")).stdout).decisions;
    const gray = await decisions("gray-replica", "--script-option", "address=10.0.0.3");
    expect(gray.map(({ flow }) => flow)).toEqual(["tcp:10.0.0.3:443#1@0", "tcp:10.0.0.3:443#2@0"]);
    const [tenant] = await decisions("tenant-throttle", "--flows", "1");
    expect(tenant?.answer).toEqual({ fields: { rate: "256kbps", rate_scope: "flow" } });
    const storm = JSON.parse(
      (await mishap("script", "test", "retry-storm", "--script-option", "limit=5", "--json")).stdout,
    );
    expect(storm.metrics).toMatchObject({ "retry storms": 1 });
    const start = await decisions("slow-start", "--flows", "12");
    expect(start.filter(({ asked }) => asked.startsWith("connect")).length).toBe(10);
    const search = JSON.parse(
      (
        await mishap(
          "script",
          "test",
          "breaking-point",
          "--flows",
          "50",
          "--script-option",
          "step=1",
          "--script-option",
          "steps=4",
          "--json",
        )
      ).stdout,
    );
    expect(search.metrics).toHaveProperty("breaking point in ms");
  });

  it("exits 1 and names the line of an answer that is none", async () => {
    const path = file("garbage.js", policy("  onFlow() {\n    return { latency: 'soon' };\n  },"));
    const { code, stdout, stderr } = await mishap("script", "test", path, "--flows", "1");
    expect(code).toBe(1);
    expect(stderr).toMatch(/^.*garbage\.js:4:\d+: onFlow answered latency "soon": /);
    expect(stdout).toMatch(/1 problem$/m);
  });
});

describe("the host", () => {
  const flow: FlowFacts = {
    id: "tcp:10.0.0.1:443#1@0",
    protocol: "tcp",
    role: "client",
    peer: { address: "10.0.0.1", port: 443 },
    ordinal: 1,
    thread: "0",
    openedAtMs: 0,
  };
  const op = (unit: number): Question => {
    return { kind: "op", atMs: 0, flow, op: { kind: "send", direction: "uplink", bytes: 1, unit } };
  };
  const start = (script: string): Promise<StartedHost> =>
    ScriptHost.start({
      ...{ script, sources: {}, seed: "0x7", options: {}, policies: {}, launch: [], recorded: false },
      ...{ onLine: () => {}, onNews: () => {} },
      broker: { permissions: NO_PERMISSIONS, script, log: new PermissionLog() },
      limits: { ...DEFAULT_LIMITS, hookMs: 500, memoryMb: 64 },
    });

  it("survives what a hook does, and names its line", async () => {
    const script = file(
      "bad.js",
      policy(`  onOp(op) {
    if (op.unit === 1) for (;;) Math.sqrt(2);
    if (op.unit === 2) throw new Error("bang");
    if (op.unit === 3) process.exit(3);
    if (op.unit === 4) { const all = []; for (;;) all.push(new Array(1000).fill(all.length)); }
    return { latency: "1ms" };
  },`),
    );
    const host = await start(script);
    try {
      const fine = { answer: { fields: { latency: "1ms" } } };
      for (const [unit, line, sentence] of [
        [1, 5, /did not return within 500 ms/],
        [2, 6, /bang/],
        [3, 7, /process\.exit/],
        [4, 4, /took more than 64 MB/],
      ] as const) {
        const { problem } = await host.ask(op(unit));
        expect(problem).toMatchObject({ file: script, line, message: expect.stringMatching(sentence) });
        expect(await host.ask(op(0))).toMatchObject(fine);
      }
    } finally {
      await host.close();
    }
  });

  it("swaps an edited script in with its state, and keeps the old one when the edit is broken", async () => {
    const version = (n: string): string =>
      policy(`  state: () => ({ count: 0 }),
  onReload: (old) => old,
  onOp: (op, ctx) => ({ latency: \`\${++ctx.state.count}${n}ms\` }),`);
    const script = file("edited.js", version(""));
    const host = await start(script);
    const latency = async (): Promise<unknown> => (await host.ask(op(0))).answer.fields?.latency;
    try {
      expect(await latency()).toBe("1ms");
      file("edited.js", version("0"));
      await host.reload({});
      expect(await latency()).toBe("20ms");
      file("edited.js", "export default {");
      await expect(host.reload({})).rejects.toThrow(`${script}:1`);
      expect(await latency()).toBe("30ms");
    } finally {
      await host.close();
    }
  });
});
