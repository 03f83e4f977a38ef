// A client that says what it saw: looks a host up, connects, and exchanges so many bytes so often with an echo server. Built
// with ordinary calls, and with -DURING with io_uring for everything that its socket does.
//
//   PROGRAM HOST PORT EXCHANGES BYTES     each wait ends after PATIENCE_S
//
// To stdout, times in milliseconds, what failed by its errno's name, and how the last answer began:
//   {"lookup":0.1,"connect":0.2,"exchanges":[0.1,0.1],"stage":"exchange","error":"ECONNRESET","text":"0123456789"}
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 2

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

// Results as system calls give them, errors negative.
#ifdef URING
#include <liburing.h>
static struct io_uring ring;
static long wait_for(struct io_uring_sqe *last) {
  static struct __kernel_timespec patience = {PATIENCE_S, 0};
  last->flags |= IOSQE_IO_LINK;
  io_uring_prep_link_timeout(io_uring_get_sqe(&ring), &patience, 0);
  io_uring_submit(&ring);
  long result = 0;
  for (int i = 0; i < 2; i++) {  // of the call and of its patience, which user_data tells apart
    struct io_uring_cqe *done;
    if (io_uring_wait_cqe(&ring, &done) < 0) return -EINTR;
    if (done->user_data == 1) result = done->res == -ECANCELED ? -EAGAIN : done->res;
    io_uring_cqe_seen(&ring, done);
  }
  return result;
}
static struct io_uring_sqe *marked(struct io_uring_sqe *sqe) {
  io_uring_sqe_set_data64(sqe, 1);
  return sqe;
}
static long do_connect(int fd, const struct sockaddr *to, socklen_t length) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  io_uring_prep_connect(sqe, fd, to, length);
  return wait_for(marked(sqe));
}
static long do_send(int fd, const char *bytes, size_t count) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  io_uring_prep_send(sqe, fd, bytes, count, MSG_NOSIGNAL);
  return wait_for(marked(sqe));
}
static long do_receive(int fd, char *bytes, size_t count) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  io_uring_prep_recv(sqe, fd, bytes, count, 0);
  return wait_for(marked(sqe));
}
#else
static long result_of(long n) { return n < 0 ? -errno : n; }
static long do_connect(int fd, const struct sockaddr *to, socklen_t length) { return result_of(connect(fd, to, length)); }
static long do_send(int fd, const char *bytes, size_t count) { return result_of(send(fd, bytes, count, MSG_NOSIGNAL)); }
static long do_receive(int fd, char *bytes, size_t count) { return result_of(recv(fd, bytes, count, 0)); }
#endif

static const char *stage, *error;
static char text[11];

static void fails_in(const char *where, long result) {
  stage = where;
  error = result == 0 ? "EOF" : result == -EAGAIN || result == -EINPROGRESS ? "ETIMEDOUT" : strerrorname_np((int)-result);
}

static long exchange(int fd, char *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) bytes[i] = (char)('0' + i % 10);
  for (size_t sent = 0; sent < count;) {
    const long n = do_send(fd, bytes + sent, count - sent);
    if (n <= 0) return n;
    sent += (size_t)n;
  }
  for (size_t got = 0; got < count;) {
    const long n = do_receive(fd, bytes + got, count - got);
    if (n <= 0) return n;
    got += (size_t)n;
    memcpy(text, bytes, got < 10 ? got : 10);
  }
  return (long)count;
}

int main(int count, char **values) {
  if (count != 5) return 2;
  const int exchanges = atoi(values[3]);
  const size_t bytes = (size_t)atol(values[4]);
  char *buffer = malloc(bytes);
  double lookup_ms = 0, connect_ms = 0, start = now_ms();
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
  printf("{\"exchanges\":[");
#ifdef URING
  if (io_uring_queue_init(8, &ring, 0) < 0) return 3;
#endif
  const int unknown = getaddrinfo(values[1], values[2], &hints, &found);
  lookup_ms = now_ms() - start;
  if (unknown) {
    stage = "lookup";
    error = unknown == EAI_NONAME ? "ENOTFOUND" : gai_strerror(unknown);
  } else {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {PATIENCE_S, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    start = now_ms();
    const long connected = do_connect(fd, found->ai_addr, found->ai_addrlen);
    connect_ms = now_ms() - start;
    if (connected < 0) fails_in("connect", connected);
    for (int i = 0; i < exchanges && !error; i++) {
      start = now_ms();
      const long n = exchange(fd, buffer, bytes);
      if (n <= 0) fails_in("exchange", n);
      else printf("%s%.3f", i ? "," : "", now_ms() - start);
    }
  }
  printf("],\"lookup\":%.3f,\"connect\":%.3f,\"text\":\"%s\"", lookup_ms, connect_ms, text);
  if (error) printf(",\"stage\":\"%s\",\"error\":\"%s\"", stage, error);
  printf("}\n");
  return 0;
}
