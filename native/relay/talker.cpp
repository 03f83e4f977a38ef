// A talker's sockets: how its conversation begins, what comes in from both ends, the errors that the network tells of, and how
// what is due leaves. See talker.h.
#include "talker.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "listeners.h"

namespace mishap::relay {

using link::Parcel;
using link::ParcelKind;

namespace {

constexpr int kReadATurn = 64;
constexpr int kUnitsATurn = 64;           // sent of one direction before others
constexpr int kBufferBytes = 8 << 20;     // as much of it as the host allows
constexpr u64 kAgainNs = kMillisecond;    // after which a send that found no room is tried again

}  // namespace

Talker::~Talker() {
  close();
  for (const int fd : onward_)
    if (fd >= 0) ::close(fd);
}

void Talker::begin(const RelayConnect& from) {
  from_ = from;
  opened_ = false;
  const Process* process = find_process(talk_->shared->segment, from.pid, static_cast<u32>(from.process));
  carried_ = process && load(&process->state) == static_cast<u32>(ProcessState::Attached);  // not on its way to another program
}

// With what is first sent, not with the connect: many connect only to learn their address.
void Talker::open_flow(const Endpoint& peer) {
  opened_ = true;
  if (carried_ && peer.port == kDnsPort) return;
  Naming* thread = talk_->shared->threads.of(talk_->shared->segment, from_);
  memcpy(from_.peer, peer.address, sizeof(from_.peer));
  from_.peer_port = peer.port;
  snprintf(process_path_, sizeof(process_path_), "%.*s", static_cast<int>(strcspn(thread->path, ".")), thread->path);
  flow_ = open_flow_for(talk_->shared->segment, talk_->shared->sockets, from_, Role::Datagram, from_.peer_port, talk_->shared->names.of(from_.peer), thread, now_ns());
  generation_ = load(&talk_->shared->segment.header->generation) - 1;
  if (flow_ && closed_ns_) store(&flow_->state, static_cast<u8>(FlowState::Idle));
}

// The socket that talks to destinations of a family, from the address that the program's is bound to, if it is; -1 with errno.
int Talker::onward(u32 family) {
  if (onward_[family] >= 0) return onward_[family];
  const int domain = family ? AF_INET6 : AF_INET, fd = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0) return -1;
  if (family) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  setsockopt(fd, family ? IPPROTO_IPV6 : IPPROTO_IP, family ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof(kBufferBytes));
  sockaddr_storage own = {};
  u32 length;
  fill_loopback(domain, 0, &own, &length);
  const bool is_bound = memcmp(source_.address, endpoint_of(own).address, sizeof(source_.address)) != 0;
  if (is_bound) length = address_of(source_.address, 0, 0, &own);
  else own = {}, own.ss_family = static_cast<sa_family_t>(domain);
  epoll_event event = {EPOLLIN, {.u64 = talk_->onward_mark | id << 1 | family}};
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), length) != 0 || epoll_ctl(talk_->shared->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return -1;
  }
  own_socket(talk_->shared->segment, from_, Role::Datagram, fd, now_ns());
  return onward_[family] = fd;
}

void Talker::close() {
  if (closed_ns_) return;
  closed_ns_ = now_ns();
  count_lost(Direction::Downlink, Account::Cut, down_.line.unsent_bytes() + down_.held.bytes());
  while (!down_.line.empty()) {  // a silence that the program did not sit out was as long as it sat
    const Parcel& parcel = down_.line.head()->parcel;
    if (parcel.kind == ParcelKind::Shutdown) end_silence(parcel);
    down_.line.drop_head();
  }
  down_.held.clear();
  overtake(&up_, 0, true);
  if (flow_ && load(&flow_->cookie) == from_.cookie) store(&flow_->state, static_cast<u8>(FlowState::Idle));
}

// ---- what comes in ----------------------------------------------------------------------------------------------------

void Talker::sent(u32 peer, const Endpoint& source, u8* bytes, u64 size, u64 at_ns) {
  source_ = source;
  const Aim aim = {talk_->pool->destination(peer), peer};
  if (aim.peer.port == 0) return;
  talk_->pool->note(peer, aim.peer);
  if (!opened_) open_flow(aim.peer);
  keep_policy(aim.peer);
  if (talk_->shared->counted && flow_) add(&flow_->up.called, size);
  if (aim.peer.port == kDnsPort) ask(aim, bytes, size, at_ns);
  else carry(&up_, aim, bytes, size, at_ns, false);
}

