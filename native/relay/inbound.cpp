// Listening and connecting from known ports; see inbound.h. A client's connection is taken in at once and its other half made
// to the program's listener; where that fails, the client's ends in a reset.
#include "inbound.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include <fstream>

#include "address.h"
#include "listeners.h"
#include "segment/atomic.h"

namespace mishap::relay {
namespace {

constexpr int kBacklog = 4096;
constexpr int kTries = 256;                  // ports, before there is none

const sockaddr* plain(const sockaddr_storage& address) { return reinterpret_cast<const sockaddr*>(&address); }
socklen_t length_of(const sockaddr_storage& address) { return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6); }

sockaddr_storage with_port(sockaddr_storage address, u16 port) {
  u8 bytes[16];
  endpoint_into(address, bytes);
  const u32 scope_id = address.ss_family == AF_INET ? 0 : reinterpret_cast<sockaddr_in6&>(address).sin6_scope_id;
  address_of(bytes, port, scope_id, &address);
  return address;
}

}  // namespace

// ---- ports that the relay connects from -------------------------------------------------------------------------------

void Sources::open(RelaySource* sources, const u64* listening) {
  sources_ = sources;
  listening_ = listening;
  std::ifstream range("/proc/sys/net/ipv4/ip_local_port_range");
  if (!(range >> first_ >> last_) || first_ == 0 || last_ < first_) first_ = 32768, last_ = 60999;
  next_ = static_cast<u16>(first_ + static_cast<u32>(getpid()) * 97 % (last_ - first_ + 1u));
}

u16 Sources::next_free() {
  for (u32 i = 0; i <= static_cast<u32>(last_ - first_); i++) {
    const u16 port = next_;
    next_ = next_ == last_ ? first_ : static_cast<u16>(next_ + 1);
    if (load(&sources_[port].state) == MISHAP_SOURCE_FREE) return port;
  }
  return 0;
}

// The port is written down before the SYN, and whose it is last.
int Sources::connect_from(const Journey& journey, u16* port, const std::function<void(int fd)>& before) {
  errno = EADDRNOTAVAIL;
  for (int i = 0; i < kTries && errno == EADDRNOTAVAIL; i++) {
    *port = next_free();
    if (*port == 0) break;
    const int fd = attempt(journey, *port, before);
    if (fd >= 0) return fd;
    give_back(*port);
    if (errno == EADDRINUSE) errno = EADDRNOTAVAIL;  // somebody else's
  }
  *port = 0;
  return -1;
}

int Sources::attempt(const Journey& journey, u16 port, const std::function<void(int fd)>& before) {
  RelaySource* source = &sources_[port];
  *source = {};
  endpoint_into(journey.source, source->source);
  source->to_port = endpoint_into(journey.to, source->to);
  source->client_port = endpoint_into(journey.client, source->client);
  store_release(&source->state, journey.kind);
  const sockaddr_storage own = with_port(journey.source, port);
  const int fd = make_socket(journey.to.ss_family, true);
  if (fd < 0) return -1;
  if (before) before(fd);
  if (bind(fd, plain(own), length_of(own)) == 0 && (connect(fd, plain(journey.to), length_of(journey.to)) == 0 || errno == EINPROGRESS)) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

void Sources::give_back(u16 port) {
  const int kept = errno;
  if (port) store_release(&sources_[port].state, u32{MISHAP_SOURCE_FREE});
  errno = kept;
}

// ---- the relay's listeners --------------------------------------------------------------------------------------------

Inbound::~Inbound() {
  for (int fd : listeners_)
    if (fd >= 0) close(fd);
}

bool Inbound::open(int sockmap) {
  const int families[] = {AF_INET, AF_INET6};
  bool any = false;
  for (u32 i = 0; i < 2; i++) {
    const int fd = listen_on(families[i], 0, kBacklog);
    const u64 value = static_cast<u64>(fd);
    if (fd < 0) continue;
    socklen_t length = sizeof(own_[i]);
    const bool known = getsockname(fd, reinterpret_cast<sockaddr*>(&own_[i]), &length) == 0 && bpf_map_update_elem(sockmap, &i, &value, BPF_ANY) == 0;
    if (known) any = true, listeners_[i] = fd;
    else close(fd);
  }
  return any;
}

u16 Inbound::port(u32 which) const {
  u8 ignored[16];
  return listeners_[which] < 0 ? u16{0} : endpoint_into(own_[which], ignored);
}

int Inbound::accept_one(const Sources& sources, Journey* journey) {
  for (u32 i = 0; i < 2; i++) {
    for (;;) {
      socklen_t length = sizeof(journey->client), own_length;
      const int fd = listeners_[i] < 0 ? -1 : accept4(listeners_[i], reinterpret_cast<sockaddr*>(&journey->client), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) break;
      fill_loopback(journey->client.ss_family, 0, &journey->source, &own_length);
      length = sizeof(journey->to);
      u8 to[16], own[16];
      const bool named = getsockname(fd, reinterpret_cast<sockaddr*>(&journey->to), &length) == 0;
      const u16 port = named ? endpoint_into(journey->to, to) : 0;
      const bool ours = named && port == endpoint_into(own_[i], own) && memcmp(to, own, sizeof(to)) == 0;
      journey->kind = ours ? MISHAP_SOURCE_OUTGOING : MISHAP_SOURCE_INBOUND;
      if (ours || (named && sources.is_listened(port))) return fd;
      close(fd);  // nobody of the run listens there any more
    }
  }
  return -1;
}

}  // namespace mishap::relay
