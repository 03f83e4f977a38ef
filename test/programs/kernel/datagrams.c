// A client of datagrams without a connect, to be linked statically. `datagrams PORT COUNT` sends so many to an echo server on
// 127.0.0.1, each once the one before was answered, and prints how many were answered from there and the milliseconds it took.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int count, char **values) {
  if (count < 3) return 2;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(values[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int end = socket(AF_INET, SOCK_DGRAM, 0), many = atoi(values[2]);
  const struct timeval patience = {2, 0};
  setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const double start = now_ms();
  int answered = 0;
  for (int i = 0; i < many; i++) {
    char text[16], back[16];
    const int size = snprintf(text, sizeof(text), "%d", i);
    struct sockaddr_in from = {0};
    socklen_t length = sizeof(from);
    if (sendto(end, text, size, 0, (struct sockaddr *)&to, sizeof(to)) != size) continue;
    if (recvfrom(end, back, sizeof(back), 0, (struct sockaddr *)&from, &length) != size || memcmp(text, back, size) != 0) continue;
    answered += from.sin_port == to.sin_port && from.sin_addr.s_addr == to.sin_addr.s_addr;
  }
  printf("{\"answered\":%d,\"ms\":%.1f}\n", answered, now_ms() - start);
  return 0;
}
