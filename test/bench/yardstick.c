/* yardstick: a small network program that measures itself and knows nothing of mishap, so that it can be run bare and
 * under `mishap run` and compared. Everything stays on loopback, in one process, and start-up is never measured.
 *
 *   yardstick MODE [key=value ...]
 *   pair          sock= call= size= n=        for each line on stdin: CPU time of n send-and-receive pairs, and of as many
 *                                             made of bare system calls
 *   bulk          chunk= bytes=               for each line on stdin: the time to carry `bytes` over TCP, and the same by
 *                                             bare system calls
 *   delay         side= call= ask_us= n=      one-way times beside as many clock_nanosleep calls of the same length
 *   pipeline      side= ask_us=               how much later than asked each of ten sends in a row arrives
 *   transfer      side= chunk= bytes=         what a stream carries to, or from, a peer that makes bare system calls
 *   ready         call= n=                    for each line on stdin: CPU time of n polls, or epoll_waits, of a ready unix
 *                                             socket beside a TCP connection, and of as many bare system calls
 *   rate          call= chunk= seconds=       the slope of what arrives, between chunk boundaries
 *   loss          side= n=                    datagrams accepted and received, for every call of that side
 *   flows         flows= n= policies= hash=   CPU time a send over so many UDP flows by turns; with `policies`, each flow is
 *                                             bound to one of so many slots, by the function that the interceptor exports
 *   notice        seconds=                    when sends to a UDP peer begin to be refused, and when they no longer are
 *   instructions  sock= n=                    under callgrind: a dump of n and one of 2n calls, for every call
 *
 * Answers are JSON, one object a line. In a TCP or UDP pair fd[0] connects and is the end that carries faults.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

static int arg_count;
static char **arg_values;

static const char *option(const char *key, const char *otherwise) {
  size_t n = strlen(key);
  for (int i = 2; i < arg_count; i++)
    if (strncmp(arg_values[i], key, n) == 0 && arg_values[i][n] == '=') return arg_values[i] + n + 1;
  return otherwise;
}
static long option_number(const char *key, long otherwise) {
  const char *text = option(key, NULL);
  return text ? atol(text) : otherwise;
}
static void fail(const char *what) {
  fprintf(stderr, "yardstick: %s: %s\n", what, strerror(errno));
  exit(2);
}
static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* ---- socket pairs ---- */

static struct sockaddr_in udp_target;

static void make_pair(const char *kind, int fd[2]) {
  struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr *address = (struct sockaddr *)&local;
  socklen_t length = sizeof local;
  int on = 1, large = 4 << 20;
  if (strcmp(kind, "unix") == 0) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd)) fail("socketpair");
  } else if (strcmp(kind, "tcp") == 0) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, address, length) || listen(listener, 1) || getsockname(listener, address, &length)) fail("listen");
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd[0], address, length)) fail("connect");
    fd[1] = accept(listener, NULL, NULL);
    if (fd[1] < 0) fail("accept");
    close(listener);
    for (int i = 0; i < 2; i++) setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  } else if (strcmp(kind, "udp") == 0) {
    fd[1] = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(fd[1], address, length) || getsockname(fd[1], address, &length)) fail("bind");
    setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
    fd[0] = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(fd[0], address, length)) fail("connect");
    udp_target = local;
  } else if (strcmp(kind, "file") == 0) {
    fd[0] = fd[1] = memfd_create("yardstick", 0);
    if (fd[0] < 0 || ftruncate(fd[0], 1 << 20)) fail("memfd_create");
  } else {
    errno = EINVAL;
    fail(kind);
  }
}
static void close_pair(int fd[2]) {
  close(fd[0]);
  if (fd[1] != fd[0]) close(fd[1]);
}

/* ---- calls by name; the list a name belongs to says which side it is on ---- */

