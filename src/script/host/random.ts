/** Random numbers of scripts: they hang on the seed, the flow and the number of its question, and on nothing else. */

import { flowKey } from "../../recording/key.js";

/** What a flow's draws begin from, 64 bits as two halves. */
export type DrawKey = readonly [low: number, high: number];

export function drawKey(seed: string, flow: string): DrawKey {
  const key = flowKey(`${BigInt(seed)} ${flow}`);
  return [Number(key & 0xffffffffn), Number(key >> 32n)];
}

const WARM_UP = 12;

/** The draws of one question: sfc32 of PractRand (Chris Doty-Humphrey), numbers at least 0 and below 1. */
export function draws([low, high]: DrawKey, question: number): () => number {
  let [a, b, c, counter] = [low, high, question | 0, 1];
  const next = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  for (let i = 0; i < WARM_UP; i++) next();
  return () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
}
