// The search for the fewest faults: its two ends, its levels, what it remembers, and how it goes on.
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Atom } from "../../../src/recording/atoms.js";
import { RecordingError } from "../../../src/recording/index.js";
import { type Found, shrink } from "../../../src/recording/shrink.js";
import { Tries, type TriesOf } from "../../../src/recording/tries.js";

const folder = mkdtempSync(join(tmpdir(), "mishap-tries-"));
afterAll(() => rmSync(folder, { recursive: true }));
let serial = 0;
const newFile = (): string => join(folder, `${++serial}.tries`);
const of: TriesOf = { recording: "abc", command: ["npm", "test"], repeats: 1 };

const atoms: Atom[] = Array.from({ length: 480 }, (_, i) => ({
  key: `flow ${i % 40} #${i}`,
  group: `0 ${i % 3}`,
  flow: `flow ${i % 40}`,
  first: i,
}));
const has = (kept: readonly Atom[], ...places: number[]): boolean =>
  places.every((place) => kept.some(({ first }) => first === place));

interface Searched {
  readonly found: Found;
  readonly asked: number;
  readonly progress: [tries: number, left: number][];
}

async function search(fails: (kept: readonly Atom[]) => boolean, path = newFile(), most = Infinity): Promise<Searched> {
  const tries = Tries.open(path, of);
  const progress: [number, number][] = [];
  let asked = 0;
  try {
    const answer = async (kept: readonly Atom[]): Promise<boolean> => {
      if (++asked > most) throw new Error("broken off");
      return fails(kept);
    };
    const found = await shrink(atoms, answer, tries, { onProgress: (...now) => progress.push(now) });
    return { found, asked, progress };
  } finally {
    tries.close();
  }
}

describe("shrink", () => {
  it("finds what is needed, of whatever groups and flows, and tries it once more", async () => {
    const { found, asked, progress } = await search((kept) => has(kept, 17, 402));
    expect(found).toEqual({ kind: "found", left: [atoms[17], atoms[402]], confirmed: true });
    expect(asked).toBeLessThan(80);
    expect(progress[0]).toEqual([0, 480]);
    expect(progress.at(-1)).toEqual([asked - 1, 2]); // the last try is of what was tried before
    for (const [i, [tries, left]] of progress.entries()) {
      expect(tries).toBeGreaterThanOrEqual(progress[i - 1]?.[0] ?? 0);
      expect(left).toBeLessThanOrEqual(progress[i - 1]?.[1] ?? 480);
    }
  });

  it.each([
    ["passes", () => false, 1],
    ["fails", () => true, 2],
  ])("says that the command %s, whatever the faults", async (kind, fails, tries) => {
    const { found, asked } = await search(fails);
    expect([found, asked]).toEqual([{ kind }, tries]);
  });

  it("says when what was found does not fail again", async () => {
    let isSteady = true;
    const seen = new Set<string>();
    const { found } = await search((kept) => {
      const key = kept.map((atom) => atom.key).join();
      isSteady = !seen.has(key);
      seen.add(key);
      return isSteady && has(kept, 3);
    });
    expect(found).toEqual({ kind: "found", left: [atoms[3]], confirmed: false });
  });

  it("that was broken off goes on, and asks for nothing again but for the last try", async () => {
    const fails = (kept: readonly Atom[]): boolean => has(kept, 17, 402, 403);
    const whole = await search(fails);
    const path = newFile();
    await expect(search(fails, path, 30)).rejects.toThrow("broken off");
    const { found, asked, progress } = await search(fails, path);
    expect(found).toEqual(whole.found);
    expect(asked).toBe(whole.asked - 30);
    expect(progress).toEqual(whole.progress);
    expect((await search(fails, path)).asked).toBe(1);
  });
});

describe("tries", () => {
  it("are kept by what was tried, whatever its order, for their owner alone", () => {
    const path = newFile();
    const tries = Tries.open(path, of);
    tries.add(["a", "b"], true);
    tries.add(["b", "a"], true);
    tries.add([], false);
    expect([tries.outcome(["b", "a"]), tries.outcome([]), tries.outcome(["a"])]).toEqual([true, false, undefined]);
    expect([tries.asked, tries.known]).toEqual([2, 2]);
    tries.close();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const again = Tries.open(path, of);
    expect([again.outcome(["a", "b"]), again.outcome([]), again.asked, again.known]).toEqual([true, false, 0, 2]);
    again.remove();
    expect(existsSync(path)).toBe(false);
  });

  it.each<[string, Partial<TriesOf>]>([
    ["recording", { recording: "abd" }],
    ["command", { command: ["npm", "run", "test"] }],
    ["number of repeats", { repeats: 2 }],
    ["limit of time", { timeout_ns: 5 }],
  ])("of another %s are forgotten", (_, other) => {
    const path = newFile();
    const tries = Tries.open(path, of);
    tries.add(["a"], true);
    tries.close();
    expect(Tries.open(path, { ...of, ...other }).known).toBe(0);
    expect(Tries.open(path, of).known).toBe(0);
  });

  it("lack only the line that was cut", () => {
    const path = newFile();
    const tries = Tries.open(path, of);
    for (const key of ["a", "b", "c"]) tries.add([key], true);
    tries.close();
    truncateSync(path, statSync(path).size - 5);
    const again = Tries.open(path, of);
    expect([again.outcome(["b"]), again.outcome(["c"])]).toEqual([true, undefined]);
    again.add(["c"], false);
    again.close();
    expect(Tries.open(path, of).outcome(["c"])).toBe(false);
  });

  it("do not replace a file of something else", () => {
    const path = newFile();
    writeFileSync(path, "my diary\n");
    expect(() => Tries.open(path, of)).toThrow(RecordingError);
    expect(readFileSync(path, "utf8")).toBe("my diary\n");
  });
});
