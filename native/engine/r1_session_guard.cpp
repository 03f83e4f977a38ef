// R1 session guard: a flow's budget of bytes, ops and time. Bytes are counted to the byte, however the program cuts its
// calls: a call that crosses a limit is cut there, and what lies behind it meets the budget's terminal action.
#include "stages.h"

namespace mishap::engine {
namespace {

bool exhausted(const Unit& unit) {
  const Row& row = unit.row;
  if (row.budget_max_ops) {
    u64 ops = load(&unit.call.flow->up.ops) + load(&unit.call.flow->down.ops);
    if (ops >= unit.limit(row.budget_max_ops)) return true;
  }
  if (row.budget_max_duration_ns) {
    u64 first = load(&unit.call.flow->first_op_ns);
    if (first && unit.call.now_ns - first >= unit.limit(row.budget_max_duration_ns)) return true;
  }
  if (unit.call.kind != OpKind::Send && unit.call.kind != OpKind::Recv) return false;
  u64 room = session_room(unit);
  return room == 0 || (!unit.call.stream && unit.bytes > room);  // a datagram goes whole or not at all
}

}  // namespace

u64 session_room(const Unit& unit) {
  if (!unit.asked(Fault::SessionBudget)) return ~0ull;
  u64 limit = unit.limit(unit.call.direction == Direction::Uplink ? unit.row.budget_max_tx : unit.row.budget_max_rx);
  if (limit == 0) return ~0ull;
  u64 spent = unit.state.bytes;
  return spent < limit ? limit - spent : 0;
}

void session_guard(const Unit& unit, Decision* decision) {
  if (unit.asked(Fault::SessionBudget) && exhausted(unit)) end_session(unit, decision);
}

void end_session(const Unit& unit, Decision* decision) {
  decision->stage = Stage::SessionGuard;
  decision->fault = Fault::SessionBudget;
  switch (static_cast<BudgetAction>(unit.row.budget_action)) {
    case BudgetAction::Drop:
      decision->outcome = Verdict::Drop;
      return;
    case BudgetAction::Timeout:
      decision->outcome = Verdict::Timeout;
      decision->timeout_ns = unit.row.budget_timeout_ns;
      return;
    case BudgetAction::ConnectionError:
      decision->outcome = Verdict::Error;
      decision->error = static_cast<ErrorKind>(unit.row.budget_error);
  }
}

}  // namespace mishap::engine