enum { SEND, SENDTO, SENDMSG, SENDMMSG, WRITE, WRITEV, SENDS };
enum { RECV, RECVFROM, RECVMSG, RECVMMSG, READ, READV, RECEIVES };
static const char *const send_names[SENDS] = {"send", "sendto", "sendmsg", "sendmmsg", "write", "writev"};
static const char *const receive_names[RECEIVES] = {"recv", "recvfrom", "recvmsg", "recvmmsg", "read", "readv"};

static int call_named(const char *name, const char *const *names, int count) {
  for (int i = 0; i < count; i++)
    if (strcmp(names[i], name) == 0) return i;
  errno = EINVAL;
  fail(name);
  return -1;
}

#define BATCH 16 /* messages in one sendmmsg or recvmmsg of the loss mode; elsewhere one */

static ssize_t send_by(int call, int fd, void *bytes, size_t size, int messages) {
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  switch (call) {
    case SEND: return send(fd, bytes, size, 0);
    case SENDTO: {
      if (udp_target.sin_port == 0) return sendto(fd, bytes, size, 0, NULL, 0);
      return sendto(fd, bytes, size, 0, (struct sockaddr *)&udp_target, sizeof udp_target);
    }
    case SENDMSG: return sendmsg(fd, &message, 0);
    case WRITE: return write(fd, bytes, size);
    case WRITEV: return writev(fd, &part, 1);
    default: {
      struct mmsghdr all[BATCH];
      for (int i = 0; i < messages; i++) all[i] = (struct mmsghdr){.msg_hdr = message};
      int n = sendmmsg(fd, all, (unsigned)messages, 0);
      return n > 0 && messages == 1 ? (ssize_t)all[0].msg_len : n;
    }
  }
}
static ssize_t receive_by(int call, int fd, void *bytes, size_t size, int messages) {
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  struct sockaddr_storage from;
  socklen_t length = sizeof from;
  switch (call) {
    case RECV: return recv(fd, bytes, size, 0);
    case RECVFROM: return recvfrom(fd, bytes, size, 0, (struct sockaddr *)&from, &length);
    case RECVMSG: return recvmsg(fd, &message, 0);
    case READ: return read(fd, bytes, size);
    case READV: return readv(fd, &part, 1);
    default: {
      struct mmsghdr all[BATCH];
      for (int i = 0; i < messages; i++) all[i] = (struct mmsghdr){.msg_hdr = message};
      int n = recvmmsg(fd, all, (unsigned)messages, 0, NULL);
      return n > 0 && messages == 1 ? (ssize_t)all[0].msg_len : n;
    }
  }
}

/* The same by bare system calls, which nothing stands in front of: beside them the libc functions can be timed to a few
 * nanoseconds, because both share a process, its sockets and the moment. */
static long direct(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "say how this processor makes a system call"
#endif
}
static ssize_t send_directly(int call, int fd, void *bytes, size_t size) {
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  switch (call) {
    case SENDMSG: return direct(SYS_sendmsg, fd, (long)&message, 0, 0, 0, 0);
    case WRITE: return direct(SYS_write, fd, (long)bytes, (long)size, 0, 0, 0);
    case WRITEV: return direct(SYS_writev, fd, (long)&part, 1, 0, 0, 0);
    default: return direct(SYS_sendto, fd, (long)bytes, (long)size, 0, 0, 0);
  }
}
static ssize_t receive_directly(int call, int fd, void *bytes, size_t size) {
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  switch (call) {
    case RECVMSG: return direct(SYS_recvmsg, fd, (long)&message, 0, 0, 0, 0);
    case READ: return direct(SYS_read, fd, (long)bytes, (long)size, 0, 0, 0);
    case READV: return direct(SYS_readv, fd, (long)&part, 1, 0, 0, 0);
    default: return direct(SYS_recvfrom, fd, (long)bytes, (long)size, 0, 0, 0);
  }
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}
static int64_t median_of(int64_t *values, long n) {
  qsort(values, (size_t)n, sizeof *values, by_value);
  return values[n / 2];
}

