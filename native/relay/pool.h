// The relay's sockets for destinations of datagrams, one each, on 127.0.0.1 or ::1. The kernel's programs give them out as
// programs name new destinations (contract/relay.h); here some are kept ready ahead of that.
#pragma once

#include <map>
#include <vector>

#include "address.h"
#include "contract/relay.h"

namespace mishap::relay {

class Pool {
 public:
  static constexpr u32 kPeers = 2 * MISHAP_RELAY_PEERS;  // IPv4's, then IPv6's: numbers of peers are below
  ~Pool();

  // `mark`: of the events that say that something came to a peer's socket; its number is or-ed in.
  void open(RelayPool* shared, int epoll, u64 mark);
  // Makes sockets, so that some are ready.
  void keep_ahead();

  int fd(u32 peer) const { return peer < fds_.size() ? fds_[peer] : -1; }
  u16 port(u32 peer) const { return ports_[peer]; }
  // Whom a peer stands for; port 0: nobody yet.
  Endpoint destination(u32 peer) const;
  // A datagram came to a peer's socket: answers of that destination go from there.
  void note(u32 peer, const Endpoint& destination) { by_destination_[destination] = peer; }
  // The peer of somebody who answers, made where nobody named him before; kPeers: none is left.
  u32 peer_of(const Endpoint& destination);

 private:
  bool make(u32 peer);

  RelayPool* shared_ = nullptr;
  int epoll_ = -1;
  u64 mark_ = 0;
  u32 made_[2] = {0, 0};
  bool full_[2] = {false, false};  // no more can be made
  std::vector<int> fds_;
  std::vector<u16> ports_;
  std::map<Endpoint, u32> by_destination_;
};

}  // namespace mishap::relay
