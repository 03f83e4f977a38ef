// What only the network says of a connect that failed: made by hand, as the program's own kernel would have received it from
// its peer or from a router. Without the right to (CAP_NET_RAW) nothing is said, and the program's kernel gives up by itself.
#pragma once

#include "address.h"
#include "contract/relay.h"

namespace mishap::relay {

// What ICMP says of what did not arrive, in its family's own numbers.
struct Unreachable {
  u8 type, code;
};
// Nobody listens at the port: ECONNREFUSED.
Unreachable no_port(bool ipv4);
// EHOSTUNREACH, at a connected datagram socket too where it is IPv4's; IPv6 has no message that is that and more than a hint there.
Unreachable no_host(bool ipv4);
Unreachable no_network(bool ipv4);
// EACCES, or over IPv4 EHOSTUNREACH.
Unreachable prohibited(bool ipv4);

class RawSockets {
 public:
  ~RawSockets();
  // Before rights are dropped; false: there is none.
  bool open();
  // A RST from the relay's port in answer to the SYN: the program sees ECONNREFUSED.
  void refuse(const RelayConnect& connect, u16 port) const;
  // An ICMP message that quotes the SYN.
  void unreachable(const RelayConnect& connect, u16 port, Unreachable what) const;
  // One that quotes a datagram from `source` to the relay's port.
  void bounce(const Endpoint& source, u16 port, Unreachable what) const;

 private:
  int ipv4_ = -1, ipv6_ = -1;
};

// Whether the program's packets go over IPv4: also those of an IPv6 socket to a mapped address.
bool over_ipv4(const RelayConnect& connect);

}  // namespace mishap::relay
