// Rows as decisions read them: the process keeps a copy of each row it uses and asks only whether its sequence moved. So
// the hot path copies nothing, and a row that changes mid-decision changes the next decision.
#include <initializer_list>

#include "stages.h"

namespace mishap::engine {
constinit const ReadyRow* ready_rows[kMaxPolicies] = {};

namespace {
// Taken by turns, so that who still decides by an older copy finds it whole through several publications. What a decision
// would make of one that changed under it is wrong for one call, never out of bounds: every row is checked as it is read.
constexpr u32 kCopies = 4;
constinit ReadyRow copies[kMaxPolicies][kCopies] = {};

// Times from memory are never trusted to add up without overflow: none is longer than two years.
void bound_times(Row* row) {
  constexpr u64 kLongestNs = 1ull << 56;
  u64* times[] = {&row->up.latency_ns,      &row->up.jitter_ns,       &row->down.latency_ns,
                  &row->down.jitter_ns,     &row->connect_timeout_ns, &row->recv_timeout_ns,
                  &row->dns_delay_ns,       &row->dns_timeout_ns,     &row->budget_timeout_ns,
                  &row->schedule_first_ns,  &row->schedule_second_ns, &row->reorder_max_delay_ns};
  for (u64* time : times)
    if (*time > kLongestNs) *time = kLongestNs;
}
}  // namespace

const ReadyRow* refresh_row(const Segment& segment, i32 policy) {
  Row row;
  if (!read_row(segment, policy, &row)) return nullptr;
  bound_times(&row);
  const ReadyRow* current = load_acquire(&ready_rows[policy]);
  const u64 next = current ? static_cast<u64>(current - copies[policy]) + 1 : 0;
  for (u32 i = 0; i < kCopies - 1; i++) {
    ReadyRow& copy = copies[policy][(next + i) % kCopies];
    if (!swap_if(&copy.busy, 0u, 1u)) continue;  // another thread's, or this one's own that a signal handler interrupts
    copy.source = nullptr;
    copy.row = row;
    for (u32 d = 0; d < kDirections; d++)
      for (bool stream : {false, true}) prepare(row, static_cast<Direction>(d), stream, &copy.plans[d][stream]);
    copy.sequence = row.seq;
    copy.source = &segment.rows[policy];
    store_release(&ready_rows[policy], static_cast<const ReadyRow*>(&copy));
    store_release(&copy.busy, 0u);
    return &copy;
  }
  return nullptr;
}

}  // namespace mishap::engine