static int asked_for_round(void) {
  char line[64];
  return fgets(line, sizeof line, stdin) != NULL;
}

/* ---- modes ---- */

/* CPU time, not wall-clock time: on a machine with other work it leaves out what that work took. Blocks of calls alternate
 * with blocks of bare ones, and what is told is the median block of each and of their differences. */
#define PAIRS 100 /* in a block */
static int64_t pairs_ns(int call, int direct_calls, int fd[2], char *bytes, size_t size) {
  int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < PAIRS; i++) {
    ssize_t sent = direct_calls ? send_directly(call, fd[0], bytes, size) : send_by(call, fd[0], bytes, size, 1);
    if (sent != (ssize_t)size) fail("send");
    ssize_t got = direct_calls ? receive_directly(call, fd[1], bytes, size) : receive_by(call, fd[1], bytes, size, 1);
    if (got != (ssize_t)size) fail("receive");
  }
  return clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
}
static void pair_mode(void) {
  int fd[2], call = call_named(option("call", "send"), send_names, SENDS);
  long blocks = option_number("n", 10000) / PAIRS;
  size_t size = (size_t)option_number("size", 64);
  char *bytes = calloc(1, size);
  int64_t *by_libc = calloc((size_t)blocks, 8), *directly = calloc((size_t)blocks, 8), *more = calloc((size_t)blocks, 8);
  make_pair(option("sock", "unix"), fd);
  while (asked_for_round()) {
    for (long i = 0; i < blocks; i++) {
      int direct_first = i & 1;
      int64_t first = pairs_ns(call, direct_first, fd, bytes, size), second = pairs_ns(call, !direct_first, fd, bytes, size);
      by_libc[i] = direct_first ? second : first;
      directly[i] = direct_first ? first : second;
      more[i] = by_libc[i] - directly[i];
    }
    printf("{\"pair_ns\":%.2f,\"direct_ns\":%.2f,\"more_ns\":%.2f}\n", (double)median_of(by_libc, blocks) / PAIRS,
           (double)median_of(directly, blocks) / PAIRS, (double)median_of(more, blocks) / PAIRS);
    fflush(stdout);
  }
}

/* Each end of a bulk transfer keeps to a processor of its own: where the scheduler puts the two otherwise makes a
 * difference of 2. */
static void keep_to_processor(int which) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(which % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
  sched_setaffinity(0, sizeof set, &set); /* where that is not allowed, it is only less steady */
}

struct sink {
  int fd, directly;
  int64_t bytes;
};
static void *drain(void *given) {
  struct sink *sink = given;
  size_t room = 1 << 18;
  char *buffer = malloc(room);
  keep_to_processor(1);
  for (int64_t got = 0; got < sink->bytes;) {
    ssize_t n = sink->directly ? receive_directly(RECV, sink->fd, buffer, room) : recv(sink->fd, buffer, room, 0);
    if (n <= 0) fail("recv");
    got += n;
  }
  free(buffer);
  return NULL;
}
static int64_t carry_ns(int fd[2], int directly, char *buffer, size_t chunk, int64_t bytes) {
  struct sink sink = {fd[1], directly, bytes};
  pthread_t thread;
  if (pthread_create(&thread, NULL, drain, &sink)) fail("pthread_create");
  int64_t start = now_ns();
  for (int64_t left = bytes; left > 0;) {
    ssize_t n = directly ? send_directly(SEND, fd[0], buffer, chunk) : send(fd[0], buffer, chunk, 0);
    if (n < 0) fail("send");
    left -= n;
  }
  pthread_join(thread, NULL);
  return now_ns() - start;
}
#define TRANSFERS 15 /* of each kind in a round */
static void bulk_mode(void) {
  int fd[2];
  size_t chunk = (size_t)option_number("chunk", 65536);
  int64_t bytes = option_number("bytes", 32 << 20) / (int64_t)chunk * (int64_t)chunk;
  char *buffer = calloc(1, chunk);
  int64_t by_libc[TRANSFERS], directly[TRANSFERS];
  make_pair("tcp", fd);
  keep_to_processor(0);
  while (asked_for_round()) {
    for (int i = 0; i < TRANSFERS; i++) {
      int direct_first = i & 1;
      int64_t first = carry_ns(fd, direct_first, buffer, chunk, bytes), second = carry_ns(fd, !direct_first, buffer, chunk, bytes);
      by_libc[i] = direct_first ? second : first;
      directly[i] = direct_first ? first : second;
    }
    printf("{\"carry_ns\":%.0f,\"direct_ns\":%.0f}\n", (double)median_of(by_libc, TRANSFERS), (double)median_of(directly, TRANSFERS));
    fflush(stdout);
  }
}

