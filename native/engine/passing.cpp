// The common case, without steps: a whole call, or a received span, that no stage touches. Found by the very draws that the
// stages would make, so a test can hold it to deciding what they decide; whatever it cannot foretell in a glance (a delay,
// a burst under way, a limit near, a schedule, a wait for the line, a draw that hits) it leaves to them.
#include "segment/atomic.h"
#include "stages.h"

namespace mishap::engine {
namespace {

constexpr u64 kNoLimit = ~0ull;
constexpr u64 kClockLagNs = 10'000'000;  // CLOCK_MONOTONIC_COARSE: at most a tick behind, which is 10 ms at 100 Hz

// Time on the line, in the plan's 2^-32 ns a byte.
u64 line_ns(u64 bytes, u64 byte_ns) { return static_cast<u64>(static_cast<unsigned __int128>(bytes) * byte_ns >> 32); }

// Books the line's time (R3) if it is free at once for that many bytes. By a clock that lags, so a line that was idle may
// carry a tick's worth more at once than its burst allows; once it is busy the stages book, by the exact one.
bool book_free_line(Passing* p, const Plan& plan, u64 now_ns) {
  Link* link = plan.flow_clock ? nullptr : link_of(*p->segment, load(&p->flow->policy), p->direction);
  u64* clock = plan.flow_clock ? &p->state->rate_clock_ns : link ? &link->rate_clock_ns : nullptr;
  if (!clock) return true;
  u64 seen = load(clock), earliest = now_ns > plan.credit_ns ? now_ns - plan.credit_ns : 0;
  u64 through = (seen > earliest ? seen : earliest) + line_ns(p->bytes, plan.byte_ns);
  if (through > now_ns || !swap_if(clock, seen, through)) return false;
  p->rate_clock_ns = clock;
  p->byte_ns = plan.byte_ns;
  return true;
}

void unclaim(const Passing& p) {
  if (!p.stream) add(&p.state->progress, u64{0} - kOneUnit);
}

// Whether chance spares every one of `units` units from `first` on, and the bytes of this call.
inline bool spared(const Plan& plan, u64 flow_key, u64 call_number, u64 first, u64 units) {
  const u64 key = mix(plan.seed ^ flow_key);
  bool hit = mix(key + plan.mutation.base + call_number * kUnitStride) < plan.mutation.below;
  for (u64 n = 0, at = key + first * kUnitStride; n < units; n++, at += kUnitStride)
    for (const Chance* c = plan.chances; c != plan.chances + plan.count; c++) hit |= mix(at + c->base) < c->below;
  return !hit;
}

}  // namespace

void prepare(const Row& row, Direction direction, bool stream, Plan* plan) {
  const bool up = direction == Direction::Uplink;
  const RowDirection& line = up ? row.up : row.down;
  auto asked = [&](Fault fault) { return (row.faults & bit(fault)) != 0; };
  auto limit = [&](Fault fault, u64 value) { return asked(fault) && value ? value : kNoLimit; };
  const u64 base = op_base(up ? OpKind::Send : OpKind::Recv, direction);
  *plan = {};
  auto draws = [&](Stage stage, u32 nth, u64 ppm) {
    if (ppm >= kCertainPpm || plan->count == kMaxChances) plan->walk = true;
    else plan->chances[plan->count++] = {draw_base(base, stage, nth), hits_below(ppm)};
  };
  plan->walk = row.schedule_kind != 0 || (asked(Fault::Latency) && line.latency_ns) || (asked(Fault::Jitter) && line.jitter_ns);
  plan->seed = mixed_seed(row.seed);
  if (asked(Fault::PacketLoss)) draws(Stage::ChaosBase, 0, line.loss_ppm);
  if (asked(Fault::CorrelatedLoss)) {
    draws(Stage::ChaosBase, kTransition, row.p_good_to_bad_ppm);
    draws(Stage::ChaosBase, kStateLoss, row.loss_good_ppm);
  }
  const bool resets = row.error_kind == static_cast<u8>(ErrorKind::Reset);
  if (asked(Fault::ConnectionError) && (resets ? stream : !stream && up)) draws(Stage::Transport, 0, row.error_ppm);
  if (asked(Fault::PacketReorder)) draws(Stage::PostRouting, 0, row.reorder_ppm);
  if (asked(Fault::PacketDuplicate))
    for (u32 i = 0; i < row.duplicate_max_extra && !plan->walk; i++) draws(Stage::PostRouting, 1 + i, row.duplicate_ppm);
  if (asked(Fault::PayloadMutation)) {
    if (row.mutation_ppm >= kCertainPpm) plan->walk = true;
    plan->mutation = {draw_base(base, Stage::Payload, 0), hits_below(row.mutation_ppm)};
  }

  plan->max_ops = limit(Fault::SessionBudget, row.budget_max_ops);
  plan->max_bytes = limit(Fault::SessionBudget, up ? row.budget_max_tx : row.budget_max_rx);
  plan->max_age_ns = limit(Fault::SessionBudget, row.budget_max_duration_ns);
  if (plan->max_age_ns != kNoLimit) plan->max_age_ns -= plan->max_age_ns < kClockLagNs ? plan->max_age_ns : kClockLagNs;
  plan->max_both_bytes = limit(Fault::HalfOpen, row.half_open_bytes);
  if (!asked(Fault::Rate) || line.rate_bps == 0) return;
  unsigned __int128 byte_ns = (static_cast<unsigned __int128>(8'000'000'000) << 32) / line.rate_bps;
  if (byte_ns >> 64) plan->walk = true;
  plan->rate_bps = line.rate_bps;
  plan->byte_ns = static_cast<u64>(byte_ns);
  plan->credit_ns = static_cast<u64>(static_cast<unsigned __int128>(line.rate_burst_bytes) * 8'000'000'000 / line.rate_bps);
  plan->flow_clock = static_cast<RateScope>(row.rate_scope) == RateScope::Flow;
}

bool pass_whole(Passing* p, const Segment& segment, Flow* flow, Direction direction, u64 bytes, u64 coarse_now_ns) {
  const ReadyRow* ready = ready_row(segment, load(&flow->policy));
  if (!ready) return false;
  if (ready->row.script_asks) {
    bool unasked;
    ready = deciding_row(segment, flow, direction == Direction::Uplink ? OpKind::Send : OpKind::Recv, direction, coarse_now_ns, ready, &unasked);
    if (unasked) return false;
  }
  const bool stream = load(&flow->role) <= static_cast<u8>(Role::Acceptor);
  const Plan& plan = ready->plans[static_cast<u32>(direction)][stream];
  if (plan.walk) return false;

  const bool up = direction == Direction::Uplink;
  FlowDirection* state = up ? &flow->up : &flow->down;
  const FlowDirection* other = up ? &flow->down : &flow->up;
  const u64 ops = load(&state->ops), carried = load(&state->bytes) + bytes, first_op_ns = load(&flow->first_op_ns);
  if (first_op_ns == 0 || load(&state->burst_left) || load(&state->bad_state)) return false;
  if (ops + load(&other->ops) >= plan.max_ops || carried >= plan.max_bytes || coarse_now_ns - first_op_ns >= plan.max_age_ns) return false;
  if (carried + load(&other->bytes) >= plan.max_both_bytes) return false;

  p->segment = &segment;
  p->flow = flow;
  p->state = state;
  p->direction = direction;
  p->stream = stream;
  p->bytes = bytes;
  p->rate_clock_ns = nullptr;
  u64 first, units = 1;
  if (stream) {
    p->progress = load(&state->progress);
    u64 offset = p->progress & (kOneUnit - 1);
    if (offset && load(&flow->last_direction) != static_cast<u8>(direction)) {  // turned: what was begun is done
      p->progress = ((p->progress >> kOffsetBits) + 1) << kOffsetBits;
      offset = 0;
    }
    if (offset && load(&state->unit_lost)) return false;
    first = (p->progress >> kOffsetBits) + (offset != 0);
    const u64 rest = offset ? kStreamUnitBytes - offset : 0;
    units = bytes > rest ? (bytes - rest + kStreamUnitBytes - 1) / kStreamUnitBytes : 0;
  } else {
    p->progress = add(&state->progress, kOneUnit);  // claimed, as begin() does
    first = p->progress >> kOffsetBits;
  }
  p->begins_unit = units != 0;
  if (spared(plan, load(&flow->key), ops, first, units) && (plan.rate_bps == 0 || book_free_line(p, plan, coarse_now_ns))) return true;
  unclaim(*p);
  return false;
}

void passed(const Passing& p, i64 carried) {
  const u64 bytes = carried > 0 ? static_cast<u64>(carried) : 0;
  if (bytes < p.bytes && p.rate_clock_ns)
    add(p.rate_clock_ns, u64{0} - line_ns(p.bytes - bytes, p.byte_ns));
  if (carried < 0) return unclaim(p);
  FlowDirection* state = p.state;
  if (p.stream) {
    const u64 offset = (p.progress & (kOneUnit - 1)) + bytes;
    store(&state->progress, (((p.progress >> kOffsetBits) + offset / kStreamUnitBytes) << kOffsetBits) | offset % kStreamUnitBytes);
    store(&state->bytes, load(&state->bytes) + bytes);
    store(&state->ops, load(&state->ops) + 1);
    store(&p.flow->last_direction, static_cast<u8>(p.direction));
  } else {
    add(&state->bytes, bytes);
    add(&state->ops, u64{1});
  }
  if (p.begins_unit && load(&state->unit_lost)) store(&state->unit_lost, u8{0});
}

}  // namespace mishap::engine
