// What these programs share: an exchange of bytes with a peer outside mishap, by whichever calls a program makes, and an
// exact account of it from what the calls returned.
//
//   PROGRAM PORT CONNECTIONS UP DOWN [LINGER_MS]
//
// Each connection sends UP bytes to the peer at 127.0.0.1:PORT, receives DOWN, and closes LINGER_MS later. What was moved
// goes to stdout, a line for each way of making the calls:
//   {"way":"libc","pid":12,"flows":3,"up":30000,"down":45000}
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// One way of making the calls: results as system calls give them, errors negative.
struct way {
  const char *name;
  long (*open)(const struct sockaddr_in *peer);
  long (*send)(int fd, const void *bytes, size_t count);
  long (*receive)(int fd, void *bytes, size_t count);
  void (*close)(int fd);
  long flows, up, down;
};

struct task {
  struct sockaddr_in peer;
  long connections, up, down, linger_ms;
};

static void fail(const char *what, long error) {
  fprintf(stderr, "%s: %s\n", what, strerror((int)-error));
  exit(1);
}

static struct task task_of(int count, char **values) {
  if (count < 5) {
    fprintf(stderr, "usage: %s PORT CONNECTIONS UP DOWN [LINGER_MS]\n", values[0]);
    exit(2);
  }
  struct task task = {.connections = atol(values[2]), .up = atol(values[3]), .down = atol(values[4])};
  task.linger_ms = count > 5 ? atol(values[5]) : 0;
  task.peer.sin_family = AF_INET;
  task.peer.sin_port = htons((unsigned short)atoi(values[1]));
  task.peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return task;
}

// Sizes that are neither round nor equal, so that no call's share of the bytes looks like another's.
static size_t next_size(long left, long turn) {
  const long size = 700 + 131 * (turn % 7);
  return (size_t)(size < left ? size : left);
}

// One connection, opened by the first of these ways; they take turns in sending and receiving.
static void exchange_one(struct way **ways, long count, const struct task *task) {
  static char bytes[4096];
  struct way *used[2] = {NULL, NULL};
  const long fd = ways[0]->open(&task->peer);
  if (fd < 0) fail("connect", fd);
  for (long left = task->up, turn = 0; left > 0; turn++) {
    struct way *way = used[turn % count] = ways[turn % count];
    const long n = way->send((int)fd, bytes, next_size(left, turn));
    if (n <= 0) fail("send", n);
    way->up += n;
    left -= n;
  }
  for (long left = task->down, turn = 0; left > 0; turn++) {
    struct way *way = used[turn % count] = ways[turn % count];
    const long n = way->receive((int)fd, bytes, next_size(left, turn));
    if (n <= 0) fail("receive", n);
    way->down += n;
    left -= n;
  }
  for (long i = 0; i < count; i++)
    if (used[i]) used[i]->flows++;
  const struct timespec linger = {task->linger_ms / 1000, task->linger_ms % 1000 * 1000000};
  nanosleep(&linger, NULL);
  ways[0]->close((int)fd);
}

static void exchange(struct way **ways, long count, const struct task *task) {
  for (long i = 0; i < task->connections; i++) exchange_one(ways, count, task);
}

static void report(const struct way *way) {
  printf("{\"way\":\"%s\",\"pid\":%d,\"flows\":%ld,\"up\":%ld,\"down\":%ld}\n", way->name, (int)getpid(), way->flows, way->up,
         way->down);
}
