// Addresses as the contract has them (IPv6 or mapped IPv4, the port in host byte order), and as the kernel's calls want them.
#pragma once

#include <string.h>
#include <sys/socket.h>

#include <compare>

#include "contract/types.h"

namespace mishap::relay {

struct Endpoint {
  u8 address[16] = {};
  u16 port = 0;
  auto operator<=>(const Endpoint&) const = default;
};

bool is_ipv4(const u8 address[16]);
// For connect(2) and the like; its length.
socklen_t address_of(const u8 address[16], u16 port, u32 scope_id, sockaddr_storage* out);
Endpoint endpoint_of(const sockaddr_storage& address);
// The same into `address`; the port.
u16 endpoint_into(const sockaddr_storage& from, u8 address[16]);
// Where a connection to an address would come from, port 0; false with errno: there is no way to it.
bool source_towards(const sockaddr_storage& to, socklen_t length, sockaddr_storage* out);

}  // namespace mishap::relay
