// The way most programs make the calls: by libc's functions.
#pragma once

#include <errno.h>

#include "exchange.h"

static long libc_result(long result) { return result < 0 ? -errno : result; }

static long libc_open(const struct sockaddr_in *peer) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)peer, sizeof(*peer)) != 0) return -errno;
  return fd;
}
static long libc_send(int fd, const void *bytes, size_t count) { return libc_result(send(fd, bytes, count, MSG_NOSIGNAL)); }
static long libc_receive(int fd, void *bytes, size_t count) { return libc_result(recv(fd, bytes, count, 0)); }
static void libc_close(int fd) { close(fd); }

#define LIBC_WAY {"libc", libc_open, libc_send, libc_receive, libc_close, 0, 0, 0}
