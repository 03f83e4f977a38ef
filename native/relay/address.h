// Addresses as the contract has them, IPv6 or mapped IPv4, and as sockets do.
#pragma once

#include <sys/socket.h>

#include "contract/types.h"

namespace mishap::relay {

// For connect(2) and bind(2). Its length.
socklen_t to_socket_address(const u8 address[16], u16 port, u32 scope_id, sockaddr_storage* out);
// The port.
u16 from_socket_address(const sockaddr_storage& from, u8 address[16]);
// Where a connection to an address would come from, port 0; false with errno: there is no way to it.
bool source_towards(const sockaddr_storage& to, socklen_t length, sockaddr_storage* out);

}  // namespace mishap::relay
