// Units of one direction that are held back so that others overtake them (R8, packet_reorder): until so many have, or until
// their time has come.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "address.h"
#include "engine/engine.h"

namespace mishap::relay {

// Whom a datagram is for, or came from.
struct Aim {
  Endpoint peer;
  u32 number = 0;  // in the pool
};

struct Held {
  std::vector<u8> bytes;
  Aim aim;  // of a datagram
  u64 since_ns, due_ns, delay_ns;  // due_ns 0: no time bound
  u32 window, overtaken, copies;

  // Its way from now on: as long as that of the units that overtook it.
  engine::Decision decision() const;
  // Files what its holding came to, now that it goes. Where nothing overtook it, it was late, not reordered.
  void file(const Segment& segment, i32 policy, Direction direction, u64 now) const;
};

class HeldUnits {
 public:
  bool empty() const { return units_.empty(); }
  u64 bytes() const;
  // When the first goes however few went by; ~0: none does.
  u64 next_ns() const;
  // False: as many are held as may be.
  bool hold(const u8* bytes, u64 size, const Aim& aim, const engine::Decision& d, u64 now);
  // So many units went by.
  void pass(u32 units);
  // The next whose window is used up or whose time has come, or whichever is next.
  std::optional<Held> take(u64 now, bool any);
  void clear() { units_.clear(); }

 private:
  std::deque<Held> units_;
};

}  // namespace mishap::relay
