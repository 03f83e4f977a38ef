// A flow's identity: what repeats between runs, so that its draws do too. Protocol, peer as the program named it (or the
// listening port), and that it is the n-th such flow of a thread with this path: `tcp:10.0.0.1:80#2@0.1`.
#pragma once

#include "segment/segment.h"

namespace mishap::engine {

constexpr u32 kFlowKinds = 64;  // counters of a thread: flows of the same words share one

struct Identity {
  char words[88];
  u64 key;
  u32 ordinal;
};

// What a flow is called by.
struct FlowName {
  Protocol protocol;
  Role role;
  const char* peer;   // host name, or path of a unix socket; empty: the address stands for it
  const u8* address;  // IPv6 or mapped IPv4
  u16 port;           // the peer's; of an acceptor: its listener's
};
// `ordinals`: the thread's counters, which this moves on.
Identity identify(const Segment& segment, const FlowName& name, const char* thread_path, u16 ordinals[kFlowKinds]);
u64 hash_name(const char* host);  // as Flow::name_hash has it
// The flow of a name that a process looks up: keyed by a hash with the top bit set, which no socket cookie has. nullptr: there
// is no room.
Flow* open_lookup_flow(const Segment& segment, const char* host, i32 policy, const char* process_path, i32 pid, char words[88]);
// Enters it in the journal, where one is kept.
void announce(const Segment& segment, const Identity& id);

}  // namespace mishap::engine
