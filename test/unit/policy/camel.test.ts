// camelCase: one rule, both ways, for keys only; errors speak as the API does.
import fc from "fast-check";
import { describe, expect, expectTypeOf, it } from "vitest";
import { camelPath, type PolicyFields, parseFields, toCamelKeys, toSnakeKeys } from "../../../src/policy/camel.js";
import { PolicyError } from "../../../src/policy/errors.js";
import { policyFlags } from "../../../src/policy/flags.js";
import { parsePolicy } from "../../../src/policy/schema.js";
import { policyArbitrary } from "./support/policies.js";

describe("keys", () => {
  it.each([
    ["latency", "latency"],
    ["packet_loss", "packetLoss"],
    ["correlated_loss.p_good_to_bad", "correlatedLoss.pGoodToBad"],
    ["payload_mutation.swap_pos1", "payloadMutation.swapPos1"],
    ["payload_mutation.every_n_packets", "payloadMutation.everyNPackets"],
    ["targets[0].priority", "targets[0].priority"],
  ])("%s is %s", (snake, camel) => {
    expect(camelPath(snake)).toBe(camel);
  });

  it("of any policy go there and back; values stay", () => {
    fc.assert(
      fc.property(policyArbitrary, (written) => {
        const fields = toCamelKeys(written);
        expect(JSON.stringify(Object.keys(fields))).not.toContain("_");
        expect(toSnakeKeys(fields)).toEqual(written);
        expect(parseFields(fields)).toEqual(parsePolicy(written));
      }),
    );
  });

  it("of any object go there and back, so that no two become one", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[a-zA-Z_]{1,8}$/), fc.integer()), (fields) => {
        expect(toCamelKeys(toSnakeKeys(fields))).toEqual(fields);
      }),
    );
  });

  it("are typed by the same rule", () => {
    expectTypeOf<PolicyFields["packetLoss"]>().toEqualTypeOf<string | undefined>();
    expectTypeOf<NonNullable<PolicyFields["sessionBudget"]>["budgetTimeout"]>().toEqualTypeOf<string | undefined>();
    expectTypeOf<NonNullable<PolicyFields["targets"]>[number]>().toExtend<string | { hostname?: string | undefined }>();
    expectTypeOf<keyof PolicyFields>().not.toEqualTypeOf<string>();
    // @ts-expect-error: a file's key is none of the API's
    expect(() => parseFields({ packet_loss: "1%" })).toThrow(PolicyError);
  });
});

describe("errors", () => {
  const refuse = (fields: unknown): string => {
    try {
      parseFields(fields as PolicyFields);
    } catch (error) {
      expect(error).toBeInstanceOf(PolicyError);
      return error instanceof Error ? error.message : "";
    }
    throw new Error("it was taken");
  };

  it.each([
    [{ packetLos: "1%" }, 'the policy: unknown field "packetLos"; the nearest is packetLoss'],
    [{ packet_loss: "1%" }, 'the policy: unknown field "packet_loss"; the nearest is packetLoss'],
    [{ connectionErro: {} }, 'the policy: unknown field "connectionErro"; the nearest is connectionError'],
    [{ PacketLoss: "1%" }, 'the policy: unknown field "PacketLoss"; the nearest is packetLoss'],
    [{ packetLoss: "1" }, 'packetLoss "1": a probability needs a unit, such as 1%'],
    [{ uplink: { packetLoss: "200%" } }, 'uplink.packetLoss "200%": a probability is at most 100%, such as 1%'],
    [{ targets: [{ hostnam: "x" }] }, 'targets[0]: unknown field "hostnam"; the nearest is hostname'],
    [
      { sessionBudget: {} },
      "sessionBudget.maxTx: missing; a budget needs at least one of maxTx, maxRx, maxOps or maxDuration",
    ],
    [
      { sessionBudget: { maxOps: 1, error: "reset" } },
      "only the action connection_error takes this; set action to connection_error or leave it out",
    ],
    [{ correlatedLoss: 1 }, "such as {pGoodToBad: 1%, pBadToGood: 25%, lossGood: 0%, lossBad: 50%}"],
    [
      { payloadMutation: { type: "corrupt_bytes", minSize: 2, maxSize: 1 } },
      "payloadMutation.maxSize 1: must not be below minSize; raise it or lower minSize",
    ],
    [null, "null: must be an object, such as {latency: 50ms}"],
  ])("%j: %s", (fields, sentence) => {
    expect(refuse(fields)).toContain(sentence);
  });

  it("name no snake_case key, whatever the field", () => {
    const paths = new Set(policyFlags.map((flag) => flag.path));
    // The name of an action of session_budget as well.
    const snakeKeys = [...paths]
      .flatMap((path) => path.split("."))
      .filter((key) => /_/.test(key) && key !== "connection_error");
    for (const path of paths) {
      const keys = path.split(".").map(camelPath);
      const sentence = refuse(keys.reduceRight<unknown>((value, key) => ({ [key]: value }), Symbol("wrong")));
      expect(sentence.split(/[.: ]/)[0]).toBe(keys[0]);
      expect(sentence.split(/\W/).filter((word) => snakeKeys.includes(word))).toEqual([]);
    }
  });

  it("whatever is given, only a PolicyError is thrown", () => {
    const circular: Record<string, unknown> = {};
    circular.uplink = circular;
    expect(refuse(circular)).toContain("uplink");
    fc.assert(
      fc.property(fc.anything(), (fields) => {
        try {
          parseFields(fields as PolicyFields);
        } catch (error) {
          expect(error).toBeInstanceOf(PolicyError);
        }
      }),
    );
  });
});