void Talker::arrived(u32 family, u32 events, u8* buffer) {
  if (events & EPOLLERR) take_errors(family, now_ns());
  for (int i = 0; i < kReadATurn; i++) {
    sockaddr_storage from;
    socklen_t length = sizeof(from);
    const ssize_t n = recvfrom(onward_[family], buffer, kReadBytes, 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    const Endpoint peer = endpoint_of(from);
    const Aim aim = {peer, talk_->pool->peer_of(peer)};
    const u64 size = static_cast<u64>(n);
    if (closed_ns_ || aim.number == Pool::kPeers) count_lost(Direction::Downlink, Account::Cut, size);
    else if (peer.port == kDnsPort) pass_answer(aim, buffer, size);
    else carry(&down_, aim, buffer, size, now_ns(), is_inside(peer, family));
  }
}

// Whether who sent this is in the run and carries the interceptor, which has seen to it then.
bool Talker::is_inside(const Endpoint& peer, u32 family) {
  auto [known, fresh] = inside_.try_emplace(peer, false);
  if (!fresh) return known->second;
  sockaddr_storage own = {};
  socklen_t length = sizeof(own);
  getsockname(onward_[family], reinterpret_cast<sockaddr*>(&own), &length);
  Endpoint here = peer;  // as he sees us, if he is on this host
  here.port = endpoint_of(own).port;
  const u32 row = row_of_cookie(talk_->shared->sockets, datagram_socket(peer, here));
  known->second = row < MISHAP_KERNEL_SOCKETS && (load(&talk_->shared->sockets[row].flags) & MISHAP_SOCKET_CLAIMED);
  return known->second;
}

// What the network says of datagrams that did not arrive goes on to the program, as late as an answer would be.
void Talker::take_errors(u32 family, u64 at_ns) {
  for (;;) {
    sockaddr_storage to = {};
    alignas(cmsghdr) u8 control[512];
    u8 byte;
    iovec part = {&byte, sizeof(byte)};
    msghdr message = {};
    message.msg_name = &to;
    message.msg_namelen = sizeof(to);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (recvmsg(onward_[family], &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) break;
    for (const cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, const_cast<cmsghdr*>(c))) {
      const bool told = family ? c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR : c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
      sock_extended_err error;
      if (!told || c->cmsg_len < CMSG_LEN(sizeof(error))) continue;
      memcpy(&error, CMSG_DATA(c), sizeof(error));
      const bool unreachable = family ? error.ee_origin == SO_EE_ORIGIN_ICMP6 && error.ee_type == ICMP6_DST_UNREACH
                                      : error.ee_origin == SO_EE_ORIGIN_ICMP && error.ee_type == ICMP_DEST_UNREACH && error.ee_code != ICMP_FRAG_NEEDED;
      if (!unreachable) continue;
      const Endpoint peer = endpoint_of(to);
      bounce({peer, talk_->pool->peer_of(peer)}, {error.ee_type, error.ee_code}, at_ns + way_back_ns(at_ns));
    }
  }
  int error;
  socklen_t length = sizeof(error);
  getsockopt(onward_[family], SOL_SOCKET, SO_ERROR, &error, &length);  // which the next call would fail with
}

// ---- what leaves ------------------------------------------------------------------------------------------------------

void Talker::put(Side* side, const Aim& aim, const u8* bytes, u64 size, u64 at_ns, const engine::Decision& d) {
  const u64 delay_ns = d.delay_ns() > 0 ? static_cast<u64>(d.delay_ns()) : 0;
  u32 copies = d.copies;
  if (delay_ns == 0) {
    while (send_on(side, aim, bytes, size))
      if (copies-- == 0) return;
  }
  Parcel parcel = {};
  parcel.kind = ParcelKind::Data;
  parcel.policy = policy_;
  parcel.sent_ns = at_ns;
  parcel.due_ns = at_ns + delay_ns;
  static_assert(link::kParcelParts == engine::kParts);
  memcpy(parcel.part_ns, d.part_ns, sizeof(parcel.part_ns));
  parcel.loss_fault = static_cast<u8>(d.loss_fault);
  parcel.copies = copies;
  parcel.value = aim.number;
  parcel.address_length = address_of(aim.peer.address, aim.peer.port, 0, &parcel.address);
  line_up(side, parcel, bytes, size);
}

void Talker::line_up(Side* side, const Parcel& parcel, const u8* bytes, u64 size) {
  const bool room = side->line.bytes() < kLineBytes;
  if (!room || !side->line.push(parcel, bytes, static_cast<u32>(size), 0)) count_lost(side->direction, Account::Cut, size * (u64{1} + parcel.copies));
}

void Talker::leave(Side* side, u64 until_ns) {
  for (int i = 0; i < kUnitsATurn && !side->line.empty() && side->line.next_due_ns() <= until_ns; i++) {
    const link::Unit& unit = *side->line.head();
    const Parcel parcel = unit.parcel;
    const Aim aim = {endpoint_of(parcel.address), parcel.value};
    if (parcel.kind == ParcelKind::Close) {
      if (aim.number < Pool::kPeers) talk_->shared->raw.bounce(source_, talk_->pool->port(aim.number), {static_cast<u8>(parcel.send_flags >> 8), static_cast<u8>(parcel.send_flags)});
    } else if (parcel.kind == ParcelKind::Shutdown) {
      end_silence(parcel);
    } else {
      if (!send_on(side, aim, unit.data, unit.bytes)) {  // no room: a little later
        std::vector<u8> bytes(unit.data, unit.data + unit.bytes);
        side->line.drop_head();
        Parcel again = parcel;
        again.due_ns = now_ns() + kAgainNs;
        return line_up(side, again, bytes.data(), bytes.size());
      }
      if (!side->line.left(unit.bytes)) {
        if (unit.bytes) continue;  // a copy of it is next
        for (u32 copy = 0; copy < parcel.copies; copy++) send_on(side, aim, unit.data, 0);
      }
      const bool looked_up = parcel.part_ns[static_cast<u32>(engine::Part::Dns)] != 0;  // which is on the way out, whoever answers
      file_delay(talk_->shared->segment, looked_up ? Direction::Uplink : side->direction, parcel, now_ns());
    }
    side->line.drop_head();
  }
}

// One datagram. False: the kernel has no room for it just now. What else fails is the network's loss.
bool Talker::send_on(Side* side, const Aim& aim, const u8* bytes, u64 size) {
  const bool up = side->direction == Direction::Uplink;
  const u32 family = is_ipv4(aim.peer.address) ? 0 : 1;
  sockaddr_storage to;
  const socklen_t length = up ? address_of(aim.peer.address, aim.peer.port, 0, &to) : address_of(source_.address, source_.port, 0, &to);
  for (int tries = 0; tries < 3; tries++) {
    const int fd = up ? onward(family) : talk_->pool->fd(aim.number);
    const ssize_t n = fd < 0 ? -1 : sendto(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&to), length);
    if (n >= 0) {
      if (!up && talk_->shared->counted && flow_) add(&flow_->down.called, size);
      return true;
    }
    if (errno == EAGAIN) return false;
    if (errno == EINTR) continue;
    if (up && (errno == ENETUNREACH || errno == ENETDOWN || errno == EADDRNOTAVAIL)) {
      bounce(aim, no_network(family == 0), now_ns());
      break;
    }
    if (!up || fd < 0) break;
    take_errors(family, now_ns());  // of an earlier one
  }
  count_lost(side->direction, Account::Cut, size);
  return true;
}

// Tells the program, then, that a peer is not to be reached.
void Talker::bounce(const Aim& aim, Unreachable what, u64 due_ns) {
  if (closed_ns_ || aim.number == Pool::kPeers) return;
  Parcel parcel = {};
  parcel.kind = ParcelKind::Close;
  parcel.policy = -1;
  parcel.sent_ns = parcel.due_ns = due_ns;
  parcel.value = aim.number;
  parcel.send_flags = static_cast<u32>(what.type) << 8 | what.code;
  line_up(&down_, parcel, nullptr, 0);
}

void Talker::advance(u64 now) {
  const bool lifted = !talk_->shared->in_force;
  for (Side* side : {&up_, &down_}) {
    overtake(side, 0, lifted);
    leave(side, lifted ? kNever : now + kSendingNs);
  }
}

u64 Talker::next_ns() const {
  u64 next = kNever;
  for (const Side* side : {&up_, &down_}) {
    if (!side->line.empty()) next = std::min(next, side->line.next_due_ns());
    next = std::min(next, side->held.next_ns());
  }
  return next;
}

}  // namespace mishap::relay
