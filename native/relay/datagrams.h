// Everybody who sends datagrams through the relay: whose each one is, and when each has something to do. The loop drives it.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "routes.h"
#include "talker.h"

namespace mishap::relay {

class Datagrams {
 public:
  static constexpr u64 kMark = u64{1} << 63;  // of the events that are ours

  // `hear`: has us told of whoever the kernel has spoken of by now.
  Datagrams(Shared* shared, std::function<void()> hear) : shared_(shared), hear_(std::move(hear)), talk_{shared, &pool_, kMark | kOnward} {}

  void open(RelayPool* shared);
  // A socket's connect, or that it sends without one.
  void told(const RelayConnect& connect);
  void happened(u64 data, u32 events, u8* buffer);
  // Does some of what is due. When there is more: 0 at once, or kNever.
  u64 deliver();
  // Now and then: sees to sockets that were closed, to new routes, and that sockets for new destinations are ready.
  void keep_up();
  bool queued() const;
  // Whether something of it will leave by itself.
  bool moves() const { return !agenda_.empty(); }

 private:
  static constexpr u64 kOnward = u64{1} << 62, kRoutes = u64{1} << 61;

  void read_peer(u32 peer, u8* buffer);
  Talker* talker_of(const Endpoint& source, u32 peer);
  void settle(Talker* talker);
  bool lives(const Talker& talker) const;
  bool closed_at(const Talker& talker, u16 port) const;
  Talker* closed_talker(u16 port) const;
  void forget_source(const Talker* talker);
  Talker* make_up(u32 row, u64 cookie, const Endpoint& to);
  void remove(Talker* talker);

  Shared* const shared_;
  const std::function<void()> hear_;
  Pool pool_;
  Routes routes_;
  Talk talk_;
  bool open_ = false;
  std::unordered_map<u64, std::unique_ptr<Talker>> talkers_;  // by id
  std::unordered_map<u64, Talker*> by_cookie_;
  std::map<Endpoint, Talker*> by_source_;
  std::set<u64> unheard_;                                     // ids of those that have sent nothing yet
  std::set<std::pair<u64, u64>> agenda_;
  u64 next_id_ = 1;
};

}  // namespace mishap::relay
