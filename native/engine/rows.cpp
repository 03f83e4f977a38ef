// Rows as decisions read them: each thread keeps copies of the last rows it used and asks only whether their sequence
// moved. So the hot path copies nothing, and a row that changes mid-decision changes the next decision.
#include <initializer_list>

#include "stages.h"

namespace mishap::engine {
thread_local constinit ReadyRow ready_rows[kReadyRows] = {};
thread_local constinit ReadyRow* ready_table = nullptr;

u64 kept_rows_bytes() { return kMaxPolicies * sizeof(ReadyRow); }
void keep_rows(void* memory) { ready_table = static_cast<ReadyRow*>(memory); }
bool keeps_rows() { return ready_table; }

namespace {
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

const ReadyRow* refresh_row(const Segment& segment, const Row* source, ReadyRow* copy) {
  copy->busy = true;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  bool read = copy_row(segment, source, &copy->row);
  if (read) {
    const bool answer = source < segment.rows || source >= segment.rows + segment.count.policies;
    const bool scripted = answer || copy->row.script_asks;
    if (answer) copy->row.schedule_kind = copy->row.script_asks = 0;  // it is faults alone
    // Only the stages write that an op continued or what a script answered, and find what was decided beforehand; payload is recorded on the long way.
    const bool walks = load(&segment.header->flags) & (kHeaderRecordAll | kHeaderRecordPayload | kHeaderDecided | (scripted ? kHeaderRecord : 0u));
    bound_times(&copy->row);
    for (u32 d = 0; d < kDirections; d++)
      for (bool stream : {false, true}) {
        prepare(copy->row, static_cast<Direction>(d), stream, &copy->plans[d][stream]);
        copy->plans[d][stream].walk |= walks;
      }
  }
  copy->source = read ? source : nullptr;
  copy->sequence = read ? copy->row.seq : 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  copy->busy = false;
  return read ? copy : nullptr;
}

}  // namespace mishap::engine
