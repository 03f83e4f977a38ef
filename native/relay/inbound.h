// What comes in for the run's listeners: the relay's own ones, which the kernel hands their SYNs to (bpf/accept.bpf.c), and the
// ports that the relay connects from where the kernel has to know whose connection it is.
#pragma once

#include <sys/socket.h>

#include <functional>

#include "contract/relay.h"

namespace mishap::relay {

// The addresses of a connection that the relay makes.
struct Journey {
  sockaddr_storage source, to;  // the source's port is found
  sockaddr_storage client;      // whom it stands for; of an outgoing connection nobody
  u32 kind;                     // MISHAP_SOURCE_*; of what was accepted: a client's, or a program's own that connects early
};

class Sources {
 public:
  // The kernel's maps.
  void open(RelaySource* sources, const u64* listening);
  // Whether a program of the run listens on such a port, whatever its address.
  bool is_listened(u16 port) const { return listening_ && __atomic_load_n(&listening_[port], __ATOMIC_RELAXED); }
  // A socket that begins to connect, from a port that is taken until it is given back; -1 with errno. `before` it does, it is told.
  int connect_from(const Journey& journey, u16* port, const std::function<void(int fd)>& before = {});
  void give_back(u16 port);
  // What the kernel says of the connection from a port.
  const RelaySource& of(u16 port) const { return sources_[port]; }

 private:
  u16 next_free();
  int attempt(const Journey& journey, u16 port, const std::function<void(int fd)>& before);

  RelaySource* sources_ = nullptr;
  const u64* listening_ = nullptr;
  u16 first_ = 0, last_ = 0, next_ = 0;
};

class Inbound {
 public:
  ~Inbound();
  // Listens in IPv4 and IPv6, and has the kernel know it. False: programs accept for themselves.
  bool open(int sockmap);
  const int* listeners() const { return listeners_; }  // of IPv4, of IPv6; -1: none
  u16 port(u32 which) const;                           // 0: none
  // The next connection that came in, and what it is to be; -1: none for now.
  int accept_one(const Sources& sources, Journey* journey);

 private:
  int listeners_[2] = {-1, -1};
  sockaddr_storage own_[2] = {};  // their addresses
};

}  // namespace mishap::relay
