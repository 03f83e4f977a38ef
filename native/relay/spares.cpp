// Sockets made ahead; see spares.h.
#include "spares.h"

#include <errno.h>
#include <unistd.h>

#include "listeners.h"

namespace mishap::relay {

Spares::~Spares() {
  for (const Kind& kind : kinds_)
    if (kind.fd >= 0) close(kind.fd);
}

int Spares::make(const Kind& kind) const {
  const bool bound = kind.towards == Towards::Program;
  const int fd = make_socket(kind.family, bound);
  if (fd < 0 || !bound) return fd;
  sockaddr_storage own = {};
  socklen_t length;
  fill_loopback(kind.family, port_, &own, &length);
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), length) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int Spares::take(int family, Towards towards) {
  Kind& kind = kinds_[(family == AF_INET6) * 2 + (towards == Towards::Anybody)];
  const int spare = kind.fd;
  kind.fd = -1;
  kind.taken = true;
  return spare >= 0 ? spare : make(kind);
}

void Spares::refill() {
  for (Kind& kind : kinds_) {
    if (!kind.taken) continue;
    kind.taken = false;
    kind.fd = make(kind);
  }
}

}  // namespace mishap::relay
