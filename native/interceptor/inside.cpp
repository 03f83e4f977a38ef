// What a program that knows of mishap may ask of the interceptor in its own process; the addon finds these by name. Each
// takes the layout's hash, so that two versions of mishap in one process keep to themselves.
#include "contract/layout.h"
#include "interceptor.h"

namespace mishap {

static bool understood(u64 layout_hash) { return layout_hash == kLayoutHash && self.attached; }

}  // namespace mishap

#define EXPORT extern "C" __attribute__((visibility("default"), used))

// The path of the segment that is served here, or nullptr. From now on look-ups may name their policy (kLookupPolicyShift).
EXPORT const char* mishap_segment(mishap::u64 layout_hash) {
  if (!mishap::understood(layout_hash)) return nullptr;
  mishap::store(&mishap::self.marked_lookups, 1u);
  return mishap::segment_path();
}

// From now on sockets that this thread opens, and names that it looks up, are bound to `policy`; -1: to none.
EXPORT void mishap_enter(mishap::u64 layout_hash, mishap::i32 policy) {
  if (mishap::understood(layout_hash)) mishap::thread.entered = static_cast<mishap::u32>(policy + 1);
}
