// What of a recording can be left out, and recordings of subsets of it.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parsePolicies } from "../../../src/policy/files.js";
import { asPolicy } from "../../../src/recording/as-policy.js";
import { type Atom, atomsOf, fieldValues, withoutFields, writeSubset } from "../../../src/recording/atoms.js";
import {
  FAULT_WORDS,
  OPS,
  openRecording,
  type RecordedEvent,
  type Recording,
  STAGES,
  VERDICTS,
} from "../../../src/recording/index.js";
import { leftJson, leftLines } from "../../../src/recording/left.js";
import { blockOf, eventOf, header, record } from "./support/recordings.js";

const folder = mkdtempSync(join(tmpdir(), "mishap-atoms-"));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

const flows = [
  { key: 11n, words: "tcp:127.0.0.1:80#1@0" },
  { key: 12n, words: "tcp:127.0.0.1:80#2@0" },
];
const index = (words: readonly string[], word: string): number => words.indexOf(word);

type Words = { op?: string; stage: string; verdict: string; fault: string };
function decided({ op = "send", stage, verdict, fault }: Words, rest: Partial<RecordedEvent> = {}): RecordedEvent {
  return eventOf({
    op: index(OPS, op),
    direction: op === "recv" ? 1 : 0,
    stage: index(STAGES, stage),
    verdict: index(VERDICTS, verdict),
    fault: index(FAULT_WORDS, fault),
    ...rest,
  });
}

const loss = { stage: "chaos_base", verdict: "delay", fault: "packet_loss" };
const jitter = { stage: "timing", verdict: "delay", fault: "jitter" };
const budget = { stage: "session_guard", verdict: "drop", fault: "session_budget" };
const events = [
  decided(loss, { unit: 0, value: 2 }), // 0
  decided({ ...loss, verdict: "continue" }, { unit: 1 }),
  decided(jitter, { unit: 0, value: 5000 }), // 2
  decided({ ...loss, op: "recv" }, { unit: 0 }), // 3
  decided({ ...loss, verdict: "skipped" }, { unit: 2 }),
  decided({ stage: "flow_control", verdict: "delay", fault: "rate" }, { unit: 2 }),
  decided(budget, { flow: 1, unit: 4 }), // 6
  decided(budget, { flow: 1, unit: 4 }), // with the one before
  decided(budget, { flow: 1, unit: 5 }), // too
  decided({ ...budget, op: "recv" }, { flow: 1, unit: 1 }), // 9
  decided(loss, { flow: 1, unit: 0, policy: 1 }), // 10
  decided(loss, { flow: 7, unit: 0 }), // of a flow that is not known
];
const policies = [
  {
    slot: 0,
    name: "run",
    policy: {
      jitter: "5us",
      packet_loss: "10%",
      rate_burst: "2kb",
      uplink: { rate: "1mbps", latency: "1ms" },
      downlink: { rate: "2mbps" },
      timeout: { connect: "1s", recv: "2s" },
      session_budget: { max_ops: 5 },
      half_open: { after: "1mb" },
      targets: ["tcp://127.0.0.1"],
      seed: "7",
    },
  },
  { slot: 1, name: "other", policy: { packet_loss: "1%", rate_burst: "2kb", connection_error: { kind: "reset" } } },
];
let recording: Recording;

beforeAll(async () => {
  await record(at("run.mishap"), [blockOf(events.slice(0, 4), flows), blockOf(events.slice(4))], {
    ...header,
    policies,
  });
  recording = openRecording(at("run.mishap"));
});

const named = (...keys: string[]): Atom[] => {
  const found = atomsOf(recording).all.filter(({ key }) => keys.some((part) => key.includes(part)));
  expect(found.length).toBeGreaterThanOrEqual(keys.length);
  return found;
};

async function subset(name: string, kept: readonly Atom[]): Promise<Recording> {
  await writeSubset(recording, at(name), atomsOf(recording), kept);
  return openRecording(at(name));
}

describe("atomsOf", () => {
  it("tells faults from what went on, and those that repeat from others", () => {
    const { all, ofEvent, unknown } = atomsOf(recording);
    expect(all.map(({ key, group, flow, first }) => [key, group, flow, first])).toEqual([
      ["policy 0 rate", "0 rate", "policy 0", undefined],
      ["policy 0 timeout.connect", "0 timeout.connect", "policy 0", undefined],
      ["policy 0 timeout.recv", "0 timeout.recv", "policy 0", undefined],
      [`${flows[0]?.words} uplink send packet_loss chaos_base #0`, "0 packet_loss", flows[0]?.words, 0],
      [`${flows[0]?.words} uplink send jitter timing #0`, "0 jitter", flows[0]?.words, 2],
      [`${flows[0]?.words} downlink recv packet_loss chaos_base #0`, "0 packet_loss", flows[0]?.words, 3],
      [`${flows[1]?.words} uplink send session_budget`, "0 session_budget", flows[1]?.words, 6],
      [`${flows[1]?.words} downlink recv session_budget`, "0 session_budget", flows[1]?.words, 9],
      [`${flows[1]?.words} uplink send packet_loss chaos_base #0`, "1 packet_loss", flows[1]?.words, 10],
    ]);
    expect(ofEvent).toEqual([3, -1, 4, 5, -1, -1, 6, 6, 6, 7, 8, -1]);
    expect(unknown).toBe(1);
  });
});

