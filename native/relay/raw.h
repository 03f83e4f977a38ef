// What only the network says of a connect that failed: made by hand, as the program's own kernel would have received it from
// its peer or from a router. Without the right to (CAP_NET_RAW) nothing is said, and the program's kernel gives up by itself.
#pragma once

#include "contract/relay.h"

namespace mishap::relay {

class RawSockets {
 public:
  ~RawSockets();
  // Before rights are dropped; false: there is none.
  bool open();
  // A RST from the relay's port in answer to the SYN: the program sees ECONNREFUSED.
  void refuse(const RelayConnect& connect, u16 port) const;
  // An ICMP message that quotes the SYN: EHOSTUNREACH, or ENETUNREACH where there is no way to the `network`.
  void unreachable(const RelayConnect& connect, u16 port, bool network) const;

 private:
  int ipv4_ = -1, ipv6_ = -1;
};

// Whether the program's packets go over IPv4: also those of an IPv6 socket to a mapped address.
bool over_ipv4(const RelayConnect& connect);

}  // namespace mishap::relay
