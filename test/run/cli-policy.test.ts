/** `mishap policy`, as a user runs it. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { mishap, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const good = file(
  "good.yaml",
  `slow_link: {latency: 0.05s, packet_loss: 1%, targets: [tcp://10.0.0.0/8, any://a]}
bad_minutes:
  packet_loss: 20%
  schedule: {kind: spike, every: 60s, duration: 10s}
nothing: {}
`,
);
const bad = file("bad.json", '{\n  "a": {"latncy": "5ms"},\n  "b": {"rate": 10, "jitter": "1ms"}\n}');

describe("check", () => {
  it("says how many policies each file has", async () => {
    const one = file("one.json", '{"a": {}}');
    expect(await mishap("policy", "check", good, one)).toEqual({
      code: 0,
      stdout: `${good}: 3 policies\n${one}: 1 policy\n`,
      stderr: "",
    });
  });

  it("says everything that is wrong, a line each, and goes on", async () => {
    expect(await mishap("policy", "check", bad, good)).toEqual({
      code: 2,
      stdout: `${good}: 3 policies\n`,
      stderr: [
        `${bad}:2:9: a: unknown field "latncy"; the nearest is latency\n`,
        `${bad}:3:17: b.rate 10: a rate needs a unit, such as 10mbps\n`,
      ].join(""),
    });
  });
});

describe("list", () => {
  it("says what each policy asks for", async () => {
    const { code, stdout } = await mishap("policy", "list", good);
    expect(code).toBe(0);
    expect(stdout.split("\n")).toEqual([
      "slow_link    latency 0.05s, packet_loss 1% · 2 targets",
      "bad_minutes  packet_loss 20% · spike",
      "nothing      no faults",
      "",
    ]);
  });

  it("is there for machines", async () => {
    const { stdout } = await mishap("policy", "list", good, "--json");
    expect(JSON.parse(stdout)).toMatchObject([
      { name: "slow_link", targets: 2, schedule: null, faults: [{ fault: "latency", asked: "0.05s" }, {}] },
      { name: "bad_minutes", targets: 0, schedule: { kind: "spike", every: "60s", duration: "10s" } },
      { name: "nothing", faults: [] },
    ]);
  });

  it("of a file that is wrong says so in one sentence", async () => {
    const { code, stdout, stderr } = await mishap("policy", "list", bad);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toBe(`mishap: ${bad}:2:9: a: unknown field "latncy"; the nearest is latency (and 1 more)\n`);
  });
});

describe("show", () => {
  it("prints the normal form, which is a file of policies itself", async () => {
    const { code, stdout } = await mishap("policy", "show", good, "slow_link");
    expect(code).toBe(0);
    expect(parse(stdout)).toEqual({
      slow_link: {
        latency: "50ms",
        packet_loss: "1%",
        targets: [{ cidr: "10.0.0.0/8", protocol: "tcp" }, { hostname: "a" }],
      },
    });
    expect((await mishap("policy", "check", file("shown.yaml", stdout))).code).toBe(0);
    const json = await mishap("policy", "show", good, "slow_link", "--json");
    expect(JSON.parse(json.stdout)).toEqual(parse(stdout));
  });

  it("names the nearest policy", async () => {
    const { code, stderr } = await mishap("policy", "show", good, "slow");
    expect(code).toBe(2);
    expect(stderr).toBe(`mishap: ${good}: no policy "slow"; the nearest is slow_link\n`);
  });
});

describe("schema and presets", () => {
  it("prints the schema as it is published", async () => {
    const published = readFileSync(fileURLToPath(new URL("../../docs/policy.schema.json", import.meta.url)), "utf8");
    const { code, stdout } = await mishap("policy", "schema");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(JSON.parse(published));
  });

  it("lists presets, and prints one as a file of policies", async () => {
    const { stdout: table } = await mishap("policy", "presets");
    expect(table).toMatch(/^satellite_geo +a geostationary satellite/m);
    const { stdout } = await mishap("policy", "presets", "satellite_geo");
    expect(stdout).toContain("# Source: latency: RFC 2488");
    expect(await mishap("policy", "check", file("preset.yaml", stdout))).toMatchObject({ code: 0 });
    const { stdout: json } = await mishap("policy", "presets", "--json");
    expect(JSON.parse(json)).toContainEqual(expect.objectContaining({ name: "refused", fields: expect.anything() }));
  });

  it("names the nearest preset", async () => {
    expect(await mishap("policy", "presets", "satelite_geo")).toMatchObject({
      code: 2,
      stderr: 'mishap: "satelite_geo": no such preset; the nearest is satellite_geo\n',
    });
  });
});

describe("the command", () => {
  it.each([
    [["policy", "frob"], "frob: no such command"],
    [["policy", "chek", "x"], "chek: no such command; did you mean check?"],
    [["policy", "check"], "missing required argument 'file'"],
    [["policy", "show", "x.yaml"], "missing required argument 'name'"],
    [["policy", "list", "x.yaml", "y.yaml"], "too many arguments"],
    [["policy", "list", "no/such.yaml"], "no/such.yaml: cannot be read (ENOENT)"],
    [["policy", "list", "policies.txt"], "policies.txt: a policy file ends in .json, .yaml or .yml"],
    [["policy", "list", "--jsn", "x.yaml"], "--jsn: no such flag; did you mean --json?"],
  ])("%j is refused in one sentence", async (args, sentence) => {
    const { code, stdout, stderr } = await mishap(...args);
    expect(stderr).toContain(sentence);
    expect(stderr).toMatch(/^mishap: [^\n]+\n$/);
    expect([code, stdout]).toEqual([2, ""]);
  });

  it("alone says what it can do", async () => {
    const { code, stdout } = await mishap("policy");
    expect(code).toBe(0);
    for (const command of ["check", "list", "show", "schema", "presets"]) expect(stdout).toContain(`\n  ${command} `);
  });
});
