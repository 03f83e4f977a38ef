// Delta debugging: what is found fails, none of it can be left out, and it does not take many questions.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { minimise, minimiseByLevels } from "../../../src/recording/ddmin.js";

/** Answers as told, counts, and holds that nothing is asked twice nor without need. */
function asking<Item>(items: readonly Item[], fails: (items: readonly Item[]) => boolean) {
  const asked = new Set<string>();
  return {
    asked,
    fails: async (subset: readonly Item[]): Promise<boolean> => {
      const key = subset.map((item) => items.indexOf(item)).join(" ");
      expect(asked.has(key), `asked twice: ${key}`).toBe(false);
      expect(subset.length).toBeGreaterThan(0);
      expect(subset.length).toBeLessThan(items.length);
      asked.add(key);
      return fails(subset);
    },
  };
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const needs =
  (...causes: number[]) =>
  (items: readonly number[]): boolean =>
    causes.every((cause) => items.includes(cause));

function expectMinimal<Item>(found: readonly Item[], fails: (items: readonly Item[]) => boolean): void {
  expect(fails(found)).toBe(true);
  for (const each of found) expect(fails(found.filter((item) => item !== each))).toBe(false);
}

/** A set's causes: sets of which one has to be there whole, as far as it is within the items. */
const monotone = fc
  .integer({ min: 1, max: 60 })
  .chain((count) =>
    fc.tuple(
      fc.constant(count),
      fc.array(fc.uniqueArray(fc.nat(count - 1), { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 4 }),
    ),
  );

describe("minimise", () => {
  it("finds a cause that needs all of itself, where more faults never help", async () => {
    await fc.assert(
      fc.asyncProperty(monotone, async ([count, causes]) => {
        const items = numbers(count);
        const fails = (subset: readonly number[]): boolean => causes.some((cause) => needs(...cause)(subset));
        const found = await minimise(items, asking(items, fails).fails);
        expectMinimal(found, fails);
        expect(found).toEqual([...found].sort((a, b) => a - b));
      }),
    );
  });

  it("finds a part of which none can be left out, where more faults may help", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 40 }), fc.integer(), fc.nat(4), async (count, seed, one) => {
        const items = numbers(count);
        // Any answer, always the same one for the same items; all fail, none do not.
        const fails = (subset: readonly number[]): boolean => {
          if (subset.length === 0 || subset.length === count) return subset.length > 0;
          let hash = seed;
          for (const item of subset) hash = Math.imul(hash ^ item, 0x9e3779b1) ^ (hash >>> 15);
          return ((hash >>> 7) & 7) <= one;
        };
        expectMinimal(await minimise(items, asking(items, fails).fails), fails);
      }),
      { numRuns: 300 },
    );
  });

  it("needs few questions for two causes among a thousand", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.nat(999), { minLength: 2, maxLength: 2 }), async (causes) => {
        const items = numbers(1000);
        const { asked, fails } = asking(items, needs(...causes));
        expect(await minimise(items, fails)).toEqual(causes.sort((a, b) => a - b));
        expect(asked.size).toBeLessThanOrEqual(120);
      }),
    );
  });

  it.each([
    ["one of a thousand", [317], 20],
    ["one of one", [0], 0],
    ["all of eight", numbers(8), 26],
  ])("needs few questions for %s", async (_, causes, most) => {
    const items = numbers(Math.max(...causes) === 317 ? 1000 : causes.length);
    const { asked, fails } = asking(items, needs(...causes));
    expect(await minimise(items, fails)).toEqual(causes);
    expect(asked.size).toBeLessThanOrEqual(most);
  });

  it("takes items that are alike for several", async () => {
    const items = ["a", "b", "a", "b", "a"];
    const found = await minimise(items, async (subset) => subset.filter((item) => item === "a").length >= 2);
    expect(found).toEqual(["a", "a"]);
  });

  it("says what is left, each time that it is fewer", async () => {
    const items = numbers(64);
    const said: number[] = [];
    await minimise(
      items,
      async (subset) => needs(3, 40)(subset),
      (left) => said.push(left.length),
    );
    expect(said.at(-1)).toBe(2);
    for (const [i, left] of said.entries()) expect(left).toBeLessThan(said[i - 1] ?? items.length);
  });

  it("passes on that a question cannot be answered", async () => {
    const question = minimise(numbers(4), async () => {
      throw new Error("no answer");
    });
    await expect(question).rejects.toThrow("no answer");
  });
});

describe("minimiseByLevels", () => {
  const levels = [(item: number) => String(item % 3), (item: number) => String(item % 30)];

  it("finds a cause that needs all of itself", async () => {
    await fc.assert(
      fc.asyncProperty(monotone, async ([count, causes]) => {
        const fails = (subset: readonly number[]): boolean => causes.some((cause) => needs(...cause)(subset));
        expectMinimal(await minimiseByLevels(numbers(count), levels, async (subset) => fails(subset)), fails);
      }),
    );
  });

  it("needs fewer questions where what matters is of one part", async () => {
    let asked = 0;
    const fails = async (subset: readonly number[]): Promise<boolean> => {
      asked++;
      return needs(31, 2731, 2971)(subset);
    };
    expect(await minimiseByLevels(numbers(3000), levels, fails)).toEqual([31, 2731, 2971]);
    const byLevels = asked;
    asked = 0;
    expect(await minimise(numbers(3000), fails)).toEqual([31, 2731, 2971]);
    expect(byLevels).toBeLessThan(0.75 * asked);
  });
});
