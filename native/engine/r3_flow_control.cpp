// R3 flow control: a line's rate as a virtual clock, the generic cell rate algorithm (ITU-T I.371, virtual scheduling). The
// clock says when the line is free again; booking bytes moves it on by their transmission time. It may lag behind now by
// what the burst allows, so a late wake-up costs nothing and the rate is exact in the long run. One atomic, no lock.
#include "segment/atomic.h"
#include "stages.h"

namespace mishap::engine {
namespace {
u64 transmission_ns(u64 bytes, u64 rate_bps) {
  if (bytes < 1ull << 31) return bytes * 8'000'000'000 / rate_bps;  // the usual case, without a 128-bit division
  return static_cast<u64>(static_cast<unsigned __int128>(bytes) * 8 * 1000000000 / rate_bps);
}

u64* clock_of(const Call& call) {
  if (static_cast<RateScope>(call.row->rate_scope) == RateScope::Flow)
    return call.direction == Direction::Uplink ? &call.flow->up.rate_clock_ns : &call.flow->down.rate_clock_ns;
  Link* link = link_of(*call.segment, call.policy, call.direction);
  return link ? &link->rate_clock_ns : nullptr;
}

const RowDirection& line_of(const Call& call) { return call.direction == Direction::Uplink ? call.row->up : call.row->down; }

// A ramp narrows the line from unlimited to its rate.
u64 rate_of(const Call& call) {
  u64 rate = line_of(call).rate_bps;
  if (!(call.row->faults & call.allowed & bit(Fault::Rate)) || call.scale_ppm == 0) return 0;
  return call.scale_ppm == kCertainPpm ? rate : static_cast<u64>(static_cast<unsigned __int128>(rate) * kCertainPpm / call.scale_ppm);
}
}  // namespace

u64 flow_control(u64* clock_ns, u64 now_ns, u64 bytes, u64 rate_bps, u64 burst_bytes) {
  u64 cost = transmission_ns(bytes, rate_bps), credit = transmission_ns(burst_bytes, rate_bps);
  u64 earliest = now_ns > credit ? now_ns - credit : 0;
  u64 seen = load(clock_ns);
  for (;;) {
    u64 through = (seen > earliest ? seen : earliest) + cost;
    if (swap_if(clock_ns, seen, through)) return through;
    seen = load(clock_ns);
  }
}

void book_rate(Call* call, Step* step) {
  u64 rate = rate_of(*call);
  if (rate == 0 || call->kind == OpKind::Connect || call->kind == OpKind::Dns) return;
  u64* clock = clock_of(*call);
  if (!clock) return;
  u64 through = flow_control(clock, call->now_ns, step->bytes, rate, line_of(*call).rate_burst_bytes);
  step->decision.part_ns[static_cast<u32>(Part::Rate)] = through > call->now_ns ? static_cast<i64>(through - call->now_ns) : 0;
}

u64 foretell_rate(const Call& call, u64 bytes, u64* foretold_ns) {
  u64 rate = rate_of(call);
  u64* clock = rate ? clock_of(call) : nullptr;
  if (!clock) return 0;
  if (load(clock) > *foretold_ns) *foretold_ns = load(clock);
  u64 through = flow_control(foretold_ns, call.now_ns, bytes, rate, line_of(call).rate_burst_bytes);
  return through > call.now_ns ? through - call.now_ns : 0;
}

void unbook_rate(Call* call, u64 bytes) {
  u64 rate = rate_of(*call);
  u64* clock = rate && bytes ? clock_of(*call) : nullptr;
  if (clock) add(clock, u64{0} - transmission_ns(bytes, rate));
}

}  // namespace mishap::engine
