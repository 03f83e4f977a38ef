/** What a flow's draws hang on, from its identity in words: as native/interceptor/sockets.cpp and engine.cpp make it. */

const MASK = 0xffffffffffffffffn;

/** FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), then SplitMix64's finalizer (Steele, Lea, Flood 2014). */
export function flowKey(words: string): bigint {
  let hash = 0xcbf29ce484222325n ^ 2n;
  for (const byte of Buffer.from(words, "utf8")) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
  return mix(hash);
}

function mix(given: bigint): bigint {
  let x = given;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}
