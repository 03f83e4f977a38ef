// What the serving programs share: they accept so many connections one after another, and give back what comes until its end.
//
//   PROGRAM ADDRESS PORT CONNECTIONS
//
// "listening" goes to stdout first, then for each connection whom accept(2) and getpeername(2) name, and what getsockname(2) does:
//   {"accepted":["10.0.0.1",50000],"peer":["10.0.0.1",50000],"local":["10.0.0.2",80]}
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// A listener, and in `count` how many are to come.
static int listener_of(int arguments, char **values, long *count) {
  if (arguments != 4) {
    fprintf(stderr, "usage: %s ADDRESS PORT CONNECTIONS\n", values[0]);
    exit(2);
  }
  const int family = strchr(values[1], ':') ? AF_INET6 : AF_INET, on = 1;
  const in_port_t port = htons((in_port_t)atoi(values[2]));
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
  if (inet_pton(family, values[1], family == AF_INET ? (void *)&in.sin_addr : (void *)&in6.sin6_addr) != 1) fail(values[1]);
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const struct sockaddr *own = family == AF_INET ? (const struct sockaddr *)&in : (const struct sockaddr *)&in6;
  if (bind(fd, own, family == AF_INET ? sizeof(in) : sizeof(in6)) != 0 || listen(fd, 128) != 0) fail("listen");
  puts("listening");
  fflush(stdout);
  *count = atol(values[3]);
  return fd;
}

static void print_end(const char *name, const struct sockaddr_storage *end) {
  char text[INET6_ADDRSTRLEN];
  const struct sockaddr_in6 *in6 = (const void *)end;
  const struct sockaddr_in *in = (const void *)end;
  inet_ntop(end->ss_family, end->ss_family == AF_INET ? (const void *)&in->sin_addr : (const void *)&in6->sin6_addr, text, sizeof(text));
  printf("\"%s\":[\"%s\",%d]", name, text, ntohs(in->sin_port));
}

static void report(int fd, const struct sockaddr_storage *accepted) {
  struct sockaddr_storage peer, local;
  socklen_t peer_length = sizeof(peer), local_length = sizeof(local);
  if (getpeername(fd, (struct sockaddr *)&peer, &peer_length) != 0 || getsockname(fd, (struct sockaddr *)&local, &local_length) != 0) fail("getpeername");
  printf("{");
  print_end("accepted", accepted);
  printf(",");
  print_end("peer", &peer);
  printf(",");
  print_end("local", &local);
  printf("}\n");
  fflush(stdout);
}
