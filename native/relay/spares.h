// Sockets made while nobody waits for them, one of each kind: what making it takes, a program's connect need not.
#pragma once

#include <sys/socket.h>

#include "contract/types.h"

namespace mishap::relay {

enum class Towards : u8 { Program, Anybody };

class Spares {
 public:
  ~Spares();
  // Towards a program their port is this, on the relay's own address.
  void open(u16 port) { port_ = port; }
  // A socket as make_socket's; -1 with errno.
  int take(int family, Towards towards);
  // Makes what was taken, when the loop has nothing else to do.
  void refill();

 private:
  struct Kind {
    int family;
    Towards towards;
    bool taken = true;
    int fd = -1;
  };
  int make(const Kind& kind) const;

  Kind kinds_[4] = {{AF_INET, Towards::Program}, {AF_INET, Towards::Anybody}, {AF_INET6, Towards::Program}, {AF_INET6, Towards::Anybody}};
  u16 port_ = 0;
};

}  // namespace mishap::relay
