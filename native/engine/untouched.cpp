// Most units are touched by no stage: this finds them without walking the stages, by the very draws that the stages would
// make. What it cannot foretell (a burst under way, a limit near, a delay that all units share) it leaves to the walk, and
// so it does with the first unit that some draw hits. A test holds it to deciding exactly what the walk decides.
#include "stages.h"

namespace mishap::engine {
namespace {

struct Chance {
  u64 base;  // of its draws, but for the unit's number
  u64 ppm;
};
constexpr u32 kMaxChances = 8;

struct Chances {
  Chance each[kMaxChances];
  u32 count = 0;

  void add(const Unit& unit, Stage stage, u32 nth, u64 ppm) {
    if (count < kMaxChances) each[count] = {draw_base(unit.call.draw_key, stage, nth), unit.scaled(ppm)};
    count++;
  }
  // How many units from this one on no chance hits, of as many as `units`.
  u64 unhit(u64 number, u64 units) const {
    for (u32 i = 0; i < count; i++)
      for (u64 n = 0; n < units; n++)
        if (chance(draw_from(each[i].base, number + n), each[i].ppm)) units = n;
    return units;
  }
};

// Whether the next bytes are touched by nothing unless one of these chances hits a unit that begins among them. `unit`
// stands for any of those; `begun`: the first bytes belong to a unit that was drawn for before.
bool foretell(const Unit& unit, u32 asked, bool begun, u64 bytes, Chances* chances) {
  const Row& row = unit.row;
  if ((asked & bit(Fault::Latency)) && unit.line.latency_ns) return false;
  if ((asked & bit(Fault::Jitter)) && unit.line.jitter_ns) return false;
  if (unit.call.kind == OpKind::Recv && (asked & bit(Fault::RecvTimeout))) return false;
  if (unit.state.burst_left || unit.state.bad_state || (begun && unit.state.unit_lost)) return false;
  if ((asked & bit(Fault::SessionBudget)) && (session_exhausted(unit) || session_room(unit) < bytes)) return false;
  if ((asked & bit(Fault::HalfOpen)) && transport_room(unit) < bytes) return false;

  if (asked & bit(Fault::PacketLoss)) chances->add(unit, Stage::ChaosBase, 0, unit.line.loss_ppm);
  if (asked & bit(Fault::CorrelatedLoss)) {
    Chance leave = {draw_base(unit.call.draw_key, Stage::ChaosBase, kTransition), row.p_good_to_bad_ppm};  // a ramp leaves the chain alone
    chances->each[chances->count++] = leave;
    chances->add(unit, Stage::ChaosBase, kStateLoss, row.loss_good_ppm);
  }
  if ((asked & bit(Fault::ConnectionError)) && error_drawn(unit, static_cast<ErrorKind>(row.error_kind)))
    chances->add(unit, Stage::Transport, 0, row.error_ppm);
  if (asked & bit(Fault::PacketReorder)) chances->add(unit, Stage::PostRouting, 0, row.reorder_ppm);
  if (asked & bit(Fault::PacketDuplicate))
    for (u32 i = 0; i < row.duplicate_max_extra && chances->count <= kMaxChances; i++)
      chances->add(unit, Stage::PostRouting, 1 + i, row.duplicate_ppm);
  return chances->count <= kMaxChances;
}

}  // namespace

u64 pass_untouched(Call* call, u64 bytes) {
  if ((call->kind != OpKind::Send && call->kind != OpKind::Recv) || bytes == 0) return 0;
  const Row& row = *call->row;
  FlowDirection& state = call->draft;
  u64 number = state.progress >> kOffsetBits, offset = call->stream ? state.progress & (kOneUnit - 1) : 0;
  const RowDirection& line = call->direction == Direction::Uplink ? row.up : row.down;
  Unit unit = {row, line, *call, state, number, bytes, 0, 0, true};
  Chances chances;
  if (!foretell(unit, row.faults & call->allowed, offset != 0, bytes, &chances)) return 0;

  u64 begun = offset == 0 ? 0 : kStreamUnitBytes - offset;  // bytes that the unit under way still takes
  if (begun > bytes) begun = bytes;
  u64 fresh = call->stream ? (bytes - begun + kStreamUnitBytes - 1) / kStreamUnitBytes : 1;
  u64 unhit = chances.unhit(offset == 0 ? number : number + 1, fresh);
  u64 passed = unhit == fresh ? bytes : begun + unhit * kStreamUnitBytes;
  if (!call->stream && unhit == 0) return 0;
  if (call->stream) state.progress = (number + (offset + passed) / kStreamUnitBytes) << kOffsetBits | (offset + passed) % kStreamUnitBytes;
  state.bytes += passed;
  if (unhit) state.unit_lost = 0;
  call->ahead += unhit + (begun ? 1 : 0);
  return passed;
}

}  // namespace mishap::engine