static void print_errors(const char *name, int64_t *errors, long n, const char *end) {
  qsort(errors, (size_t)n, sizeof *errors, by_value);
  printf("\"%s\":{\"min_us\":%.3f,\"p50_us\":%.3f,\"p99_us\":%.3f}%s", name, (double)errors[0] / 1e3,
         (double)errors[n / 2] / 1e3, (double)errors[n * 99 / 100] / 1e3, end);
}
static void delay_mode(void) {
  int fd[2], sends = strcmp(option("side", "send"), "send") == 0;
  const char *name = option("call", sends ? "send" : "recv");
  int call = sends ? call_named(name, send_names, SENDS) : call_named(name, receive_names, RECEIVES);
  int64_t ask_ns = option_number("ask_us", 1000) * 1000;
  long n = option_number("n", 100);
  int64_t *slept = calloc((size_t)n, sizeof *slept), *took = calloc((size_t)n, sizeof *took);
  char bytes[64] = {0};
  make_pair("tcp", fd);
  for (long i = -3; i < n; i++) { /* three for the caches */
    struct timespec ask = {ask_ns / 1000000000, ask_ns % 1000000000};
    int64_t t0 = now_ns();
    clock_nanosleep(CLOCK_MONOTONIC, 0, &ask, NULL);
    int64_t t1 = now_ns();
    ssize_t sent = sends ? send_by(call, fd[0], bytes, sizeof bytes, 1) : send(fd[1], bytes, sizeof bytes, 0);
    if (sent != sizeof bytes) fail("send");
    ssize_t got = sends ? recv(fd[1], bytes, sizeof bytes, 0) : receive_by(call, fd[0], bytes, sizeof bytes, 1);
    if (got != sizeof bytes) fail("receive");
    int64_t t2 = now_ns();
    if (i < 0) continue;
    slept[i] = t1 - t0 - ask_ns;
    took[i] = t2 - t1 - ask_ns;
  }
  printf("{");
  print_errors("nanosleep", slept, n, ",");
  print_errors("call", took, n, "}\n");
}

static void pipeline_mode(void) {
  enum { SENDS_IN_A_ROW = 10 };
  int fd[2], sends = strcmp(option("side", "send"), "send") == 0;
  int64_t ask_ns = option_number("ask_us", 50000) * 1000, left[SENDS_IN_A_ROW], late[SENDS_IN_A_ROW];
  char bytes[64] = {0};
  make_pair("tcp", fd);
  int from = sends ? fd[0] : fd[1], to = sends ? fd[1] : fd[0];
  for (int round = 0; round < 2; round++) { /* the first for the caches */
    for (int i = 0; i < SENDS_IN_A_ROW; i++) {
      left[i] = now_ns();
      if (send(from, bytes, sizeof bytes, 0) != sizeof bytes) fail("send");
    }
    for (int i = 0; i < SENDS_IN_A_ROW; i++) {
      if (recv(to, bytes, sizeof bytes, MSG_WAITALL) != sizeof bytes) fail("recv");
      late[i] = now_ns() - left[i] - ask_ns;
    }
  }
  printf("{");
  print_errors("late", late, SENDS_IN_A_ROW, "}\n");
}

