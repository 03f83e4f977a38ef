// R8 post-routing: a unit is held so that later ones overtake it, or sent again. On datagrams that is what networks do; on
// streams it breaks the byte stream on purpose. Works on what R7 left.
#include "stages.h"

namespace mishap::engine {

void hold(const Unit& unit, u32 window, Decision* decision) {
  decision->hold = true;
  decision->hold_window = window;
  decision->hold_ns = unit.row.reorder_max_delay_ns;
}

void post_routing(const Unit& unit, Decision* decision) {
  if (!unit.fresh || (unit.call.kind != OpKind::Send && unit.call.kind != OpKind::Recv)) return;
  if (unit.asked(Fault::PacketReorder) && chance(unit.drawn(Stage::PostRouting), unit.scaled(unit.row.reorder_ppm)))
    hold(unit, unit.row.reorder_window, decision);
  if (unit.asked(Fault::PacketDuplicate)) {
    u32 extra = unit.row.duplicate_max_extra < 64 ? unit.row.duplicate_max_extra : 64;
    for (u32 i = 0; i < extra; i++)
      if (chance(unit.drawn(Stage::PostRouting, 1 + i), unit.scaled(unit.row.duplicate_ppm))) decision->copies++;
  }
}

}  // namespace mishap::engine
