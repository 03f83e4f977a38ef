// The pool; see pool.h.
#include "pool.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "listeners.h"
#include "segment/atomic.h"

namespace mishap::relay {
namespace {

constexpr u32 kAhead = 48;               // sockets that are ready before anybody names a destination
constexpr int kBufferBytes = 8 << 20;    // as much of it as the host allows: what does not fit is lost
constexpr int kTakingTries = 8;
constexpr int kPriority = MISHAP_RELAY_PRIORITY;

}  // namespace

Pool::~Pool() {
  for (const int fd : fds_)
    if (fd >= 0) close(fd);
}

void Pool::open(RelayPool* shared, int epoll, u64 mark) {
  shared_ = shared;
  epoll_ = epoll;
  mark_ = mark;
  fds_.assign(kPeers, -1);
  ports_.assign(kPeers, 0);
  keep_ahead();
}

void Pool::keep_ahead() {
  for (u32 family = 0; family < 2; family++) {
    const u32 wanted = std::min<u32>(MISHAP_RELAY_PEERS, load(&shared_->used[family]) + kAhead), before = made_[family];
    while (made_[family] < wanted && !full_[family]) {
      full_[family] = !make(family * MISHAP_RELAY_PEERS + made_[family]);
      if (!full_[family]) made_[family]++;
    }
    if (made_[family] != before) store_release(&shared_->ready[family], made_[family]);
  }
}

bool Pool::make(u32 peer) {
  const u32 family = peer / MISHAP_RELAY_PEERS;
  const int domain = family ? AF_INET6 : AF_INET, fd = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  sockaddr_storage own = {};
  socklen_t length;
  fill_loopback(domain, 0, &own, &length);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof(kBufferBytes));
  setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &kPriority, sizeof(kPriority));
  epoll_event event = {EPOLLIN, {.u64 = mark_ | peer}};
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), length) != 0 || getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) != 0 ||
      epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    close(fd);
    return false;
  }
  fds_[peer] = fd;
  ports_[peer] = endpoint_of(own).port;
  store(&shared_->peers[peer].pool_port, ports_[peer]);
  store(&shared_->peer_of_port[family << 16 | ports_[peer]], static_cast<u16>(peer % MISHAP_RELAY_PEERS + 1));
  return true;
}

Endpoint Pool::destination(u32 peer) const {
  Endpoint destination;
  memcpy(destination.address, shared_->peers[peer].address, sizeof(destination.address));
  destination.port = load(&shared_->peers[peer].port);
  return destination;
}

u32 Pool::peer_of(const Endpoint& destination) {
  if (auto found = by_destination_.find(destination); found != by_destination_.end()) return found->second;
  const u32 family = is_ipv4(destination.address) ? 0 : 1;
  for (int i = 0; i < kTakingTries; i++) {
    const u32 at = load(&shared_->used[family]);
    if (at >= made_[family]) break;
    if (!swap_if(&shared_->used[family], at, at + 1)) continue;
    const u32 peer = family * MISHAP_RELAY_PEERS + at;
    memcpy(shared_->peers[peer].address, destination.address, sizeof(destination.address));
    store(&shared_->peers[peer].port, destination.port);
    by_destination_[destination] = peer;
    return peer;
  }
  return kPeers;
}

}  // namespace mishap::relay
