// Flags: every field of the schema has one, with help and an example that works; refusals name what was typed.
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { z } from "zod";
import { PolicyError } from "../../../src/policy/errors.js";
import { type FlagValues, policyFlags, policyFromFlags } from "../../../src/policy/flags.js";
import { policyFields } from "../../../src/policy/schema.js";

function written(values: FlagValues): unknown {
  const result = policyFromFlags(values);
  if ("error" in result) throw result.error;
  return result.ok.written;
}

function refusal(values: FlagValues): string {
  const result = policyFromFlags(values);
  expect(result).toHaveProperty("error");
  return "error" in result ? result.error.message : "";
}

/** The paths of every leaf of the schema, found without the code under test. */
function leaves(schema: z.core.$ZodType, path: string): string[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault) return leaves(schema.unwrap(), path);
  if (!(schema instanceof z.ZodObject)) return [path];
  const shape: Record<string, z.core.$ZodType> = schema.shape;
  return Object.entries(shape).flatMap(([key, field]) => leaves(field, path === "" ? key : `${path}.${key}`));
}

describe("the table", () => {
  it("has a flag for every field of the schema", () => {
    const paths = new Set(policyFlags.map(({ path }) => path));
    const all = leaves(policyFields, "");
    expect(all.length).toBeGreaterThan(50);
    expect(all.filter((path) => !paths.has(path))).toEqual(["decisions"]); // which files hold
  });

  it("names flags by one rule, each once", () => {
    for (const { name, path } of policyFlags) {
      expect(name).toBe(path === "targets" ? "--target" : `--${path.replaceAll("_", "-")}`);
    }
    expect(new Set(policyFlags.map(({ name }) => name)).size).toBe(policyFlags.length);
  });

  it("has the short forms", () => {
    const names = policyFlags.map(({ name }) => name);
    for (const name of ["--connection-error", "--half-open", "--packet-duplicate", "--packet-reorder", "--schedule"]) {
      expect(names).toContain(name);
    }
  });

  // What a field cannot stand without, given along with its example.
  const companions: [prefix: string, values: Record<string, string>][] = [
    ["--connection-error.", { "--connection-error.kind": "refused" }],
    ["--half-open.", { "--half-open.after": "32kb" }],
    ["--session-budget.", { "--session-budget.max-ops": "10" }],
    ["--session-budget.budget-timeout", { "--session-budget.action": "timeout" }],
    ["--session-budget.error", { "--session-budget.action": "connection_error" }],
    ["--payload-mutation.", { "--payload-mutation.type": "none" }],
    [
      "--correlated-loss.",
      {
        "--correlated-loss.p-good-to-bad": "1%",
        "--correlated-loss.p-bad-to-good": "1%",
        "--correlated-loss.loss-good": "1%",
        "--correlated-loss.loss-bad": "1%",
      },
    ],
  ];

  it.each(policyFlags.map((flag) => [flag.name, flag] as const))(
    "%s has help and an example that works",
    (name, flag) => {
      const needed = companions.filter(([prefix]) => name.startsWith(prefix)).map(([, values]) => values);
      expect(flag.help).toMatch(/^[^.\n]+$/);
      expect(flag.group).not.toBe("");
      expect(flag.valueName).not.toBe("");
      expect(policyFromFlags(Object.assign({}, ...needed, { [name]: flag.example }))).toHaveProperty("ok");
    },
  );
});

test("no flags make a policy without faults", () => {
  expect(written({})).toEqual({});
});

test.each<[FlagValues, unknown]>([
  [{ "--latency": "50ms" }, { latency: "50ms" }],
  [
    { latency: "50ms", "uplink.rate": "2mbps" },
    { latency: "50ms", uplink: { rate: "2mbps" } },
  ],
  [
    { "--timeout.connect": "200ms", "--dns.nxdomain": "3%" },
    { timeout: { connect: "200ms" }, dns: { nxdomain: "3%" } },
  ],
  [{ "--connection-error": "refused:10%" }, { connection_error: { kind: "refused", prob: "10%" } }],
  [{ "--connection-error": "reset" }, { connection_error: { kind: "reset" } }],
  [{ "--half-open": "32kb:reset" }, { half_open: { after: "32kb", error: "reset" } }],
  [{ "--packet-duplicate": "10%:2" }, { packet_duplicate: { prob: "10%", max_extra: "2" } }],
  [{ "--packet-reorder": "10%:3:50ms" }, { packet_reorder: { prob: "10%", window: "3", max_delay: "50ms" } }],
  [{ "--packet-reorder": "10%", "--packet-reorder.window": "3" }, { packet_reorder: { prob: "10%", window: "3" } }],
  [{ "--session-budget.max-tx": "1mb" }, { session_budget: { max_tx: "1mb" } }],
  [
    { "--payload-mutation.type": "corrupt_encoding", "--payload-mutation.dry-run": true },
    { payload_mutation: { type: "corrupt_encoding", dry_run: "true" } },
  ],
  [{ "--schedule": "ramp:30s" }, { schedule: { kind: "ramp", ramp: "30s" } }],
  [{ "--schedule": "spike:30s/5s" }, { schedule: { kind: "spike", every: "30s", duration: "5s" } }],
  [{ "--schedule": "flapping:10s/5s" }, { schedule: { kind: "flapping", on: "10s", off: "5s" } }],
  [
    { "--target": ["tcp://10.0.0.0/8", "hostname=api.internal,port=443,priority=5"] },
    { targets: ["tcp://10.0.0.0/8", { hostname: "api.internal", port: "443", priority: "5" }] },
  ],
])("%o", (values, policy) => {
  expect(written(values)).toEqual(policy);
});

