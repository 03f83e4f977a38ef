// The JSON Schema of policy files says of every form what the loader says, and the published files do not drift.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { withTables } from "../../../src/policy/document.js";
import { policyFileSchema } from "../../../src/policy/json-schema.js";
import { PRESETS } from "../../../src/policy/presets.js";
import { parsePolicy } from "../../../src/policy/schema.js";
import { accepts, isRecord } from "./support/json-schema.js";
import { policyArbitrary } from "./support/policies.js";

const takes = (policy: unknown): boolean => accepts(policyFileSchema, { policy });

it("takes whatever the loader takes", { timeout: 60_000 }, () => {
  fc.assert(
    fc.property(policyArbitrary, (written) => {
      expect(takes(JSON.parse(JSON.stringify(written)))).toBe(true);
    }),
    { numRuns: 1000 },
  );
});

it("takes a file with a $schema line, and every preset", () => {
  const fields = Object.entries(PRESETS).map(([name, preset]) => [name, preset.fields]);
  expect(accepts(policyFileSchema, { $schema: "./policy.schema.json", ...Object.fromEntries(fields) })).toBe(true);
});

const mutation = (payload_mutation: unknown) => ({ payload_mutation });
const budget = (session_budget: unknown) => ({ session_budget });
const targets = (...rules: unknown[]) => ({ latency: "1ms", targets: rules });

describe("refuses what the loader refuses:", () => {
  it.each([
    { latency: "50" },
    { latency: "-1ms" },
    { latency: 5 },
    { latency: "5m" },
    { latency: "5 ms" },
    { latency: "0.0000000001s" },
    { latency: "0.0001us" },
    { jitter: null },
    { packet_loss: "101%" },
    { packet_loss: "1000001ppm" },
    { packet_loss: "0.5ppm" },
    { packet_loss: "0.00001%" },
    { packet_loss: "1" },
    { burst_loss: "x" },
    { burst_loss: 2.5 },
    { burst_loss: -1 },
    { burst_loss: 4294967296 },
    { rate: "10" },
    { rate: "0mbps" },
    { rate: "0.0gbps" },
    { rate_burst: "0b" },
    { latncy: "50ms" },
    { uplink: { rat: "1mbps" } },
    { uplink: { seed: 3 } },
    { timeout: "200ms" },
    { timeout: { connect: "0ms" } },
    { correlated_loss: { p_good_to_bad: "1%" } },
    { connection_error: { prob: "1%" } },
    { connection_error: { kind: "refuse" } },
    { half_open: { after: "0b" } },
    { half_open: { after: "32" } },
    { half_open: {} },
    { packet_duplicate: { max_extra: 0 } },
    { packet_reorder: { window: "0" } },
    { dns: { nxdomain: "3" } },
    budget({ max_ops: 0 }),
    budget({ max_ops: 1, action: "stop" }),
    mutation({ type: "shuffle" }),
    mutation({ type: "inject_bytes", inject_data: "x".repeat(65) }),
    mutation({ type: "inject_bytes", inject_data: "" }),
    mutation({ type: "inject_bytes", inject_data: "hex:0" }),
    mutation({ type: "inject_bytes", inject_data: `hex:${"00".repeat(65)}` }),
    mutation({ type: "corrupt_bytes", corrupt_count: 0 }),
    mutation({ type: "corrupt_bytes", max_size: "0kb" }),
    mutation({ type: "corrupt_bytes", max_size: 0 }),
    mutation({ type: "corrupt_bytes", dry_run: "yes" }),
    { schedule: { kind: "ramp", ramp: "0s" } },
    { schedule: { kind: "flapping", on: "1s" } },
    { schedule: { kind: "ramp", ramp: "1s", on: "1s" } },
    { schedule: { kind: "wave" } },
    { seed: "abc" },
    { seed: -1 },
    { loss_mode: "lose" },
    { rate_scope: "host" },
    { jitter_distribution: "gauss" },
    { targets: "tcp://10.0.0.1" },
    { targets: [] },
    targets(...Array<string>(17).fill("any://a")),
    targets("x"),
    targets({ host: "10.0.0.1", port: 0 }),
    targets({ host: "10.0.0.1", port: "80-" }),
    targets({ host: "10.0.0.1", port: "1,2,3,4,5,6,7,8,9" }),
    targets({ host: "10.0.0.1", protocol: "icmp" }),
    targets({ cidr: "10.0.0.1" }),
    targets({ host: "10.0.0.0/8" }),
    targets({ hostnam: "a" }),
    targets({ hostname: "a b" }),
    targets({ hostname: "a", priority: -1 }),
    targets(7),
    "slow",
    null,
    ["latency"],
  ])("%j", (policy) => {
    expect(() => parsePolicy(policy)).toThrow();
    expect(takes(policy)).toBe(false);
  });
});

it("says what every field is for", () => {
  const undescribed = (schema: unknown, path: string): string[] => {
    if (!isRecord(schema)) return [];
    const properties = isRecord(schema.properties) ? Object.entries(schema.properties) : [];
    const options = [schema.oneOf, schema.anyOf].flatMap((each) => (Array.isArray(each) ? each : []));
    return [
      ...properties.flatMap(([key, field]) => [
        ...(isRecord(field) && typeof field.description === "string" && field.description !== ""
          ? []
          : [`${path}${key}`]),
        ...undescribed(field, `${path}${key}.`),
      ]),
      ...options.flatMap((option) => undescribed(option, path)),
      ...(isRecord(schema.items) ? undescribed(schema.items, `${path}[].`) : []),
    ];
  };
  const { $defs } = policyFileSchema;
  expect(undescribed(isRecord($defs) ? $defs.policy : undefined, "")).toEqual([]);
  expect(isRecord($defs) && isRecord($defs.policy) ? $defs.policy.properties : undefined).toHaveProperty("seed");
});

it("gives defaults and examples that it takes itself", () => {
  const wrong = (schema: unknown, path: string): string[] => {
    if (!isRecord(schema)) return [];
    const own = [
      ...(Array.isArray(schema.examples) ? schema.examples : []),
      ...("default" in schema ? [schema.default] : []),
    ];
    const refused = own.filter((value) => !accepts(schema, value)).map((value) => `${path} ${JSON.stringify(value)}`);
    return [
      ...refused,
      ...Object.entries(schema).flatMap(([key, inner]) => (isRecord(inner) ? wrong(inner, `${path}.${key}`) : [])),
    ];
  };
  expect(wrong(policyFileSchema, "")).toEqual([]);
});

describe("published files are as the schema is; npm run policies writes them:", () => {
  const published = (name: string): string => readFileSync(new URL(`../../../docs/${name}`, import.meta.url), "utf8");

  it("docs/policy.schema.json", () => {
    expect(JSON.parse(published("policy.schema.json"))).toEqual(policyFileSchema);
  });

  it("the tables of docs/policies.md", () => {
    const page = published("policies.md");
    expect(withTables(page)).toBe(page);
    for (const name of ["fields", "rules", "schedules", "presets"]) expect(page).toContain(`<!-- ${name} -->\n| `);
  });
});
