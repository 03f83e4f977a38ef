// What was done, measured where it was done: counters by stage and verdict, faults applied, and log-linear
// histograms of delivered time. "of" is counted per flow (see flow.h) and folded here when a slot changes hands.
#pragma once

#include "fields.h"

namespace mishap {

// Log-linear buckets (as in HdrHistogram): values in units of 1,024 ns; 256 sub-buckets an octave, so a
// bucket is at most 0.4 % wide; the last takes all from 2^27 units (137 s) on.
constexpr u32 kHistogramUnitShift = 10;
constexpr u32 kHistogramSubBits = 8;
constexpr u32 kHistogramOctaves = 20;
constexpr u32 kHistogramBuckets = kHistogramOctaves << kHistogramSubBits;

constexpr u32 histogram_bucket(u64 value_ns) {
  u64 v = value_ns >> kHistogramUnitShift;
  if (v < (1u << kHistogramSubBits)) return static_cast<u32>(v);
  u32 octave = 63 - static_cast<u32>(__builtin_clzll(v)) - kHistogramSubBits;
  u64 bucket = (static_cast<u64>(octave) << kHistogramSubBits) + (v >> octave);
  return bucket < kHistogramBuckets ? static_cast<u32>(bucket) : kHistogramBuckets - 1;
}
// The lowest value of a bucket, in nanoseconds.
constexpr u64 histogram_floor_ns(u32 bucket) {
  if (bucket < (2u << kHistogramSubBits)) return static_cast<u64>(bucket) << kHistogramUnitShift;
  u32 octave = (bucket >> kHistogramSubBits) - 1;
  return ((static_cast<u64>(bucket) - (static_cast<u64>(octave) << kHistogramSubBits)) << octave) << kHistogramUnitShift;
}
static_assert(histogram_bucket(histogram_floor_ns(1000)) == 1000 && histogram_bucket(histogram_floor_ns(4711)) == 4711);

// What became of bytes between a program's calls and the kernel's.
enum class Account : u8 {
  Dropped,     // lost on purpose: loss in drop mode, a spent budget
  Cut,         // cut off by a payload mutation, or lost with a line, a connection or a unit that was held back
  Injected,    // added by a payload mutation
  Duplicated,  // extra copies
  Count
};
constexpr u32 kAccounts = static_cast<u32>(Account::Count);

#define MISHAP_STATS(FIELD, ARRAY)                                                                \
  ARRAY(u64, verdicts, 99, "9 stages x 11 verdicts; continue and skipped are derived by the reader, answered is not counted") \
  ARRAY(u64, applied, 34, "17 faults x 2 directions: real effects counted where they happened")   \
  ARRAY(u64, gated_units, 2, "units carried while the schedule was off, by direction")            \
  ARRAY(u64, gated_ops, 2, "ops carried while the schedule was off, by direction")                \
  ARRAY(u64, folded_units, 2, "units of flows whose slot changed hands, by direction")            \
  ARRAY(u64, folded_ops, 2, "ops of flows whose slot changed hands, by direction")                \
  FIELD(u64, connects, "connect ops")                                                             \
  FIELD(u64, lookups, "dns ops")                                                                  \
  FIELD(u64, reserved, "zero")                                                                    \
  FIELD(u64, lost_held_bytes, "bytes held back that their process took with it")                  \
  ARRAY(u64, accounts, 8, "bytes dropped, cut, injected, duplicated x 2 directions; where the kernel watches") \
  ARRAY(u16, histograms, 24, "12 timed faults x 2 directions: 1 + row of the histograms region; 0 none")
MISHAP_STRUCT(Stats, 1272, "Counters of a policy.", MISHAP_STATS)

#define MISHAP_HISTOGRAM(FIELD, ARRAY)                                                            \
  FIELD(u64, count, "samples")                                                                    \
  FIELD(u64, sum_ns, "of all samples")                                                            \
  FIELD(u64, min_ns, "smallest sample + 1; 0 none yet")                                           \
  FIELD(u64, max_ns, "largest sample")                                                            \
  FIELD(u64, asked_sum_ns, "what the decisions asked for, summed over the same samples")          \
  ARRAY(u32, buckets, 5120, "log-linear, see native/contract/stats.h")
MISHAP_STRUCT(Histogram, 20520, "Delivered time of one fault of one policy in one direction.", MISHAP_HISTOGRAM)
static_assert(kAccounts * kDirections == 8);
static_assert(kHistogramBuckets == 5120 && kFaults == 17 && kTimedFaults == 12 && kStages == 9 && kVerdicts == 11);

}  // namespace mishap
