// Datagrams; see datagrams.h.
#include "datagrams.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "listeners.h"
#include "segment/words.h"
#include "wire/sock_diag.h"

namespace mishap::relay {
namespace {

constexpr int kReadATurn = 64;    // of one peer's socket before others
constexpr int kServedATurn = 64;  // talkers, before the epoll set is looked at again

Endpoint loopback(u32 peer, u16 port) {
  sockaddr_storage own = {};
  u32 length;
  fill_loopback(peer < MISHAP_RELAY_PEERS ? AF_INET : AF_INET6, port, &own, &length);
  return endpoint_of(own);
}

}  // namespace

u64 datagram_socket(const Endpoint& local, const Endpoint& peer) {
  static const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
  wire::SocketQuestion question;
  wire::ask_for_socket(Protocol::Udp, local.address, local.port, peer.address, peer.port, &question);
  alignas(8) u8 answer[1024];
  while (recv(fd, answer, sizeof(answer), 0) > 0) {
  }
  if (send(fd, &question, sizeof(question), 0) != sizeof(question)) return 0;
  return wire::cookie_answered(answer, recv(fd, answer, sizeof(answer), 0));  // the kernel has answered within the send
}

u32 row_of_cookie(const KernelSocket* sockets, u64 cookie) {
  const u32 start = MISHAP_KERNEL_ROW(cookie);
  for (u32 i = 0; cookie && i < MISHAP_KERNEL_WINDOW; i++) {
    const u32 at = (start + i) % MISHAP_KERNEL_SOCKETS;
    if (load_acquire(&sockets[at].owner.cookie) == cookie) return at;
  }
  return MISHAP_KERNEL_SOCKETS;
}

void Datagrams::open(RelayPool* shared) {
  routes_.open(shared, shared_->epoll, kMark | kRoutes);
  pool_.open(shared, shared_->epoll, kMark);
  open_ = true;
}

void Datagrams::told(const RelayConnect& connect) {
  Talker*& talker = by_cookie_[connect.cookie];
  if (!talker) {
    const u64 id = next_id_++;
    talker = talkers_.emplace(id, new Talker(&talk_, id, connect)).first->second.get();
    unheard_.insert(id);
  }
  talker->begin(connect);
}

bool Datagrams::lives(const Talker& talker) const {
  return talker.row() < MISHAP_KERNEL_SOCKETS && load_acquire(&shared_->sockets[talker.row()].owner.cookie) == talker.cookie();
}

// Whether a talker's socket had this port when it was closed: its row says so until another socket has it.
bool Datagrams::closed_at(const Talker& talker, u16 port) const {
  if (talker.row() >= MISHAP_KERNEL_SOCKETS) return false;
  const KernelSocket& row = shared_->sockets[talker.row()];
  return load_acquire(&row.owner.cookie) == 0 && load(&row.local_port) == port;
}

// Who sent from this port and closed his socket at once: the first that has not been heard yet; nullptr: nobody.
Talker* Datagrams::closed_talker(u16 port) const {
  for (const u64 id : unheard_)
    if (Talker* talker = talkers_.at(id).get(); closed_at(*talker, port)) return talker;
  return nullptr;
}

// Whose socket is at this address: asked of the kernel once for each. nullptr: nobody's of the run, who gets nothing from us.
Talker* Datagrams::talker_of(const Endpoint& source, u32 peer) {
  const auto found = by_source_.find(source);
  Talker* talker = found == by_source_.end() ? nullptr : found->second;
  if (talker && lives(*talker)) return talker;
  hear_();  // it was told of before it sent
  const u64 cookie = datagram_socket(source, loopback(peer, pool_.port(peer)));
  if (!cookie) talker = talker && closed_at(*talker, source.port) ? talker : closed_talker(source.port);
  else if (by_cookie_.contains(cookie)) talker = by_cookie_.at(cookie);
  else if (const u32 row = row_of_cookie(shared_->sockets, cookie); row < MISHAP_KERNEL_SOCKETS) talker = make_up(row, cookie, pool_.destination(peer));
  else talker = nullptr;
  if (!talker) return nullptr;
  unheard_.erase(talker->id);
  forget_source(talker);
  by_source_[source] = talker;
  return talker;
}

void Datagrams::forget_source(const Talker* talker) {
  const auto found = by_source_.find(talker->source());
  if (found != by_source_.end() && found->second == talker) by_source_.erase(found);
}

// A talker that was not told of, for want of room: all that is known is its socket's row.
Talker* Datagrams::make_up(u32 row, u64 cookie, const Endpoint& to) {
  KernelSocket socket;
  copy_words(&socket, &shared_->sockets[row]);
  RelayConnect connect = {};
  connect.cookie = cookie;
  connect.row = row;
  connect.process = socket.owner.process;
  connect.pid = socket.owner.pid;
  connect.tid = socket.owner.tid;
  connect.family = socket.family;
  connect.protocol = static_cast<u8>(Protocol::Udp);
  memcpy(connect.peer, to.address, sizeof(connect.peer));
  connect.peer_port = to.port;
  told(connect);
  return by_cookie_.at(cookie);
}

void Datagrams::happened(u64 data, u32 events, u8* buffer) {
  if (data & kOnward) {
    auto found = talkers_.find((data & (kRoutes - 1)) >> 1);
    if (found == talkers_.end()) return;
    found->second->arrived(data & 1, events, buffer);
    settle(found->second.get());
  } else if (data & kRoutes) {
    routes_.changed();
  } else {
    read_peer(static_cast<u32>(data), buffer);
    pool_.keep_ahead();
  }
}

void Datagrams::read_peer(u32 peer, u8* buffer) {
  for (int i = 0; i < kReadATurn; i++) {
    sockaddr_storage from;
    socklen_t length = sizeof(from);
    const ssize_t n = recvfrom(pool_.fd(peer), buffer, kReadBytes, 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0 && errno != EINTR) return;
    const Endpoint source = endpoint_of(from);
    Talker* talker = n < 0 ? nullptr : talker_of(source, peer);
    if (!talker) continue;
    talker->sent(peer, source, buffer, static_cast<u64>(n), now_ns());
    settle(talker);
  }
}

u64 Datagrams::deliver() {
  u64 now = now_ns();
  for (int i = 0; i < kServedATurn && !agenda_.empty(); i++, now = now_ns()) {
    const auto [due_ns, id] = *agenda_.begin();
    if (due_ns > now + kSendingNs && shared_->in_force) break;
    Talker* talker = talkers_.at(id).get();
    talker->advance(now);
    settle(talker);
  }
  return agenda_.empty() ? kNever : shared_->in_force ? agenda_.begin()->first : 0;
}

void Datagrams::settle(Talker* talker) {
  const u64 turn_ns = talker->next_ns();
  if (talker->turn_ns != turn_ns) {
    if (talker->turn_ns != kNever) agenda_.erase({talker->turn_ns, talker->id});
    if (turn_ns != kNever) agenda_.emplace(turn_ns, talker->id);
    talker->turn_ns = turn_ns;
  }
}

void Datagrams::keep_up() {
  if (!open_) return;
  routes_.keep_up();
  pool_.keep_ahead();
  const u64 now = now_ns();
  std::vector<Talker*> over;
  for (const auto& [id, talker] : talkers_) {
    if (!lives(*talker)) talker->close();
    settle(talker.get());
    if (talker->over(now)) over.push_back(talker.get());
  }
  for (Talker* talker : over) remove(talker);
}

void Datagrams::remove(Talker* talker) {
  if (talker->turn_ns != kNever) agenda_.erase({talker->turn_ns, talker->id});
  by_cookie_.erase(talker->cookie());
  unheard_.erase(talker->id);
  forget_source(talker);
  talkers_.erase(talker->id);
}

bool Datagrams::queued() const {
  for (const auto& [id, talker] : talkers_)
    if (talker->queued()) return true;
  return false;
}

}  // namespace mishap::relay
