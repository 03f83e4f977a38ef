// Workers that each open flows of their own and send units on them, all at once, to a sink that no hook sees.
//
//   flows threads|processes udp|tcp PORT WORKERS FLOWS UNITS
//   flows shared udp PORT WORKERS FLOWS UNITS         one flow at a time for all workers; prints how many datagrams came
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool tcp;
static int port, workers, flows, units, sink, shared = -1;
static long came;

static struct sockaddr_in sink_address(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

static void fail(const char* what) {
  perror(what);
  syscall(SYS_exit_group, 1);
}

// Reads away whatever comes, by raw system calls.
static void* drain(void* unused) {
  static struct pollfd polls[256];
  static char bytes[1 << 16];
  int count = 1;
  polls[0] = (struct pollfd){sink, POLLIN, 0};
  for (;;) {
    syscall(SYS_poll, polls, count, -1);
    if (polls[0].revents && !tcp) {
      syscall(SYS_recvfrom, sink, bytes, sizeof(bytes), 0, NULL, NULL);
      __atomic_add_fetch(&came, 1, __ATOMIC_RELAXED);
    }
    else if (polls[0].revents && count < 256) polls[count++] = (struct pollfd){(int)syscall(SYS_accept, sink, NULL, NULL), POLLIN, 0};
    for (int i = 1; i < count; i++)
      if (polls[i].revents && syscall(SYS_read, polls[i].fd, bytes, sizeof(bytes)) <= 0) polls[i].fd = -1;
  }
  return unused;
}

static void* work(void* unused) {
  static const char unit[1448];
  for (int f = 0; f < flows; f++) {
    int fd = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0), on = 1;
    struct sockaddr_in to = sink_address();
    if (connect(fd, (struct sockaddr*)&to, sizeof(to))) fail("connect");
    if (tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    for (int i = 0; i < units; i++) {
      size_t size = tcp ? sizeof(unit) : 16;
      if (send(fd, unit, size, 0) != (ssize_t)size) fail("send");
      if (i % 50 == 49) usleep(500);  // the journal's reader needs a moment too
    }
    close(fd);
  }
  return unused;
}

static void* work_together(void* unused) {
  for (int i = 0; i < units; i++) {
    if (send(shared, "together", 8, 0) != 8) fail("send");
    if (i % 20 == 19) usleep(500);
  }
  return unused;
}

static int share(void) {
  pthread_t threads[64];
  for (int f = 0; f < flows; f++) {
    shared = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = sink_address();
    if (connect(shared, (struct sockaddr*)&to, sizeof(to))) fail("connect");
    for (int w = 0; w < workers && w < 64; w++) pthread_create(&threads[w], NULL, work_together, NULL);
    for (int w = 0; w < workers && w < 64; w++) pthread_join(threads[w], NULL);
    close(shared);
  }
  usleep(50000);
  printf("%ld\n", __atomic_load_n(&came, __ATOMIC_RELAXED));
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  bool processes = !strcmp(argv[1], "processes");
  tcp = !strcmp(argv[2], "tcp");
  port = atoi(argv[3]), workers = atoi(argv[4]), flows = atoi(argv[5]), units = atoi(argv[6]);
  int on = 1;
  struct sockaddr_in at = sink_address();
  sink = (int)syscall(SYS_socket, AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
  syscall(SYS_setsockopt, sink, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (syscall(SYS_bind, sink, &at, sizeof(at)) || (tcp && syscall(SYS_listen, sink, 128))) fail("bind");
  pthread_t drainer, threads[64];
  int room = 4 << 20;
  syscall(SYS_setsockopt, sink, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
  pthread_create(&drainer, NULL, drain, NULL);
  if (!strcmp(argv[1], "shared")) return share();
  for (int w = 0; w < workers && w < 64; w++) {
    if (!processes) pthread_create(&threads[w], NULL, work, NULL);
    else if (fork() == 0) {
      work(NULL);
      _exit(0);
    }
  }
  int failed = 0, status;
  for (int w = 0; w < workers && w < 64; w++) {
    if (!processes) pthread_join(threads[w], NULL);
    else if (wait(&status) > 0) failed |= status;
  }
  return failed != 0;
}
