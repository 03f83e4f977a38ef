// The listeners; see listeners.h.
#include "listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <initializer_list>

#include "contract/relay.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace mishap::relay {
namespace {

constexpr int kBacklog = 1;    // at 0 the kernel would warn of a flood
constexpr int kAttempts = 32;  // a port that is free on 127.0.0.1 may be taken on ::1

// Connects to a listener as often as it queues; false with errno.
bool fill(int family, u16 port, int fillers[kFillers]) {
  sockaddr_storage to = {};
  socklen_t length;
  fill_loopback(family, port, &to, &length);
  for (int i = 0; i < kFillers; i++) {
    fillers[i] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fillers[i] < 0 || connect(fillers[i], reinterpret_cast<sockaddr*>(&to), length) != 0) return false;
  }
  return true;
}

u16 port_of(int fd) {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

}  // namespace

int make_socket(int family, bool shares_port) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const linger at_once = {1, 0};
  if (fd < 0) return -1;
  if (shares_port) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  }
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

void fill_loopback(int family, u16 port, void* address, u32* length) {
  if (family == AF_INET) {
    *static_cast<sockaddr_in*>(address) = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
    *length = sizeof(sockaddr_in);
  } else {
    *static_cast<sockaddr_in6*>(address) = {AF_INET6, htons(port), 0, in6addr_loopback, 0};
    *length = sizeof(sockaddr_in6);
  }
}

int listen_on(int family, u16 port, int backlog) {
  const int fd = make_socket(family, true), on = 1, mark = MISHAP_RELAY_MARK;
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));  // where it may (CAP_NET_RAW), and before anybody meets it
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  sockaddr_storage address = {};
  socklen_t length;
  fill_loopback(family, port, &address, &length);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(fd, backlog) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

Listeners::~Listeners() {
  for (int fd : {ipv4_, ipv6_, fillers_[0], fillers_[1], fillers_[2], fillers_[3]})
    if (fd >= 0) close(fd);
}

const char* Listeners::open() {
  const int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe >= 0) close(probe);
  for (int i = 0; i < kAttempts && ipv4_ < 0; i++) {
    ipv4_ = listen_on(AF_INET, 0, kBacklog);
    if (ipv4_ < 0) return "no port on 127.0.0.1 can be listened on";
    port_ = port_of(ipv4_);
    ipv6_ = probe >= 0 ? listen_on(AF_INET6, port_, kBacklog) : -1;
    if (ipv6_ >= 0 || errno != EADDRINUSE) break;
    close(ipv4_);
    ipv4_ = -1;
  }
  if (ipv4_ < 0) return "no port is free on both 127.0.0.1 and ::1";
  if (!fill(AF_INET, port_, fillers_) || (ipv6_ >= 0 && !fill(AF_INET6, port_, fillers_ + kFillers))) return "its own listeners cannot be filled";
  socklen_t length = sizeof(netns_);  // a kernel without it has one namespace's worth of programs to redirect
  if (getsockopt(ipv4_, SOL_SOCKET, SO_NETNS_COOKIE, &netns_, &length) != 0) netns_ = 0;
  return nullptr;
}

}  // namespace mishap::relay
