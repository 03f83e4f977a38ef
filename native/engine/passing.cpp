// The common case, without steps: a whole call, or a received span, that no stage touches. Found by the very draws that the
// stages would make, so a test can hold it to deciding what they decide; whatever it cannot foretell in a glance (a delay,
// a burst under way, a limit near, a schedule, a wait for the line, a draw that hits) it leaves to them.
#include "segment/atomic.h"
#include "stages.h"

namespace mishap::engine {
namespace {

// Whether the call stays clear of every limit that holds for its flow.
bool within_limits(const Row& row, const Passing& p, u32 asked) {
  const Flow& flow = *p.flow;
  if (asked & bit(Fault::SessionBudget)) {
    u64 first = load(&flow.first_op_ns);
    u64 limit = p.direction == Direction::Uplink ? row.budget_max_tx : row.budget_max_rx;
    if (row.budget_max_ops && load(&flow.up.ops) + load(&flow.down.ops) >= row.budget_max_ops) return false;
    if (row.budget_max_duration_ns && first && p.now_ns - first >= row.budget_max_duration_ns) return false;
    if (limit && load(&p.state->bytes) + p.bytes >= limit) return false;
  }
  if (!(asked & bit(Fault::HalfOpen)) || row.half_open_bytes == 0) return true;
  return load(&flow.up.bytes) + load(&flow.down.bytes) + p.bytes < row.half_open_bytes;
}

// Whether chance spares every one of `units` units from `first` on.
bool spared(const Row& row, const Passing& p, OpKind kind, u32 asked, u64 first, u64 units) {
  const RowDirection& line = p.direction == Direction::Uplink ? row.up : row.down;
  const u64 key = draw_key(row.seed, load(&p.flow->key), kind, p.direction);
  auto hits = [&](Stage stage, u32 nth, u64 ppm) {
    const u64 base = draw_base(key, stage, nth);
    for (u64 n = 0; n < units; n++)
      if (chance(draw_from(base, first + n), ppm)) return true;
    return false;
  };
  if ((asked & bit(Fault::PacketLoss)) && hits(Stage::ChaosBase, 0, line.loss_ppm)) return false;
  if (asked & bit(Fault::CorrelatedLoss)) {
    if (hits(Stage::ChaosBase, kTransition, row.p_good_to_bad_ppm)) return false;
    if (hits(Stage::ChaosBase, kStateLoss, row.loss_good_ppm)) return false;
  }
  if (asked & bit(Fault::ConnectionError)) {
    bool drawn = row.error_kind == static_cast<u8>(ErrorKind::Reset) ? p.stream : !p.stream && kind == OpKind::Send;
    if (drawn && hits(Stage::Transport, 0, row.error_ppm)) return false;
  }
  if ((asked & bit(Fault::PacketReorder)) && hits(Stage::PostRouting, 0, row.reorder_ppm)) return false;
  if (asked & bit(Fault::PacketDuplicate))
    for (u32 i = 0; i < row.duplicate_max_extra && i < 64; i++)
      if (hits(Stage::PostRouting, 1 + i, row.duplicate_ppm)) return false;
  if (asked & bit(Fault::PayloadMutation))
    if (chance(draw(key, Stage::Payload, load(&p.state->ops)), row.mutation_ppm)) return false;
  return true;
}

void unclaim(const Passing& p) {
  if (!p.stream) add(&p.state->progress, u64{0} - kOneUnit);
}

}  // namespace

bool pass_whole(Passing* p, const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 bytes, u64 now_ns) {
  const i32 policy = load(&flow->policy);
  const Row* row = cached_row(segment, policy);
  if (!row || row->schedule_kind) return false;
  const u32 asked = row->faults;
  const RowDirection& line = direction == Direction::Uplink ? row->up : row->down;
  if (((asked & bit(Fault::Latency)) && line.latency_ns) || ((asked & bit(Fault::Jitter)) && line.jitter_ns)) return false;

  p->segment = &segment;
  p->flow = flow;
  p->state = direction == Direction::Uplink ? &flow->up : &flow->down;
  p->direction = direction;
  p->stream = load(&flow->role) <= static_cast<u8>(Role::Acceptor);
  p->bytes = bytes;
  p->now_ns = now_ns;
  p->rate_clock_ns = nullptr;
  if (load(&p->state->burst_left) || load(&p->state->bad_state) || !within_limits(*row, *p, asked)) return false;

  u64 first, units = 1;
  if (p->stream) {
    p->progress = load(&p->state->progress);
    const bool turned = load(&flow->last_direction) != static_cast<u8>(direction);
    u64 offset = p->progress & (kOneUnit - 1);
    if (turned && offset) {
      p->progress = ((p->progress >> kOffsetBits) + 1) << kOffsetBits;
      offset = 0;
    }
    if (offset && load(&p->state->unit_lost)) return false;
    first = (p->progress >> kOffsetBits) + (offset != 0);
    const u64 rest = offset ? kStreamUnitBytes - offset : 0;
    units = bytes > rest ? (bytes - rest + kStreamUnitBytes - 1) / kStreamUnitBytes : 0;
  } else {
    p->progress = add(&p->state->progress, kOneUnit);  // claimed, as begin() does
    first = p->progress >> kOffsetBits;
  }
  p->begins_unit = units != 0;
  if (!spared(*row, *p, kind, asked, first, units) || ((asked & bit(Fault::Rate)) && !book_free_line(p, *row, policy))) {
    unclaim(*p);
    return false;
  }
  return true;
}

void passed(const Passing& p, i64 carried) {
  const u64 bytes = carried > 0 ? static_cast<u64>(carried) : 0;
  if (bytes < p.bytes) unbook_line(p, p.bytes - bytes);
  if (carried < 0) return unclaim(p);
  FlowDirection* state = p.state;
  if (p.stream) {
    const u64 offset = (p.progress & (kOneUnit - 1)) + bytes;
    store(&state->progress, (((p.progress >> kOffsetBits) + offset / kStreamUnitBytes) << kOffsetBits) | offset % kStreamUnitBytes);
    store(&state->bytes, load(&state->bytes) + bytes);
    store(&state->ops, load(&state->ops) + 1);
    if (load(&p.flow->last_direction) != static_cast<u8>(p.direction)) store(&p.flow->last_direction, static_cast<u8>(p.direction));
  } else {
    add(&state->bytes, bytes);
    add(&state->ops, u64{1});
  }
  if (p.begins_unit && load(&state->unit_lost)) store(&state->unit_lost, u8{0});
  if (load(&p.flow->first_op_ns) == 0) store(&p.flow->first_op_ns, p.now_ns);
}

}  // namespace mishap::engine
