// What only the network says of a connect that failed: made by hand, as the program's own kernel would have received it from
// its peer or from a router. Without the right to (CAP_NET_RAW) nothing is said, and the program's kernel gives up by itself.
#pragma once

#include "contract/relay.h"

namespace mishap::relay {

// What a router says in the way.
enum class Unreachable { Network, Host, Prohibited };

class RawSockets {
 public:
  ~RawSockets();
  // Before rights are dropped; false: there is none.
  bool open();
  // A RST from the relay's port in answer to the SYN: the program sees ECONNREFUSED.
  void refuse(const RelayConnect& connect, u16 port) const;
  // An ICMP message that quotes the SYN: ENETUNREACH, EHOSTUNREACH, and what is prohibited EACCES, over IPv4 EHOSTUNREACH too.
  void unreachable(const RelayConnect& connect, u16 port, Unreachable what) const;

 private:
  int ipv4_ = -1, ipv6_ = -1;
};

// Whether the program's packets go over IPv4: also those of an IPv6 socket to a mapped address.
bool over_ipv4(const RelayConnect& connect);

}  // namespace mishap::relay
