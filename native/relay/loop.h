// The loop that drives all connections: takes them in as the kernel hands them over, wakes when something is due or ready, and
// beats. One loop does everything and waits for nobody: what beats is what carries.
#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "connection.h"
#include "datagrams.h"
#include "listeners.h"

struct ring_buffer;  // libbpf's

namespace mishap::relay {

class Relay {
 public:
  explicit Relay(const Segment& segment) { shared_.segment = segment; }
  ~Relay();
  // What takes a right: before rights are dropped. Whether raw sockets were had.
  bool open_raw();
  // Why it cannot work; nullptr: it listens.
  const char* open();
  void run();

 private:
  static constexpr u64 kFirstId = 4;  // of connections; below it an event's data is one of these
  enum Event : u64 { kInput, kTimer, kConnects, kIncoming };

  const char* map_shared();
  const char* open_connects();
  const char* open_pool();
  bool watch(int fd, u32 events, u64 data) const;
  void beat();
  void keep_timed();
  u64 deliver();
  void wait(u64 next_ns);
  void read();
  void open_inbound();
  void take_connects();
  void take_incoming();
  Connection* add(const RelayConnect& from);
  void take(const void* data, size_t size);
  void begin(const RelayConnect& connect, int program);
  void begin_early(int program, const sockaddr_storage& from);
  void settle(Connection* connection);
  void finish();
  bool settled();

  Shared shared_;
  Listeners listeners_;
  const char* unheard_ = nullptr;  // why they do not listen
  Inbound inbound_;
  Datagrams datagrams_{&shared_, [this] { take_connects(); }};
  RelayControl* control_ = nullptr;
  ring_buffer* ring_ = nullptr;  // nullptr: connects come as messages of a socket, from a test
  int timer_ = -1;
  std::unordered_map<u64, std::unique_ptr<Connection>> connections_;
  std::unordered_map<u64, u64> by_cookie_;                // the id of each socket's newest
  std::unordered_map<u32, RelayConnect> early_;            // that are to be accepted, by their ports: IPv6's above IPv4's
  std::set<std::pair<u64, u64>> agenda_;                   // when, and the id of the connection that has something to do then
  std::vector<u64> hungry_;                                // ids of those that can be read from
  const std::unique_ptr<u8[]> buffer_{new u8[kReadBytes + engine::kMaxGrowth]};
  u64 next_id_ = kFirstId;
  u32 generation_ = ~u32{0};  // of the policies, as `timed` was last kept
  bool incoming_ = false;  // connections may wait to be taken in
  u64 armed_ns_ = 0, beat_ns_ = 0;
  u64 finishing_ns_ = 0, progress_ns_ = 0;  // since when it ends, 0 not yet; when something was last carried
  u64 unsent_ = 0;                          // when nothing had been carried for long
};

}  // namespace mishap::relay
