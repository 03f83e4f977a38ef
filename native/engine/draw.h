// Counter-based random numbers: every draw is a function of (seed, flow identity, op and direction, stage, number of the
// unit of chance, n-th draw there), so that no interleaving of threads can change it. The mixing function is SplitMix64's
// finalizer (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
#pragma once

#include "contract/types.h"

namespace mishap::engine {

constexpr u64 mix(u64 x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// What stays the same for all draws of a seed, for those of one op in one direction, and for a flow's draws there.
constexpr u64 mixed_seed(u64 seed) { return mix(seed + 0x9e3779b97f4a7c15ull); }
constexpr u64 op_base(OpKind kind, Direction direction) {
  return ((static_cast<u64>(kind) << 1) | static_cast<u64>(direction)) * 0xd1342543de82ef95ull;
}
constexpr u64 draw_key(u64 seed, u64 flow_key, OpKind kind, Direction direction) {
  return mix(mixed_seed(seed) ^ flow_key) + op_base(kind, direction);
}

// What stays the same for the draws of one kind, and one of them.
constexpr u64 kUnitStride = 0x9e3779b97f4a7c15ull;
constexpr u64 draw_base(u64 key, Stage stage, u32 nth) { return key + ((static_cast<u64>(stage) << 8) | nth) * 0x8cb92ba72f3d8dd7ull; }
constexpr u64 draw_from(u64 base, u64 unit) { return mix(base + unit * kUnitStride); }

constexpr u64 draw(u64 key, Stage stage, u64 unit, u32 nth = 0) { return draw_from(draw_base(key, stage, nth), unit); }

// True with the given probability: the top 32 bits against ppm, exact to 2^-32 of a million.
constexpr bool chance(u64 drawn, u64 ppm) { return (((drawn >> 32) * kCertainPpm) >> 32) < ppm; }

// The same turned round, for ppm below certain: the draws that hit are those below this.
constexpr u64 hits_below(u64 ppm) { return ((ppm << 32) + kCertainPpm - 1) / kCertainPpm << 32; }

// Uniform in [0, 1).
constexpr double unit_interval(u64 drawn) { return static_cast<double>(drawn >> 11) * 0x1p-53; }

}  // namespace mishap::engine
