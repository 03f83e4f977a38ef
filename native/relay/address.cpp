// Addresses; see address.h.
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

namespace mishap::relay {
namespace {

constexpr u8 kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

}  // namespace

socklen_t to_socket_address(const u8 address[16], u16 port, u32 scope_id, sockaddr_storage* out) {
  *out = {};
  if (memcmp(address, kMapped, sizeof(kMapped)) == 0) {
    auto* in = reinterpret_cast<sockaddr_in*>(out);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    memcpy(&in->sin_addr, address + 12, 4);
    return sizeof(*in);
  }
  auto* in6 = reinterpret_cast<sockaddr_in6*>(out);
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(port);
  in6->sin6_scope_id = scope_id;
  memcpy(&in6->sin6_addr, address, 16);
  return sizeof(*in6);
}

u16 from_socket_address(const sockaddr_storage& from, u8 address[16]) {
  if (from.ss_family != AF_INET) {
    memcpy(address, &reinterpret_cast<const sockaddr_in6&>(from).sin6_addr, 16);
    return ntohs(reinterpret_cast<const sockaddr_in6&>(from).sin6_port);
  }
  memcpy(address, kMapped, sizeof(kMapped));
  memcpy(address + 12, &reinterpret_cast<const sockaddr_in&>(from).sin_addr, 4);
  return ntohs(reinterpret_cast<const sockaddr_in&>(from).sin_port);
}

bool source_towards(const sockaddr_storage& to, socklen_t length, sockaddr_storage* out) {
  *out = {};
  const int probe = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);  // to connect it sends nothing
  if (probe < 0) return false;
  socklen_t size = sizeof(*out);
  const bool found = connect(probe, reinterpret_cast<const sockaddr*>(&to), length) == 0 && getsockname(probe, reinterpret_cast<sockaddr*>(out), &size) == 0;
  const int error = errno;
  close(probe);
  errno = error;
  if (out->ss_family == AF_INET) reinterpret_cast<sockaddr_in*>(out)->sin_port = 0;
  else reinterpret_cast<sockaddr_in6*>(out)->sin6_port = 0;
  return found;
}

}  // namespace mishap::relay