describe("writeSubset", () => {
  it("keeps the events of what is kept, and says that it is a part", async () => {
    const kept = await subset("some.mishap", named("send session_budget", "recv packet_loss"));
    expect(kept.wholeness).toMatchObject({ damaged_bytes: 0, end: true });
    expect([...kept.events()].map(({ unit, fault }) => [unit, FAULT_WORDS[fault]])).toEqual([
      [0, "packet_loss"],
      [4, "session_budget"],
      [4, "session_budget"],
      [5, "session_budget"],
    ]);
    expect(kept.flowWords(1)).toBe(flows[1]?.words);
    expect(statSync(at("some.mishap")).mode & 0o777).toBe(0o600);
    const { policies: own, partial, ...rest } = kept.header ?? {};
    const { policies: _, ...before } = recording.header ?? {};
    expect([partial, rest]).toEqual([true, before]);
    expect(own?.map(({ policy }) => policy)).toEqual([
      {
        ...{ jitter: "5us", packet_loss: "10%", uplink: { latency: "1ms" }, session_budget: { max_ops: 5 } },
        ...{ half_open: { after: "1mb" }, targets: ["tcp://127.0.0.1"], seed: "7" },
      },
      { packet_loss: "1%", connection_error: { kind: "reset" } },
    ]);
  });

  it("keeps the parts of policies that are kept", async () => {
    const kept = await subset("fields.mishap", named("policy 0 rate", "timeout.recv"));
    expect([...kept.events()]).toEqual([]);
    expect(kept.header?.policies[0]?.policy).toMatchObject({
      ...{ rate_burst: "2kb", uplink: { rate: "1mbps", latency: "1ms" }, downlink: { rate: "2mbps" } },
      timeout: { recv: "2s" },
    });
    expect(kept.header?.policies[0]?.policy.timeout).toEqual({ recv: "2s" });
    expect(atomsOf(kept).all.map(({ key }) => key)).toEqual(["policy 0 rate", "policy 0 timeout.recv"]);
  });

  it("of all is all, and of it the atoms are the same", async () => {
    const { all } = atomsOf(recording);
    const whole = atomsOf(await subset("all.mishap", all));
    expect(whole.all.map(({ key }) => key)).toEqual(all.map(({ key }) => key));
  });
});

describe("what is left", () => {
  it("is said fault by fault", async () => {
    const kept = await subset("said.mishap", named("policy 0 rate", "send session_budget"));
    const lines = leftLines(kept, atomsOf(kept)).map((line) => line.trim().split(/\s{2,}/));
    expect(lines).toMatchObject([
      ["always", "rate_burst 2kb, uplink.rate 1mbps, downlink.rate 2mbps", "run"],
      ["0.000000s", "uplink", "send", "#4", "100 B", "session_guard", "drop", "session_budget", flows[1]?.words, "run"],
    ]);
    expect(leftJson(kept, atomsOf(kept))).toMatchObject([
      { policy: "run", fields: { rate_burst: "2kb", "uplink.rate": "1mbps", "downlink.rate": "2mbps" } },
      { flow: flows[1]?.words, unit: 4, fault: "session_budget" },
    ]);
  });

  it("is a file of policies", async () => {
    const kept = await subset("policy.mishap", named("timeout.recv", "send session_budget", "recv packet_loss"));
    const firsts = new Set(atomsOf(kept).all.map(({ first }) => first));
    const text = asPolicy(kept, "run\n.mishap", "out.yaml", (ordinal) => firsts.has(ordinal));
    expect(
      text,
    ).toBe(`# What is left of run .mishap: with these faults the command still failed, and with any one less it did not.
# Made by \`mishap recording shrink\`. To run a program under it:
#   mishap run --policies out.yaml --policy shrunk -- COMMAND

shrunk:
  packet_loss: 10%
  uplink:
    latency: 1ms
  timeout:
    recv: 2s
  session_budget:
    max_ops: 5
  targets:
    - tcp://127.0.0.1
  seed: "7"
  decisions:
    - { flow: tcp:127.0.0.1:80#1@0, direction: downlink, op: recv, unit: 0, stage: chaos_base, verdict: delay, fault: packet_loss, value: 0 }
    - { flow: tcp:127.0.0.1:80#2@0, direction: uplink, op: send, unit: 4, stage: session_guard, verdict: drop, fault: session_budget, value: 0 }
other:
  packet_loss: 1%
  connection_error:
    kind: reset
`);
    const plain = text.replace(/ {2}decisions:\n( {4}.*\n)*/, "");
    expect([...parsePolicies(plain, "yaml", "out.yaml").keys()]).toEqual(["shrunk", "other"]);
  });

  it("is less in a policy where the run's own does not ask for a fault", async () => {
    const other = [policies[1], policies[0]].map((policy, slot) => ({
      slot,
      name: `p${slot}`,
      policy: policy?.policy ?? {},
    }));
    const path = at("others.mishap");
    await record(path, [blockOf(events.slice(2, 4), flows)], { ...header, policies: other });
    const text = asPolicy(openRecording(path), "run.mishap", "out.yaml", () => true);
    expect(text).toContain(
      "# 1 of 2 decisions are missing: their faults are other policies', which hold no decisions.",
    );
    expect(text).toMatch(
      /\nshrunk:\n {2}packet_loss: 1%\n {2}rate_burst: 2kb\n {2}decisions:\n {4}- .*packet_loss, value: 0 }\np1:\n/,
    );
  });
});

describe("fields of policies", () => {
  it("are found and left out by path", () => {
    expect(fieldValues({ rate_burst: "1kb" }, "rate")).toEqual({});
    expect(fieldValues({ rate: "1mbps" }, "rate")).toEqual({ rate: "1mbps" });
    expect(fieldValues({ timeout: null }, "timeout.recv")).toEqual({});
    expect(
      withoutFields({ a: { b: 1, c: 2 }, d: 3, e: { f: 4 } }, [["a", "b"], ["d"], ["e", "f"], ["g", "h"]]),
    ).toEqual({
      a: { c: 2 },
    });
  });
});
