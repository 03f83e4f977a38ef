// The legacy control path: faults set by setpriority(2) with a `which` that the kernel does not know, from any language,
// where a run allows it. It sets the calling thread's binding, to a policy that this thread alone has.
//
//   0xFA  who: latency in ms        prio: loss in ppm
//   0xFB                            prio: rate in units of 1,024 bits a second
//   0xFC  who: connect timeout, ms  prio: receive timeout, ms     -1 for unset
#include <errno.h>
#include <string.h>

#include "stages.h"

namespace mishap::engine {
namespace {

constexpr i32 kLatencyAndLoss = 0xFA, kRate = 0xFB, kTimeouts = 0xFC;
constexpr i32 kUnset = -1;
constexpr u64 kMsNs = 1000000;

void ask(Row* row, Fault fault, bool asked) {
  if (asked) row->faults |= bit(fault);
  else row->faults &= ~bit(fault);
}

// What one call changes of the row; an errno for what is out of range.
i32 change(Row* row, i32 which, i32 who, i32 prio) {
  switch (which) {
    case kLatencyAndLoss:
      if (who < 0 || prio < 0 || static_cast<u32>(prio) > kCertainPpm) return EINVAL;
      row->up.latency_ns = row->down.latency_ns = static_cast<u64>(who) * kMsNs;
      row->up.loss_ppm = row->down.loss_ppm = static_cast<u32>(prio);
      ask(row, Fault::Latency, who > 0);
      ask(row, Fault::PacketLoss, prio > 0);
      return 0;
    case kRate: {
      if (prio < 0) return EINVAL;
      const u64 bps = static_cast<u64>(prio) * 1024, usual = bps / 8 / 100;
      row->up.rate_bps = row->down.rate_bps = bps;
      row->up.rate_burst_bytes = row->down.rate_burst_bytes = bps == 0 ? 0 : usual > kStreamUnitBytes ? usual : kStreamUnitBytes;
      ask(row, Fault::Rate, prio > 0);
      return 0;
    }
    case kTimeouts:
      if (who < kUnset || prio < kUnset) return EINVAL;
      row->connect_timeout_ns = who > 0 ? static_cast<u64>(who) * kMsNs : 0;
      row->recv_timeout_ns = prio > 0 ? static_cast<u64>(prio) * kMsNs : 0;
      ask(row, Fault::ConnectTimeout, who > 0);
      ask(row, Fault::RecvTimeout, prio > 0);
      return 0;
    default: return EINVAL;
  }
}

}  // namespace

bool is_legacy_control(i32 which) { return which >= kLatencyAndLoss && which <= kTimeouts; }

i32 legacy_control(const Segment& segment, Caller caller, i32* slot, i32 which, i32 who, i32 prio) {
  Row row = {};
  if (*slot < 0 || !read_row(segment, *slot, &row)) {
    strcpy(row.name, "setpriority");
    row.seed = load(&segment.header->run_seed);
    row.mutation_every_n = 1;
  }
  if (i32 error = change(&row, which, who, prio)) return error;
  if (*slot < 0) *slot = claim_policy(segment, caller.process, 0);
  if (*slot < 0) return ENOSPC;
  row.holder = caller.process;
  publish_row(segment, static_cast<u32>(*slot), row, nullptr, 0);
  return bind(segment, caller, *slot) ? 0 : ENOSPC;
}

}  // namespace mishap::engine
