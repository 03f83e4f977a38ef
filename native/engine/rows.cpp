// Rows as decisions read them: each thread keeps copies of the last rows it used and asks only whether their sequence
// moved. So the hot path copies nothing, and a row that changes mid-decision changes the next decision.
#include "stages.h"

namespace mishap::engine {
namespace {
constexpr u32 kCached = 2;
struct Copy {
  const Row* source;
  u32 sequence;
  bool busy;  // a signal handler that interrupts a refresh must not read half a row
  Row row;
};
thread_local constinit Copy copies[kCached] = {};
}  // namespace

const Row* cached_row(const Segment& segment, i32 policy) {
  u32 sequence = row_sequence(segment, policy);
  if (sequence == 0) return nullptr;
  Copy& copy = copies[static_cast<u32>(policy) % kCached];
  const Row* source = &segment.rows[policy];
  if (copy.busy) return nullptr;
  if (copy.source == source && copy.sequence == sequence) return &copy.row;
  copy.busy = true;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  bool read = read_row(segment, policy, &copy.row);
  copy.source = read ? source : nullptr;
  copy.sequence = read ? copy.row.seq : 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  copy.busy = false;
  return read ? &copy.row : nullptr;
}

}  // namespace mishap::engine
