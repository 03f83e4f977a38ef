// Whose socket is at an address? The question to the kernel's socket table and its answer (sock_diag(7)), as they are on a
// netlink socket; whoever asks sends and receives them.
#pragma once

#include <linux/inet_diag.h>
#include <linux/netlink.h>

#include "contract/types.h"

namespace mishap::wire {

struct SocketQuestion {
  nlmsghdr header;
  inet_diag_req_v2 request;
};

// Asks for the socket at `local` whose peer is `peer`; of UDP for the one that a datagram from `peer` would reach. Addresses are
// IPv6 or mapped IPv4, ports in host byte order.
void ask_for_socket(Protocol protocol, const u8 local[16], u16 local_port, const u8 peer[16], u16 peer_port, SocketQuestion* out);
// The cookie of the socket that an answer of `size` bytes tells of; 0: of none. `answer` is aligned to 8.
u64 cookie_answered(const void* answer, i64 size);

}  // namespace mishap::wire
