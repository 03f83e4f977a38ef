// Units that others overtake; see held.h.
#include "held.h"

#include <algorithm>

namespace mishap::relay {

engine::Decision Held::decision() const {
  engine::Decision d;
  d.part_ns[static_cast<u32>(engine::Part::Latency)] = static_cast<i64>(delay_ns);
  d.copies = copies;
  return d;
}

void Held::file(const Segment& segment, i32 policy, Direction direction, u64 now) const {
  if (copies) count_applied(segment, policy, Fault::PacketDuplicate, direction, copies);
  if (overtaken) record_time(segment, policy, Fault::PacketReorder, direction, now - since_ns, 0);
}

u64 HeldUnits::bytes() const {
  u64 bytes = 0;
  for (const Held& unit : units_) bytes += unit.bytes.size();
  return bytes;
}

u64 HeldUnits::next_ns() const {
  u64 next = ~u64{0};
  for (const Held& unit : units_)
    if (unit.due_ns) next = std::min(next, unit.due_ns);
  return next;
}

bool HeldUnits::hold(const u8* bytes, u64 size, const Aim& aim, const engine::Decision& d, u64 now) {
  const auto waiting = std::count_if(units_.begin(), units_.end(), [](const Held& unit) { return unit.window != 0; });
  if (waiting >= static_cast<i64>(d.hold_window)) return false;
  const u64 delay_ns = d.delay_ns() > 0 ? static_cast<u64>(d.delay_ns()) : 0;
  units_.push_back({{bytes, bytes + size}, aim, now, d.hold_ns ? now + d.hold_ns : 0, delay_ns, d.hold_window, 0, d.copies});
  return true;
}

void HeldUnits::pass(u32 units) {
  for (Held& unit : units_) {
    unit.overtaken += units;
    unit.window = unit.window > units ? unit.window - units : 0;
  }
}

std::optional<Held> HeldUnits::take(u64 now, bool any) {
  const auto next = std::find_if(units_.begin(), units_.end(), [&](const Held& unit) { return any || !unit.window || (unit.due_ns && unit.due_ns <= now); });
  if (next == units_.end()) return std::nullopt;
  std::optional<Held> unit = std::move(*next);
  units_.erase(next);
  return unit;
}

}  // namespace mishap::relay