/* The peer of a transfer. */
struct peer {
  int fd, sends;
  int64_t bytes;
};
static void *carry_far_end(void *given) {
  struct peer *peer = given;
  size_t room = 1 << 18;
  char *buffer = calloc(1, room);
  for (int64_t left = peer->bytes; left > 0;) {
    size_t part = left < (int64_t)room ? (size_t)left : room;
    long n = peer->sends ? syscall(SYS_write, peer->fd, buffer, part) : syscall(SYS_read, peer->fd, buffer, room);
    if (n <= 0) fail("the peer");
    left -= n;
  }
  free(buffer);
  return NULL;
}
static void transfer_mode(void) {
  int fd[2], sends = strcmp(option("side", "send"), "send") == 0;
  size_t chunk = (size_t)option_number("chunk", 65536);
  int64_t bytes = option_number("bytes", 256 << 20);
  char *buffer = calloc(1, chunk);
  pthread_t thread;
  make_pair("tcp", fd);
  struct peer peer = {fd[1], !sends, bytes};
  int64_t start = now_ns();
  if (pthread_create(&thread, NULL, carry_far_end, &peer)) fail("pthread_create");
  for (int64_t left = bytes; left > 0;) {
    size_t part = left < (int64_t)chunk ? (size_t)left : chunk;
    ssize_t n = sends ? send(fd[0], buffer, part, 0) : recv(fd[0], buffer, part, 0);
    if (n <= 0) fail(sends ? "send" : "recv");
    left -= n;
  }
  pthread_join(thread, NULL);
  printf("{\"bytes_per_s\":%.0f}\n", (double)bytes / ((double)(now_ns() - start) / 1e9));
}

static int64_t looks_ns(int epolls, int directly, int epfd, int fd) {
  int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < PAIRS; i++) {
    struct pollfd one = {fd, POLLIN, 0};
    struct epoll_event event;
    long n = epolls ? directly ? syscall(SYS_epoll_wait, epfd, &event, 1, 0) : epoll_wait(epfd, &event, 1, 0)
                    : directly ? syscall(SYS_poll, &one, 1, 0) : poll(&one, 1, 0);
    if (n != 1) fail("nothing is ready");
  }
  return clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
}
static void ready_mode(void) {
  int tcp[2], pair[2], epolls = strcmp(option("call", "poll"), "epoll_wait") == 0, epfd = epoll_create1(0);
  long blocks = option_number("n", 10000) / PAIRS;
  int64_t *more = calloc((size_t)blocks, 8), *directly = calloc((size_t)blocks, 8);
  char byte = 0;
  make_pair("tcp", tcp);
  make_pair("unix", pair);
  if (send(tcp[0], &byte, 1, 0) != 1 || recv(tcp[1], &byte, 1, 0) != 1 || send(pair[0], &byte, 1, 0) != 1) fail("send");
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, pair[1], &event)) fail("epoll_ctl");
  while (asked_for_round()) {
    for (long i = 0; i < blocks; i++) {
      int direct_first = i & 1;
      int64_t first = looks_ns(epolls, direct_first, epfd, pair[1]), second = looks_ns(epolls, !direct_first, epfd, pair[1]);
      directly[i] = direct_first ? first : second;
      more[i] = (direct_first ? second : first) - directly[i];
    }
    printf("{\"direct_ns\":%.2f,\"more_ns\":%.2f}\n", (double)median_of(directly, blocks) / PAIRS, (double)median_of(more, blocks) / PAIRS);
    fflush(stdout);
  }
}

