// Addresses; see address.h.
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <unistd.h>

namespace mishap::relay {
namespace {

constexpr u8 kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

}  // namespace

bool is_ipv4(const u8 address[16]) { return memcmp(address, kMapped, sizeof(kMapped)) == 0; }

socklen_t address_of(const u8 address[16], u16 port, u32 scope_id, sockaddr_storage* out) {
  *out = {};
  if (is_ipv4(address)) {
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

Endpoint endpoint_of(const sockaddr_storage& address) {
  Endpoint endpoint;
  if (address.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    memcpy(endpoint.address, kMapped, sizeof(kMapped));
    memcpy(endpoint.address + 12, &in.sin_addr, 4);
    endpoint.port = ntohs(in.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address);
    memcpy(endpoint.address, &in6.sin6_addr, 16);
    endpoint.port = ntohs(in6.sin6_port);
  }
  return endpoint;
}

u16 endpoint_into(const sockaddr_storage& from, u8 address[16]) {
  const Endpoint endpoint = endpoint_of(from);
  memcpy(address, endpoint.address, sizeof(endpoint.address));
  return endpoint.port;
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
