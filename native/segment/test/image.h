// A segment in private memory, for tests that need no file.
#pragma once

#include <string.h>

#include <memory>

#include "segment/segment.h"

namespace mishap {

constexpr Capacities kSmall = {2, 64, 64, 64, 64, 64, 48, 1};

struct Image {
  explicit Image(const Capacities& capacities = kSmall)
      : size(segment_size(capacities)), words(std::make_unique<u64[]>(size / 8)) {
    format(bytes(), size, capacities);
    if (check(bytes(), size, &segment) != AttachError::None) segment = {};
  }
  u8* bytes() { return reinterpret_cast<u8*>(words.get()); }
  Header* header() { return reinterpret_cast<Header*>(bytes()); }
  AttachError checked() {
    Segment scratch;
    return check(bytes(), size, &scratch);
  }
  u64 fallbacks(Fallback reason) { return header()->fallbacks[static_cast<u32>(reason)]; }

  u64 size;
  std::unique_ptr<u64[]> words;
  Segment segment;
};

inline FlowOpening opening_of(u64 cookie) {
  FlowOpening opening = {};
  opening.cookie = cookie;
  opening.key = cookie * 31;
  opening.role = Role::Connector;
  opening.protocol = Protocol::Tcp;
  opening.bound_policy = -1;
  return opening;
}

}  // namespace mishap
