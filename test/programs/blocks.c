// Blocks both ways that carry their own checksum, and what became of them: for the moments at which something between the two
// ends goes away. A stream that ends within a block, or a block with a wrong byte, is what must never be.
//
//   blocks serve: prints its port; answers each block with another, and a stream's end with the end
//   blocks PORT CLIENTS PATIENCE_MS: so many threads connect, exchange some blocks, and begin again, until SIGTERM; then a line
//   of JSON: connections that were made and went well, errors by name, what was wrong, and the longest wait for one call
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kMost = 60000, kBlocks = 6 };
struct block {
  uint32_t words, seed, check;
};

static volatile sig_atomic_t over = 0;
static int patience_ms;
static pthread_mutex_t told = PTHREAD_MUTEX_INITIALIZER;
static unsigned went_well, wrong, errors[200];
static double longest_ms;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static uint32_t next(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

static int since(double start, int result) {
  const double took = now_ms() - start;
  const int error = errno;
  pthread_mutex_lock(&told);
  if (took > longest_ms) longest_ms = took;
  pthread_mutex_unlock(&told);
  errno = error;
  return result;
}

// 1 all of it; 0 the stream's end, at its very beginning; -1 an error; -2 an end within.
static int receive(int fd, void *to, size_t size) {
  for (size_t at = 0; at < size;) {
    const double start = now_ms();
    const ssize_t n = since(start, recv(fd, (char *)to + at, size - at, 0));
    if (n == 0) return at ? -2 : 0;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    at += n;
  }
  return 1;
}
static int give(int fd, const void *from, size_t size) {
  for (size_t at = 0; at < size;) {
    const double start = now_ms();
    const ssize_t n = since(start, send(fd, (const char *)from + at, size - at, MSG_NOSIGNAL));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    at += n;
  }
  return 1;
}

static int give_block(int fd, uint32_t seed) {
  static __thread uint32_t words[kMost / 4];
  struct block head = {1 + next(&seed) % (kMost / 4), seed, 0};
  for (uint32_t i = 0, state = seed; i < head.words; i++) head.check += words[i] = next(&state);
  const int sent = give(fd, &head, sizeof(head));
  return sent == 1 ? give(fd, words, head.words * 4) : sent;
}
// As receive(); -2 too where a byte is wrong.
static int receive_block(int fd) {
  static __thread uint32_t words[kMost / 4];
  struct block head;
  const int got = receive(fd, &head, sizeof(head));
  if (got != 1) return got;
  if (head.words > kMost / 4) return -2;
  const int rest = receive(fd, words, head.words * 4);
  if (rest != 1) return rest == 0 ? -2 : rest;
  uint32_t check = 0, state = head.seed;
  for (uint32_t i = 0; i < head.words; i++) {
    if (words[i] != next(&state)) return -2;
    check += words[i];
  }
  return check == head.check ? 1 : -2;
}

static void close_abruptly(int fd) {
  const struct linger at_once = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

static void *answer(void *given) {
  const int fd = (int)(intptr_t)given;
  const struct timeval patience = {30, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  uint32_t seed = fd;
  int got, done = 1, blocks = 0;
  while ((got = receive_block(fd)) == 1 && (done = give_block(fd, next(&seed))) == 1) blocks++;
  if (got == -2 || (got == 0 && blocks != kBlocks)) {  // an end that no client made
    printf("wrong: a stream ended behind %d blocks, %d\n", blocks, got);
    fflush(stdout);
  }
  if (got == 0) close(fd);
  else close_abruptly(fd);
  return NULL;
}

static int serve(void) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
  socklen_t length = sizeof(at);
  if (bind(fd, (void *)&at, length) || listen(fd, 1000) || getsockname(fd, (void *)&at, &length)) return 1;
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  for (;;) {
    const int end = accept(fd, NULL, NULL);
    pthread_t thread;
    if (end < 0) continue;
    if (pthread_create(&thread, NULL, answer, (void *)(intptr_t)end)) close_abruptly(end);
    else pthread_detach(thread);
  }
}

// 1 well, -1 an error, -2 wrong.
static int converse(int fd, const struct sockaddr_in *to, uint32_t seed) {
  const struct timeval patience = {patience_ms / 1000, patience_ms % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  const double start = now_ms();
  if (since(start, connect(fd, (const void *)to, sizeof(*to)))) return -1;
  for (int i = 0; i < kBlocks; i++) {
    if (give_block(fd, next(&seed)) != 1) return -1;
    const int got = receive_block(fd);
    if (got != 1) return got == 0 ? -2 : got;
  }
  if (shutdown(fd, SHUT_WR)) return -1;
  char one;
  const int end = receive(fd, &one, 1);
  return end == 0 ? 1 : end == 1 ? -2 : end;
}

static void *client(void *given) {
  const int port = *(int *)given;
  const struct sockaddr_in to = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
  uint32_t seed = (uint32_t)(uintptr_t)pthread_self();
  while (!over) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int came = converse(fd, &to, next(&seed));
    const int error = errno;
    if (came == 1) close(fd);
    else close_abruptly(fd);
    pthread_mutex_lock(&told);
    if (came == 1) went_well++;
    else if (came == -2) wrong++;
    else if (error < 200) errors[error]++;
    pthread_mutex_unlock(&told);
    usleep(2000);
  }
  return NULL;
}

static void end(int number) { over = number; }

int main(int argc, char **argv) {
  if (argc == 2) return serve();
  if (argc != 4) return 2;
  int port = atoi(argv[1]);
  const int clients = atoi(argv[2]);
  patience_ms = atoi(argv[3]);
  const struct sigaction act = {.sa_handler = end, .sa_flags = SA_RESTART};
  sigaction(SIGTERM, &act, NULL);
  pthread_t threads[64];
  for (int i = 0; i < clients && i < 64; i++) pthread_create(&threads[i], NULL, client, &port);
  for (unsigned before = ~0u; !over;) {  // how it goes, so that others see it
    usleep(50000);
    pthread_mutex_lock(&told);
    if (went_well != before) dprintf(1, "%u\n", before = went_well);
    pthread_mutex_unlock(&told);
  }
  for (int i = 0; i < clients && i < 64; i++) pthread_join(threads[i], NULL);
  printf("{\"went_well\":%u,\"wrong\":%u,\"longest_ms\":%.0f,\"errors\":{", went_well, wrong, longest_ms);
  const char *comma = "";
  for (int i = 0; i < 200; i++) {
    if (!errors[i]) continue;
    printf("%s\"%s\":%u", comma, strerrorname_np(i), errors[i]);
    comma = ",";
  }
  puts("}}");
  return 0;
}
