// R5 transport faults: time limits for connect and receive; connections refused or unreachable (drawn once a connect, with
// UDP once a send) and reset (drawn once a unit afterwards); half-open after a number of bytes both ways together.
#include "stages.h"

namespace mishap::engine {
namespace {

bool error_drawn(const Unit& unit, ErrorKind kind) {
  bool connecting = unit.call.kind == OpKind::Connect;
  bool datagram = unit.call.flow->role == static_cast<u8>(Role::Datagram);
  if (kind == ErrorKind::Reset) return !connecting && unit.call.stream && unit.fresh;
  return datagram ? unit.call.kind == OpKind::Send : connecting;
}

}  // namespace

void fail_transport(Fault fault, ErrorKind kind, Decision* decision) {
  decision->outcome = Verdict::Error;
  decision->stage = Stage::Transport;
  decision->fault = fault;
  decision->error = kind;
}

u64 transport_room(const Unit& unit) {
  if (!unit.asked(Fault::HalfOpen) || unit.row.half_open_bytes == 0) return ~0ull;
  const Flow* flow = unit.call.flow;
  const FlowDirection& other = unit.call.direction == Direction::Uplink ? flow->down : flow->up;
  u64 carried = unit.state.bytes + load(&other.bytes), limit = unit.limit(unit.row.half_open_bytes);
  return carried < limit ? limit - carried : 0;
}

// Set before any stage decides: an attempt that chance has lost for good is still given up in time.
void transport_limits(const Unit& unit, Decision* decision) {
  if (unit.call.kind == OpKind::Connect && unit.asked(Fault::ConnectTimeout)) decision->limit_ns = unit.limit(unit.row.connect_timeout_ns);
  if (unit.call.kind == OpKind::Recv && unit.asked(Fault::RecvTimeout)) decision->limit_ns = unit.limit(unit.row.recv_timeout_ns);
}

void transport(const Unit& unit, Decision* decision) {
  const Row& row = unit.row;
  if (unit.asked(Fault::ConnectionError)) {
    auto kind = static_cast<ErrorKind>(row.error_kind);
    if (error_drawn(unit, kind) && chance(unit.drawn(Stage::Transport), unit.scaled(row.error_ppm)))
      return fail_transport(Fault::ConnectionError, kind, decision);
  }
  bool data = unit.call.kind == OpKind::Send || unit.call.kind == OpKind::Recv;
  u64 room = data ? transport_room(unit) : ~0ull;
  if (room == 0 || (!unit.call.stream && unit.bytes > room)) fail_transport(Fault::HalfOpen, static_cast<ErrorKind>(row.half_open_error), decision);
}

}  // namespace mishap::engine