/* Arrivals that end on a chunk boundary; the slope is taken between the first after the warm-up and the last. */
struct arrivals {
  int fd;
  int64_t chunk, warm_up_ns;
  int64_t first_ns, first_bytes, last_ns, last_bytes;
};
static void *watch_arrivals(void *given) {
  struct arrivals *seen = given;
  size_t room = 1 << 18;
  char *buffer = malloc(room);
  int64_t bytes = 0, start = 0;
  for (ssize_t n; (n = recv(seen->fd, buffer, room, 0)) > 0;) {
    int64_t now = now_ns();
    bytes += n;
    if (start == 0) start = now;
    if (now - start < seen->warm_up_ns || bytes % seen->chunk) continue;
    if (seen->first_ns == 0) {
      seen->first_ns = now;
      seen->first_bytes = bytes;
    }
    seen->last_ns = now;
    seen->last_bytes = bytes;
  }
  free(buffer);
  return NULL;
}
static void rate_mode(void) {
  int fd[2], call = call_named(option("call", "send"), send_names, SENDS);
  size_t chunk = (size_t)option_number("chunk", 65536);
  int64_t length_ns = (int64_t)(atof(option("seconds", "1.5")) * 1e9);
  char *bytes = calloc(1, chunk);
  make_pair("tcp", fd);
  int room = 1 << 17;  /* else a slow line goes on for minutes after the last send */
  if (setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room)) fail("SO_SNDBUF");
  struct arrivals seen = {.fd = fd[1], .chunk = (int64_t)chunk, .warm_up_ns = length_ns / 5};
  pthread_t thread;
  if (pthread_create(&thread, NULL, watch_arrivals, &seen)) fail("pthread_create");
  for (int64_t end = now_ns() + length_ns; now_ns() < end;)
    if (send_by(call, fd[0], bytes, chunk, 1) != (ssize_t)chunk) fail("send");
  shutdown(fd[0], SHUT_WR);
  pthread_join(thread, NULL);
  if (seen.last_ns == seen.first_ns) {
    fprintf(stderr, "yardstick: fewer than two chunk boundaries were seen\n");
    exit(2);
  }
  double slope_bps = (double)(seen.last_bytes - seen.first_bytes) * 8e9 / (double)(seen.last_ns - seen.first_ns);
  printf("{\"bps\":%.1f}\n", slope_bps);
}

static void loss_mode(void) {
  int sends = strcmp(option("side", "send"), "send") == 0;
  long n = option_number("n", 100000) / BATCH * BATCH;
  char bytes[64] = {0};
  for (int call = 0; call < (sends ? SENDS : RECEIVES); call++) {
    int fd[2];
    long accepted = 0, received = 0;
    make_pair("udp", fd);
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    for (long done = 0; done < n; done += BATCH) {
      if (sends && call == SENDMMSG) {
        ssize_t got = send_by(call, fd[0], bytes, sizeof bytes, BATCH);
        accepted += got > 0 ? got : 0;
      } else {
        for (int i = 0; i < BATCH; i++)
          accepted += send_by(sends ? call : SEND, fd[0], bytes, sizeof bytes, 1) == sizeof bytes;
      }
      for (ssize_t got; (got = receive_by(sends ? RECVMSG : call, fd[1], bytes, sizeof bytes, BATCH)) > 0;)
        received += !sends && call == RECVMMSG ? got : 1;
    }
    close_pair(fd);
    printf("{\"call\":\"%s\",\"asked\":%ld,\"accepted\":%ld,\"received\":%ld}\n",
           sends ? send_names[call] : receive_names[call], n, accepted, received);
  }
}

