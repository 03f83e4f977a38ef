// A program that does ops at a rate: `ops OPS SPINS` sends so many datagrams to itself, with so much work between two of
// them, and prints {"ns": what it took, "spin_ns": what one spin of that work takes}.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static volatile uint64_t sink;
static void work(long spins) {
  uint64_t x = sink;
  for (long i = 0; i < spins; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  sink = x;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const long ops = atol(argv[1]), spins = atol(argv[2]);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(here);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (bind(fd, (struct sockaddr*)&here, length) || getsockname(fd, (struct sockaddr*)&here, &length)) return 1;
  const int to = socket(AF_INET, SOCK_DGRAM, 0);
  if (connect(to, (struct sockaddr*)&here, length)) return 1;
  uint64_t start = now_ns();
  work(10000000);
  const double spin_ns = (double)(now_ns() - start) / 1e7;
  char text[64] = "";
  start = now_ns();
  for (long i = 0; i < ops; i++) {
    if (send(to, text, sizeof(text), 0) < 0) return 1;  // what nobody reads is dropped
    work(spins);
  }
  printf("{\"ns\": %llu, \"spin_ns\": %f}\n", (unsigned long long)(now_ns() - start), spin_ns);
}
