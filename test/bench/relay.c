// What the relay costs and how exact it is, measured by a client of a server outside:
//
//   relay serve [ADDRESS]          prints its port; echoes what connections send, or counts it where the first byte is 'S',
//                                  until its standard input ends
//   relay rtt PORT TRIPS PAUSE_US  64 bytes there and back: {"p50_us","p99_us"}
//   relay bulk PORT MEGABYTES      one way, until the server has all: {"bytes_per_second"}
//   relay connects PORT SECONDS    one after the other, a byte there and back on each, ended by a RST: {"per_second"}
//
// PORT is one of this host, or ADDRESS:PORT.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TRIP_BYTES = 64, BULK_BYTES = 1 << 18 };

static void must(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *serve_one(void *given) {
  const int fd = (int)(intptr_t)given, on = 1;
  char *bytes = malloc(BULK_BYTES);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ssize_t n = recv(fd, bytes, BULK_BYTES, 0);
  const int counts = n > 0 && bytes[0] == 'S';
  for (; n > 0; n = recv(fd, bytes, BULK_BYTES, 0))
    if (!counts && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) != n) break;
  close(fd);
  free(bytes);
  return NULL;
}

static void *serve(void *given) {
  for (int fd; (fd = accept((int)(intptr_t)given, NULL, NULL)) >= 0;) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)fd) == 0, "pthread_create");
    pthread_detach(thread);
  }
  return NULL;
}

// Of ADDRESS:PORT, where the address is this host's unless it is said.
static struct sockaddr_in address_of(const char *text) {
  const char *colon = strchr(text, ':');
  char host[INET_ADDRSTRLEN] = "127.0.0.1";
  if (colon) snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon ? colon + 1 : text))};
  must(inet_pton(AF_INET, host, &address.sin_addr) == 1, "an address");
  return address;
}

static int connect_to(const char *server) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  const struct sockaddr_in to = address_of(server);
  must(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static int by_size(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void trips(const char *server, long count, long pause_us) {
  char bytes[TRIP_BYTES] = {0};
  int64_t *took = calloc((size_t)count, sizeof *took);
  const int fd = connect_to(server);
  const struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
  for (long i = -count / 10; i < count; i++) {
    const int64_t start = now_ns();
    must(send(fd, bytes, sizeof bytes, 0) == sizeof bytes && recv(fd, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes, "a trip");
    if (i >= 0) took[i] = now_ns() - start;
    if (pause_us) nanosleep(&pause, NULL);
  }
  qsort(took, (size_t)count, sizeof *took, by_size);
  printf("{\"p50_us\":%.1f,\"p99_us\":%.1f}\n", (double)took[count / 2] / 1e3, (double)took[count * 99 / 100] / 1e3);
}

static void bulk(const char *server, long megabytes) {
  char *bytes = malloc(BULK_BYTES), end;
  memset(bytes, 'S', BULK_BYTES);
  const int fd = connect_to(server);
  const int64_t start = now_ns(), total = megabytes * 1000000;
  for (int64_t sent = 0; sent < total;) {
    const ssize_t n = send(fd, bytes, BULK_BYTES, 0);
    must(n > 0, "send");
    sent += n;
  }
  shutdown(fd, SHUT_WR);
  must(recv(fd, &end, 1, 0) == 0, "the end");
  printf("{\"bytes_per_second\":%.0f}\n", (double)total * 1e9 / (double)(now_ns() - start));
}

static void connects(const char *server, double seconds) {
  const struct linger at_once = {1, 0};
  long made = 0;
  const int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
  for (; now_ns() < end; made++) {
    char byte = 0;
    const int fd = connect_to(server);
    must(send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1, "a byte");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
  }
  printf("{\"per_second\":%.0f}\n", (double)made * 1e9 / (double)(now_ns() - start));
}

int main(int count, char **values) {
  const char *mode = count > 1 ? values[1] : "";
  const char *server = count > 2 ? values[2] : "";
  const double amount = count > 3 ? atof(values[3]) : 0;
  if (strcmp(mode, "serve") == 0) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (*server) must(inet_pton(AF_INET, server, &address.sin_addr) == 1, "an address");
    socklen_t length = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1024) == 0, "listen");
    must(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_t thread;
    must(pthread_create(&thread, NULL, serve, (void *)(intptr_t)listener) == 0, "pthread_create");
    while (getchar() != EOF) {
    }
  } else if (strcmp(mode, "rtt") == 0) {
    trips(server, (long)amount, count > 4 ? atol(values[4]) : 0);
  } else if (strcmp(mode, "bulk") == 0) {
    bulk(server, (long)amount);
  } else if (strcmp(mode, "connects") == 0) {
    connects(server, amount);
  } else {
    fprintf(stderr, "usage: relay serve|rtt|bulk|connects …, as its source says\n");
    return 2;
  }
  return 0;
}