test.each<[FlagValues, string]>([
  [{ "--latency": "100" }, "--latency 100: a duration needs a unit, such as 100ms"],
  [{ "--latency": "" }, '--latency "": a duration is a number and a unit, such as 10ms'],
  [{ "--latency": "1\u001b[2J" }, '--latency "1\\u001b[2J": a duration is a number and a unit, such as 10ms'],
  [{ "--packet-loss": "200%" }, "--packet-loss 200%: a probability is at most 100%, such as 1%"],
  [{ "--uplink.rate": "2Mbps" }, "--uplink.rate 2Mbps: a rate is in gbps, mbps, kbps or bps, such as 2mbps"],
  [
    { "--connection-error": "refuse:10%" },
    "--connection-error refuse:10%: must be reset, refused or unreachable, such as refused",
  ],
  [{ "--connection-error": "refused:10" }, "--connection-error refused:10: a probability needs a unit, such as 10%"],
  [
    { "--connection-error.prob": "10%" },
    "--connection-error.prob 10%: --connection-error.kind is missing; give one, such as refused",
  ],
  [{ "--half-open": "1kb:reset:1" }, "--half-open 1kb:reset:1: must be after[:error], such as 32kb:reset"],
  [
    { "--session-budget.action": "drop" },
    "--session-budget.action drop: --session-budget.max-tx is missing; a budget needs",
  ],
  [
    { "--session-budget.max-tx": "1mb", "--session-budget.action": "timeout" },
    "--session-budget.budget-timeout is missing; the action timeout needs it, such as 2s",
  ],
  [{ "--schedule": "spike:5s/30s" }, "--schedule spike:5s/30s: must not be longer than every, such as 5s of every 30s"],
  [{ "--schedule": "wave:3s" }, "--schedule wave:3s: a schedule is ramp:30s, spike:30s/5s or flapping:10s/5s"],
  [{ "--schedule": "ramp:0s" }, "--schedule ramp:0s: must be above 0, such as 30s"],
  [
    { "--target": ["tcp://10.0.0.0/8", "tcp://10.0.0.0/33"] },
    "--target tcp://10.0.0.0/33: not an address or a network",
  ],
  [{ "--target": "hostname=a,prot=tcp" }, '--target hostname=a,prot=tcp: has no key "prot"; the nearest is port'],
  [{ "--target": "tcp://:443", "--latency": "1ms" }, "--target tcp://:443: at least one rule must name a host"],
  [{ "--latncy": "1ms" }, "--latncy: no such flag; the nearest is --latency"],
  [{ "--latency": ["1ms", "2ms"] }, "--latency: given 2 times; give it once"],
  [
    { "--connection-error": "refused:10%", "--connection-error.prob": "3%" },
    "--connection-error.prob 3%: --connection-error refused:10% already says this; give one of them",
  ],
])("%o is refused: %s", (values, sentence) => {
  expect(refusal(values)).toContain(sentence);
});

test("whatever is typed, the answer is a policy or a PolicyError", () => {
  const names = policyFlags.map(({ name }) => name);
  const value = fc.oneof(fc.string(), fc.constantFrom(...policyFlags.map(({ example }) => example)));
  const values = fc.dictionary(
    fc.oneof(fc.constantFrom(...names), fc.string()),
    fc.oneof(value, fc.array(value, { maxLength: 3 }), fc.constant(true as const)),
    { maxKeys: 5 },
  );
  fc.assert(
    fc.property(values, (flags) => {
      const result = policyFromFlags(flags);
      if ("error" in result) {
        expect(result.error).toBeInstanceOf(PolicyError);
        expect(result.error.message).not.toMatch(/\p{Cc}/u);
      }
    }),
    { numRuns: 500 },
  );
});
