// Hooks for the life of descriptors: who owns which socket along socket, accept, dup, close and their kin, and the socket options through which our time stamps would show.
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"

namespace mishap {
namespace {

template <class Accept>
int accepted(int listener, Accept accept_one) {
  int fd = accept_one();
  if (fd < 0 || !self.attached) return fd;
  int kept = errno;
  Guard guard;
  if (guard && getpid() == self.pid) {
    if (Socket* from = socket_of(listener)) {
      from->listening = true;
      note_socket(fd, from->family, from->stream ? SOCK_STREAM : SOCK_DGRAM);
      if (active()) open_accepted(fd, listener);
    } else {
      forget(fd);
    }
  }
  errno = kept;
  return fd;
}

// A descriptor is about to close: it leaves its epoll sets, and what is held on its socket goes first, if no duplicate keeps it.
void let_go(int fd) {
  if (static_cast<u32>(fd) >= kDescriptors || load(&kinds[fd]) != static_cast<u8>(Kind::Socket) || getpid() != self.pid) return;
  int kept = errno;
  Guard guard;
  Socket* socket = guard ? socket_of(fd) : nullptr;
  if (socket) leave_epoll(fd, socket, true);
  if (socket && load(&socket->refs) == 1) {
    release_held(fd, socket, true);
    int unread = 0;
    real.ioctl(fd, FIONREAD, &unread);
    mark_on_line(fd, socket, link::ParcelKind::Close, unread > 0);
  }
  errno = kept;
}

void note_new(int fd, int family, int type) {
  if (fd < 0) return;
  int kept = errno;
  note_socket(fd, family, type);
  errno = kept;
}

}  // namespace

int make_private(int fd) {
  if (fd < 0) return -1;
  rlimit limit;
  u64 top = kDescriptors;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < top) top = limit.rlim_cur;
  for (u64 at = top > 128 ? top - 128 : 0; at > 64; at /= 2) {
    long high = real.syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, static_cast<long>(at), 0, 0, 0);
    if (high < 0 || high >= kDescriptors) continue;
    real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    fd = static_cast<int>(high);
    break;
  }
  if (static_cast<u32>(fd) < kDescriptors) store(&kinds[fd], static_cast<u8>(Kind::Private));
  return fd;
}
void close_private(int fd) {
  if (!is_private(fd)) return;
  store(&kinds[fd], static_cast<u8>(Kind::Unknown));
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

namespace slow {

int socket(int family, int type, int protocol) {
  int fd = real.socket(family, type, protocol);
  note_new(fd, family, type);
  return fd;
}

int socketpair(int family, int type, int protocol, int* pair) {
  int result = real.socketpair(family, type, protocol, pair);
  if (result == 0 && self.attached) {
    int kept = errno;
    note_socket(pair[0], family, type);
    note_socket(pair[1], family, type);
    if (is_foreign(pair[0]) || !active()) {
      errno = kept;
      return result;
    }
    // The first end plays the connecting one, the second is its peer in the project.
    sockaddr none = {};
    if (Socket* first = socket_of(pair[0])) open_connecting(pair[0], first, &none, 0);
    if (Socket* second = socket_of(pair[1])) {
      open_connecting(pair[1], second, &none, 0);
      if (second->flow) store(&second->flow->carried_by_peer, u8{1});
      second->generation = 0;
    }
    errno = kept;
  }
  return result;
}

int listen(int fd, int backlog) {
  claim_listener(fd);
  return real.listen(fd, backlog);
}
int accept(int fd, sockaddr* address, socklen_t* length) {
  return accepted(fd, [&] { return real.accept(fd, address, length); });
}
int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return accepted(fd, [&] { return real.accept4(fd, address, length, flags); });
}

int close(int fd) {
  if (static_cast<u32>(fd) < kDescriptors && load(&kinds[fd]) != static_cast<u8>(Kind::Unknown)) {
    if (is_private(fd)) {
      errno = EBADF;
      return -1;
    }
    int kept = errno;
    let_go(fd);
    Guard guard;
    if (guard) forget(fd);
    errno = kept;
  }
  return real.close(fd);
}

int close_range(unsigned first, unsigned last, int flags) {
  auto original = [&](unsigned from, unsigned to) {
    if (real.close_range) return real.close_range(from, to, flags);
    return static_cast<int>(real.syscall(SYS_close_range, from, to, flags, 0, 0, 0));
  };
  if (!self.attached || (flags & CLOSE_RANGE_CLOEXEC) || getpid() != self.pid) return original(first, last);
  const int kept = errno;
  const unsigned end = last < kDescriptors - 1 ? last : kDescriptors - 1;
  for (unsigned fd = first; fd <= end; fd++) {
    if (is_private(static_cast<int>(fd))) {
      if (fd > first) original(first, fd - 1);
      first = fd + 1;
    } else if (load(&kinds[fd]) != static_cast<u8>(Kind::Unknown)) {
      let_go(static_cast<int>(fd));
      forget(static_cast<int>(fd));
    }
  }
  errno = kept;
  return first <= last ? original(first, last) : 0;
}

void closefrom(int first) {
  int kept = errno;
  slow::close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0u, 0);
  errno = kept;
}

int shutdown(int fd, int how) {
  Guard guard;
  Socket* socket = guard ? socket_of(fd) : nullptr;
  if (socket && how != SHUT_RD) release_held(fd, socket, true);
  if (socket && how != SHUT_RD && mark_on_line(fd, socket, link::ParcelKind::Shutdown, 0)) {
    socket->shut = true;
    if (how == SHUT_RDWR) end_arrivals(socket);
    return how == SHUT_RDWR ? real.shutdown(fd, SHUT_RD) : 0;
  }
  int result = real.shutdown(fd, how);
  if (socket && result == 0 && how != SHUT_WR) end_arrivals(socket);
  return result;
}

