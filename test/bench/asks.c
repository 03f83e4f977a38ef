// A program whose sends a script may be asked about, over UDP to a socket of its own:
//
//   asks once                       one send; prints when it returned: {"at_ms": Unix time}
//   asks latency n= pause_us=       so many sends: {"p50_ns", "p99_ns"} of what each took
//   asks rate threads= seconds=     sends as fast as so many threads can: {"per_second"}
//   asks flows n= seconds=          so many flows, a send each, then idle for so long
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int arguments;
static char **argument;
static long number(const char *key, long otherwise) {
  const size_t n = strlen(key);
  for (int i = 2; i < arguments; i++)
    if (strncmp(argument[i], key, n) == 0 && argument[i][n] == '=') return atol(argument[i] + n + 1);
  return otherwise;
}
static long long clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void fail(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in sink;
static void open_sink(void) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  socklen_t length = sizeof(sink);
  sink.sin_family = AF_INET;
  sink.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *)&sink, sizeof(sink)) || getsockname(fd, (struct sockaddr *)&sink, &length)) fail("sink");
}
static int open_flow(void) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&sink, sizeof(sink))) fail("flow");
  return fd;
}
static void send_one(int fd) {
  if (send(fd, "12345678", 8, 0) != 8) fail("send");
}

static int by_size(const void *a, const void *b) {
  const long long x = *(const long long *)a, y = *(const long long *)b;
  return (x > y) - (x < y);
}

static volatile int stop;
static void *send_all(void *sent) {
  const int fd = open_flow();
  while (!stop) {
    send_one(fd);
    ++*(long *)sent;
  }
  return NULL;
}

int main(int argc, char **argv) {
  arguments = argc;
  argument = argv;
  const char *mode = argc > 1 ? argv[1] : "";
  open_sink();
  if (strcmp(mode, "once") == 0) {
    send_one(open_flow());
    printf("{\"at_ms\":%.3f}\n", (double)clock_ns(CLOCK_REALTIME) / 1e6);
  } else if (strcmp(mode, "latency") == 0) {
    const long n = number("n", 20000), pause_us = number("pause_us", 0), warm_up = 2000;
    long long *took = calloc((size_t)(n + warm_up), sizeof(*took));
    const int fd = open_flow();
    for (long i = 0; i < n + warm_up; i++) {
      if (pause_us) usleep((unsigned)pause_us);
      const long long start = clock_ns(CLOCK_MONOTONIC);
      send_one(fd);
      took[i] = clock_ns(CLOCK_MONOTONIC) - start;
    }
    qsort(took + warm_up, (size_t)n, sizeof(*took), by_size);
    printf("{\"p50_ns\":%lld,\"p99_ns\":%lld}\n", took[warm_up + n / 2], took[warm_up + n * 99 / 100]);
  } else if (strcmp(mode, "rate") == 0) {
    enum { kMost = 64 };
    const long threads = number("threads", 8), seconds = number("seconds", 2);
    pthread_t thread[kMost];
    static struct {
      long sent;
      char line[120];
    } of[kMost];
    for (long i = 0; i < threads && i < kMost; i++) pthread_create(&thread[i], NULL, send_all, &of[i].sent);
    sleep(1);
    long before = 0, after = 0;
    for (long i = 0; i < threads; i++) before += of[i].sent;
    const long long start = clock_ns(CLOCK_MONOTONIC);
    sleep((unsigned)seconds);
    for (long i = 0; i < threads; i++) after += of[i].sent;
    printf("{\"per_second\":%.0f}\n", (double)(after - before) * 1e9 / (double)(clock_ns(CLOCK_MONOTONIC) - start));
    stop = 1;
    for (long i = 0; i < threads && i < kMost; i++) pthread_join(thread[i], NULL);
  } else if (strcmp(mode, "flows") == 0) {
    const long n = number("n", 1000);
    const struct rlimit many = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &many);
    for (long i = 0; i < n; i++) send_one(open_flow());
    puts("open");
    fflush(stdout);
    sleep((unsigned)number("seconds", 5));
  } else {
    fprintf(stderr, "usage: asks once|latency|rate|flows [key=value...]\n");
    return 2;
  }
  return 0;
}
