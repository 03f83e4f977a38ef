// Which flow a connection is that was handed over: the thread it comes from by its number, its identity, and its owner, entered in the
// segment as the interceptor does for the sockets of its own process (interceptor/sockets.cpp).
#pragma once

#include <map>
#include <utility>

#include "contract/kernel.h"
#include "contract/relay.h"
#include "engine/engine.h"
#include "engine/identity.h"

namespace mishap::relay {

// What numbers a thread: its path, and how many flows of each kind it made.
struct Naming {
  char path[40];
  u16 flows[engine::kFlowKinds];
};

// The threads that had connections so far. A process that carries the interceptor, or was started by one that does, has its path in
// the segment; others, and threads beside the first, are numbered in the order in which they first do.
class Threads {
 public:
  // Valid until the next call.
  Naming* of(const Segment& segment, const RelayConnect& connect);

 private:
  struct Known {
    char path[40];
    u32 threads;  // seen so far
  };
  Known* process_of(const Segment& segment, const RelayConnect& connect);
  void make_room();

  std::map<u64, Known> processes_;
  std::map<std::pair<u64, i32>, Naming> threads_;
  u32 numbered_ = 0;
};

// Whose the kernel says the socket is; false: its row is another's by now.
bool kernel_owner(const KernelSocket* sockets, const RelayConnect& connect, Owner* out);

// Looks up which policy holds for a flow from now on, and what that wants.
engine::Resolution resolve_flow(const Segment& segment, Flow* flow, const engine::Names& names, Caller caller, engine::Wants* wants);

// Opens the flow of a connection with what was called `host`, publishes its owner and enters it in the journal; nullptr: there is
// no room for it. `port`: that its identity has, the peer's, or of what is accepted the listener's.
Flow* open_flow_for(const Segment& segment, const KernelSocket* sockets, const RelayConnect& connect, Role role, u16 port, const char* host, Naming* thread, u64 now_ns);

// Publishes whose a socket of the relay's own is: where its peer is in the run too, that one's interceptor sees by it that the
// faults are carried at this end.
void own_socket(const Segment& segment, const RelayConnect& from, Role role, int fd, u64 now_ns);

}  // namespace mishap::relay