int dup(int fd) {
  int copy = real.dup(fd);
  int kept = errno;
  if (copy >= 0) note_copy(fd, copy);
  errno = kept;
  return copy;
}
int dup2(int fd, int to) {
  if (fd != to) let_go(to);
  int copy = real.dup2(fd, to);
  int kept = errno;
  if (copy >= 0 && fd != to) note_copy(fd, copy);
  errno = kept;
  return copy;
}
int dup3(int fd, int to, int flags) {
  if (fd != to) let_go(to);
  int copy = real.dup3(fd, to, flags);
  int kept = errno;
  if (copy >= 0) note_copy(fd, copy);
  errno = kept;
  return copy;
}

int fcntl(int fd, int command, long argument) {
  if (is_private(fd)) {
    errno = EBADF;
    return -1;
  }
  long result = real.fcntl(fd, command, argument);
  if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) {
    int kept = errno;
    note_copy(fd, static_cast<int>(result));
    errno = kept;
  }
  return static_cast<int>(result);
}
int fcntl64(int fd, int command, long argument) { return slow::fcntl(fd, command, argument); }

// What a program finds that looks which of its descriptors are open.
int fstat(int fd, void* about) {
  if (!is_private(fd)) return real.fstat(fd, about);
  errno = EBADF;
  return -1;
}
int fstat64(int fd, void* about) { return slow::fstat(fd, about); }

// How much is queued, as the program's side of the link sees it.
int ioctl(int fd, unsigned long request, void* argument) {
  if ((request == FIONREAD || request == SIOCOUTQ) && load(&self.linked) && argument) {
    Guard guard;
    Socket* socket = guard ? linked_socket(fd) : nullptr;
    if (socket && request == FIONREAD) {
      const u64 bytes = visible_bytes(fd, socket);
      const int shown = bytes < 0x7fffffff ? static_cast<int>(bytes) : 0x7fffffff;
      memcpy(argument, &shown, sizeof(shown));
      return 0;
    }
    int queued;
    if (socket && socket->stream && real.ioctl(fd, request, &queued) == 0) {
      queued += static_cast<int>(load(&socket->flow->line_bytes));
      memcpy(argument, &queued, sizeof(queued));
      return 0;
    }
  }
  return real.ioctl(fd, request, argument);
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  if (level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVLOWAT) && self.attached && value && length >= sizeof(int)) {
    int bytes;
    memcpy(&bytes, value, sizeof(bytes));
    Socket* socket = socket_of(fd);
    if (socket && name == SO_RCVLOWAT) socket->low_water = bytes > 0 ? static_cast<u32>(bytes) : 1;
    else if (socket) socket->send_buffer = bytes > 4096 ? static_cast<u32>(bytes) : 4096;
  }
  // Bytes are corked where they leave: the courier's side of the line.
  if (level == IPPROTO_TCP && name == TCP_CORK && load(&self.linked) && value && length >= sizeof(int)) {
    Guard guard;
    int on;
    memcpy(&on, value, sizeof(on));
    Socket* socket = guard ? linked_socket(fd) : nullptr;
    if (socket && mark_on_line(fd, socket, link::ParcelKind::Cork, on != 0)) return 0;
  }
  if (level == SOL_SOCKET && name == SO_RCVBUF && load(&self.linked)) {
    int result = real.setsockopt(fd, level, name, value, length);
    if (Socket* linked = result == 0 ? linked_socket(fd) : nullptr) {
      linked->receive_buffer = 0;
      widen(fd, linked);
    }
    return result;
  }
  bool stamps = level == SOL_SOCKET && (name == SO_TIMESTAMP || name == SO_TIMESTAMPNS || name == SO_TIMESTAMPING);
  Socket* socket = stamps && self.attached ? socket_of(fd) : nullptr;
  if (socket && length >= sizeof(int)) {
    int on;
    memcpy(&on, value, sizeof(on));
    socket->program_stamps = on != 0;
    if (!on && socket->flow && load(&socket->flow->dated)) return 0;  // it asks for what it already seems to have
    if (on && socket->flow) store(&socket->flow->dated, u8{0});       // its stamps are its own: no dating on this socket
  }
  return real.setsockopt(fd, level, name, value, length);
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  if (level == SOL_SOCKET && name == SO_ERROR && self.linked && value && length && *length >= sizeof(int)) {
    if (Socket* socket = linked_socket(fd)) {
      i32 error = 0;
      bool ours = socket->connecting.under_way ? (look(fd, socket, false), socket->connecting.under_way) : error_withheld(fd, socket);
      if (!ours) ours = (error = take_connect_error(socket)) || (error = take_line_error(socket));
      if (ours) {
        memcpy(value, &error, sizeof(int));
        *length = sizeof(int);
        return 0;
      }
    }
  }
  int result = real.getsockopt(fd, level, name, value, length);
  if (result == 0 && level == SOL_SOCKET && name == SO_RCVBUF && load(&self.linked) && *length >= sizeof(int))
    if (Socket* socket = linked_socket(fd); socket && socket->receive_buffer) memcpy(value, &socket->receive_buffer, sizeof(int));
  if (result == 0 && level == SOL_SOCKET && name == SO_TIMESTAMPNS && self.attached && *length >= sizeof(int)) {
    Socket* socket = socket_of(fd);
    if (socket && socket->flow && load(&socket->flow->dated)) memset(value, 0, sizeof(int));
  }
  return result;
}

}  // namespace slow
}  // namespace mishap