/* Sends go unread and what is received was sent before, so that each loop holds one kind of call and nothing else. */
static void count_instructions(const char *sock, int sends, int call, long n, const char *label) {
  char bytes[32] = {0};
  for (long times = n; times <= 2 * n; times += n) {
    int fd[2];
    char name[64];
    make_pair(sock, fd);
    int file = fd[0] == fd[1];
    if (!sends && !file)
      for (long i = 0; i < 2 * n; i++) send(fd[0], bytes, sizeof bytes, 0);
    snprintf(name, sizeof name, "%s %s %ld", sock, label, times);
    if ((sends ? send_by(call, fd[0], bytes, 1, 1) : receive_by(call, fd[1], bytes, 1, 1)) != 1) fail(name);
    CALLGRIND_ZERO_STATS;
    if (sends)
      for (long i = 1; i < times; i++) send_by(call, fd[0], bytes, 1, 1);
    else
      for (long i = 1; i < times; i++) receive_by(call, fd[1], bytes, 1, 1);
    CALLGRIND_DUMP_STATS_AT(name);
    close_pair(fd);
  }
}
static void instructions_mode(void) {
  const char *sock = option("sock", "file");
  long n = option_number("n", 100);
  int file = strcmp(sock, "file") == 0;
  for (int call = file ? WRITE : 0; call < SENDS; call++) count_instructions(sock, 1, call, n, send_names[call]);
  for (int call = file ? READ : 0; call < RECEIVES; call++) count_instructions(sock, 0, call, n, receive_names[call]);
}

/* ---- many flows, many policies ---- */

static int sink(struct sockaddr_in *address) {
  socklen_t length = sizeof *address;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (struct sockaddr *)address, length) || getsockname(fd, (struct sockaddr *)address, &length)) fail("bind");
  return fd;
}

static void flows_mode(void) {
  long flows = option_number("flows", 10000), n = option_number("n", 200000), policies = option_number("policies", 0);
  uint64_t hash = strtoull(option("hash", "0"), NULL, 16);
  void (*enter)(uint64_t, int32_t) = (void (*)(uint64_t, int32_t))dlsym(RTLD_DEFAULT, "mishap_enter");
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  struct sockaddr_in to;
  char bytes[64] = {0};
  int *fds = calloc((size_t)flows, sizeof *fds);
  sink(&to);
  for (long i = 0; i < flows; i++) {
    if (policies && enter) enter(hash, (int32_t)(1 + i % policies)); /* slot 0 is the run's own policy's */
    fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
    if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&to, sizeof to)) fail("connect");
  }
  for (long i = 0; i < flows; i++) send(fds[i], bytes, sizeof bytes, 0);
  int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  for (long i = 0; i < n; i++)
    if (send(fds[i % flows], bytes, sizeof bytes, 0) != sizeof bytes) fail("send");
  printf("{\"send_ns\":%.1f}\n", (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - start) / (double)n);
}

static void notice_mode(void) {
  int refused = 0;
  struct sockaddr_in to;
  sink(&to);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
  puts("{\"ready\":true}");
  fflush(stdout);
  for (int64_t now = now_ns(), end = now + option_number("seconds", 2) * 1000000000; now < end;) {
    int is = send(fd, "x", 1, 0) < 0;
    now = now_ns();
    if (is == refused) continue;
    refused = is;
    printf("{\"turn_ns\":%lld}\n", (long long)now);
    fflush(stdout);
  }
}

int main(int count, char **values) {
  arg_count = count;
  arg_values = values;
  const char *mode = count > 1 ? values[1] : "";
  if (strcmp(mode, "pair") == 0) pair_mode();
  else if (strcmp(mode, "bulk") == 0) bulk_mode();
  else if (strcmp(mode, "delay") == 0) delay_mode();
  else if (strcmp(mode, "pipeline") == 0) pipeline_mode();
  else if (strcmp(mode, "transfer") == 0) transfer_mode();
  else if (strcmp(mode, "ready") == 0) ready_mode();
  else if (strcmp(mode, "rate") == 0) rate_mode();
  else if (strcmp(mode, "loss") == 0) loss_mode();
  else if (strcmp(mode, "flows") == 0) flows_mode();
  else if (strcmp(mode, "notice") == 0) notice_mode();
  else if (strcmp(mode, "instructions") == 0) instructions_mode();
  else {
    fprintf(stderr, "usage: yardstick MODE [key=value ...], with the modes at the top of yardstick.c\n");
    return 2;
  }
  return 0;
}
