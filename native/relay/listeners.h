// Where the programs' SYNs arrive: one port on 127.0.0.1 and ::1. Nothing is ever accepted there: the queues are full from the
// start, of connections of our own, so the kernel drops every SYN in silence, and the program's connect stays pending until
// the relay knows what comes of it. (A socket filter would do so too; it takes CAP_NET_ADMIN on newer kernels, and drops what
// a RST has to answer.)
#pragma once

#include "contract/types.h"

namespace mishap::relay {

constexpr int kFillers = 2;  // connections that fill a queue

class Listeners {
 public:
  ~Listeners();
  // Why it cannot work; nullptr: both listen.
  const char* open();
  u16 port() const { return port_; }
  u64 netns() const { return netns_; }  // cookie of the network namespace they are in

 private:
  int ipv4_ = -1, ipv6_ = -1;
  int fillers_[2 * kFillers] = {-1, -1, -1, -1};
  u16 port_ = 0;
  u64 netns_ = 0;
};

// A TCP socket as the relay's are: non-blocking, and with a RST as its end until an orderly one is due, so that a death of the
// relay is no end of a stream; towards programs its port is the listeners'. -1 with errno.
int make_socket(int family, bool shares_port);
// A listener on the relay's own address, on `port` or on any (0); -1 with errno.
int listen_on(int family, u16 port, int backlog);
// The relay's own address, `port` on it.
void fill_loopback(int family, u16 port, void* address, u32* length);

}  // namespace mishap::relay
