/**
 * Delta debugging: a smallest part of a set that still does what the whole does. After the algorithm ddmin of Zeller and
 * Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions on Software Engineering 28 (2),
 * 2002, section 3; and for sets with an order of more and less coarse parts, after Misherghi and Su, "HDD: Hierarchical
 * Delta Debugging", ICSE 2006.
 */

import { createHash } from "node:crypto";

/** Whether these items alone do what all do. */
export type Fails<Item> = (items: readonly Item[]) => Promise<boolean>;

/**
 * A part of the items that fails and of which none can be left out: without any one of it, it does not fail. It takes
 * for given that all items fail and that none at all do not, asks for neither, and asks for nothing twice. Items keep
 * their order.
 *
 * @param progress - told which are left, each time that fewer are
 */
export async function minimise<Item>(
  items: readonly Item[],
  fails: Fails<Item>,
  progress: (left: readonly Item[]) => void = () => {},
): Promise<Item[]> {
  const asks = remembering(items, fails);
  let chunks: readonly Chunk[] = [items.map((_, index) => index)];
  const reduceTo = (fewer: readonly Chunk[]): void => {
    chunks = fewer;
    progress(pick(items, fewer.flat()));
  };
  while (chunks.some((chunk) => chunk.length > 1)) {
    chunks = chunks.flatMap(halves);
    const alone = await first(chunks, asks);
    if (alone !== undefined) {
      reduceTo([alone]);
      continue;
    }
    // Round and round, until each chunk that is left was found to be needed beside all the others that are.
    for (let at = 0, needed = 0; needed < chunks.length && chunks.length > 1; ) {
      at %= chunks.length;
      const others = chunks.toSpliced(at, 1);
      if (await asks(others.flat())) {
        reduceTo(others);
        needed = 0;
      } else {
        at++;
        needed++;
      }
    }
  }
  return pick(items, chunks.flat());
}

/**
 * {@link minimise}, first over coarse parts, then within what is left of them over finer ones, and last over the items
 * themselves: where what matters lies close together, that takes fewer questions.
 *
 * @param levels - what an item is a part of, the coarsest first
 */
export async function minimiseByLevels<Item>(
  items: readonly Item[],
  levels: readonly ((item: Item) => string)[],
  fails: Fails<Item>,
  progress: (left: readonly Item[]) => void = () => {},
): Promise<Item[]> {
  let left = [...items];
  for (const partOf of levels) {
    const parts = new Map<string, Item[]>();
    for (const item of left) {
      const part = parts.get(partOf(item));
      if (part === undefined) parts.set(partOf(item), [item]);
      else part.push(item);
    }
    const whole = left;
    const itemsOf = (kept: readonly Item[][]): Item[] => {
      const isKept = new Set(kept.flat());
      return whole.filter((item) => isKept.has(item)); // in their own order, whatever parts they are of
    };
    const found = await minimise(
      [...parts.values()],
      (kept) => fails(itemsOf(kept)),
      (kept) => progress(itemsOf(kept)),
    );
    left = itemsOf(found);
  }
  return minimise(left, fails, progress);
}

/** Places of items. */
type Chunk = readonly number[];

function halves(chunk: Chunk): Chunk[] {
  if (chunk.length < 2) return [chunk];
  const middle = chunk.length >> 1;
  return [chunk.slice(0, middle), chunk.slice(middle)];
}

async function first(chunks: readonly Chunk[], holds: (chunk: Chunk) => Promise<boolean>): Promise<Chunk | undefined> {
  for (const chunk of chunks) if (await holds(chunk)) return chunk;
  return undefined;
}

function pick<Item>(items: readonly Item[], chunk: Chunk): Item[] {
  return chunk.flatMap((index) => items.slice(index, index + 1));
}

/** The answers that were given, by a hash of the places: a set of many items asked for often would be much to keep. */
function remembering<Item>(items: readonly Item[], fails: Fails<Item>): (chunk: Chunk) => Promise<boolean> {
  const answers = new Map<string, boolean>();
  return async (chunk) => {
    const key = createHash("sha256").update(Uint32Array.from(chunk)).digest("base64");
    const known = answers.get(key);
    if (known !== undefined) return known;
    const answer = await fails(pick(items, chunk));
    answers.set(key, answer);
    return answer;
  };
}
