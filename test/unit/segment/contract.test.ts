// The contract does not drift: layout, hash, document and the words of policies change together.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import * as policyWords from "../../../src/policy/contract.js";
import { contractDocument, layout } from "../../../src/segment/index.js";

describe("the contract", () => {
  it("has the layout hash that this test, the writer and the document were written for", () => {
    expect(layout.layoutHash).toBe("0xaf365a7a16dc165f");
    expect(layout.abiVersion).toBe(1);
  });

  it("is documented as it is; npm run contract writes the page", () => {
    const page = readFileSync(new URL("../../../docs/contract.md", import.meta.url), "utf8");
    expect(page).toBe(contractDocument(layout));
  });

  it("leaves no byte of a struct unnamed", () => {
    for (const struct of layout.structs) {
      let end = 0;
      for (const field of struct.fields) {
        expect(field.offset, `${struct.name}.${field.name}`).toBe(end);
        end += field.size;
      }
      expect(end).toBe(struct.size);
      expect(struct.size % 8, struct.name).toBe(0);
    }
  });

  it("names faults and settings as policies do", () => {
    const { enums, constants } = layout;
    expect(policyWords.FAULTS).toEqual(enums.Fault);
    expect(enums.Protocol).toMatchObject(policyWords.PROTOCOLS);
    expect(policyWords.NAME_KINDS).toEqual(enums.NameKind);
    expect(policyWords.LOSS_MODES).toEqual(enums.LossMode);
    expect(policyWords.RATE_SCOPES).toEqual(enums.RateScope);
    expect(policyWords.JITTER_DISTRIBUTIONS).toEqual(enums.JitterDistribution);
    expect(policyWords.ERROR_KINDS).toEqual(enums.ErrorKind);
    expect(policyWords.BUDGET_ACTIONS).toEqual(enums.BudgetAction);
    expect(policyWords.SCHEDULE_KINDS).toEqual(enums.ScheduleKind);
    expect(policyWords.MUTATION_TYPES).toEqual(enums.MutationType);
    expect(policyWords.MUTATION_TARGETS).toMatchObject(enums.MutationTarget ?? {});
    expect(policyWords.STREAM_UNIT_BYTES).toBe(constants.streamUnitBytes);
  });
});
