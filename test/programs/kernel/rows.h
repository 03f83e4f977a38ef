// How a program of a run comes by the kernel's rows: through the mapping that the interceptor made in it, or as the
// interceptor itself does, from the loader by SEGMENT.kernel.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "contract/kernel.h"

struct Rows {
  const mishap::KernelSocket* first = nullptr;
  size_t count = 0;
};

// What the interceptor mapped, and so what it knows; nothing when it did not.
inline Rows mapped_rows() {
  Rows rows;
  FILE* maps = fopen("/proc/self/maps", "re");
  char line[512];
  while (maps && !rows.first && fgets(line, sizeof(line), maps)) {
    unsigned long start = 0, end = 0;
    if (!strstr(line, "bpf-map") || sscanf(line, "%lx-%lx r--s", &start, &end) != 2) continue;
    rows = {reinterpret_cast<const mishap::KernelSocket*>(start), (end - start) / sizeof(mishap::KernelSocket)};
  }
  if (maps) fclose(maps);
  return rows;
}

// The row of a socket, copied; false: there is none.
inline bool row_of(const Rows& rows, int fd, mishap::KernelSocket* row) {
  mishap::u64 cookie = 0;
  socklen_t length = sizeof(cookie);
  if (!rows.first || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0) return false;
  const mishap::u64 start = MISHAP_KERNEL_ROW(cookie);
  for (mishap::u64 i = 0; i < MISHAP_KERNEL_WINDOW; i++) {
    memcpy(row, &rows.first[(start + i) % MISHAP_KERNEL_SOCKETS], sizeof(*row));
    if (row->owner.cookie == cookie) return true;
  }
  return false;
}

// The map's descriptor, as the loader gives it to whoever may connect; -1: it does not.
inline int handed_out() {
  const char* segment = getenv("MISHAP_SEGMENT");
  const std::string path = std::string(segment ? segment : "") + ".kernel";
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof(to.sun_path)) return -1;
  memcpy(to.sun_path, path.c_str(), path.size() + 1);
  const int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  mishap::KernelHello hello = {};
  iovec part = {&hello, sizeof(hello)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  int fd = -1;
  if (connect(connection, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 && recvmsg(connection, &message, MSG_CMSG_CLOEXEC) > 0)
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
      if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof(fd));
  close(connection);
  return fd;
}

// A mapping of our own, read-only, as anybody may make it who may connect.
inline Rows asked_for_rows() {
  const int fd = handed_out();
  const size_t bytes = MISHAP_KERNEL_SOCKETS * sizeof(mishap::KernelSocket);
  void* memory = fd < 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (memory == MAP_FAILED) return {};
  return {static_cast<const mishap::KernelSocket*>(memory), MISHAP_KERNEL_SOCKETS};
}
