/* The outside end of the matrix's rows (test/bench/matrix.mjs): a client that paces its requests, and a server that takes
 * as long as it is told and sees how long its clients take. It runs bare, one thread a connection, so that what it
 * measures is the program at the other end.
 *
 *   load client proto=redis|http|memcached|echo port=N [connections=1 requests=10 warm_up=3 period_us=0 think_us=0]
 *     Each connection sends a request, waits for the answer, thinks, and goes on. The connections start spread over a
 *     period, so that none waits behind the others. Samples: from a request to its answer.
 *   load server [hold_us=0]
 *     Answers HTTP and Redis's PING on a free port, which it prints first; prints the rest when its stdin ends. Samples:
 *     from when an answer was due to the connection's next request. `held_ms`: how long answers, or thinking, really took.
 *
 * Prints one line of JSON. A sample is [when it ended, in ms since 1970; how long it took, in ms, or null for one that
 * only warmed up]. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int arg_count;
static char **arg_values;
static const char *option(const char *name, const char *otherwise) {
  size_t length = strlen(name);
  for (int i = 2; i < arg_count; i++)
    if (strncmp(arg_values[i], name, length) == 0 && arg_values[i][length] == '=') return arg_values[i] + length + 1;
  return otherwise;
}
static long number(const char *name, long otherwise) {
  const char *value = option(name, NULL);
  return value ? atol(value) : otherwise;
}
static void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(2);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static void sleep_until(int64_t ns) {
  struct timespec t = {ns / 1000000000, ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

/* ---- what was measured ---- */

struct sample {
  int64_t at_ns; /* CLOCK_REALTIME */
  int64_t took_ns;
};
#define WARM_UP (-1)
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sample *samples, *held;
static size_t sample_count, held_count;

static void note(struct sample **list, size_t *count, int64_t took_ns) {
  pthread_mutex_lock(&lock);
  if ((*count & (*count - 1)) == 0) *list = realloc(*list, (*count ? *count * 2 : 1) * sizeof **list);
  if (!*list) fail("realloc");
  (*list)[(*count)++] = (struct sample){clock_ns(CLOCK_REALTIME), took_ns};
  pthread_mutex_unlock(&lock);
}

static void print_results(long lost) {
  pthread_mutex_lock(&lock);
  printf("{\"lost\":%ld,\"samples\":[", lost);
  for (size_t i = 0; i < sample_count; i++) {
    printf("%s[%.3f,", i ? "," : "", (double)samples[i].at_ns / 1e6);
    if (samples[i].took_ns == WARM_UP) printf("null]");
    else printf("%.6f]", (double)samples[i].took_ns / 1e6);
  }
  printf("],\"held_ms\":[");
  for (size_t i = 0; i < held_count; i++) printf("%s%.6f", i ? "," : "", (double)held[i].took_ns / 1e6);
  printf("]}\n");
  fflush(stdout);
}

/* ---- protocols ---- */

/* How many bytes of `text` the first whole message takes; 0: it is not all there yet. Each protocol's messages are the
 * same in both directions as far as that matters: HTTP's requests have no body, Redis's answers are one line. */
static size_t http_message(const char *text, size_t size) {
  const char *end = memmem(text, size, "\r\n\r\n", 4);
  if (!end) return 0;
  size_t head = (size_t)(end - text) + 4, body = 0;
  const char *line = text;
  while (line < end) {
    if (strncasecmp(line, "content-length:", 15) == 0) body = (size_t)atol(line + 15);
    line = (const char *)memmem(line, (size_t)(end - line) + 2, "\r\n", 2) + 2;
  }
  return size >= head + body ? head + body : 0;
}
static size_t ending_with(const char *text, size_t size, const char *ending) {
  const char *end = memmem(text, size, ending, strlen(ending));
  return end ? (size_t)(end - text) + strlen(ending) : 0;
}
static size_t line_message(const char *text, size_t size) { return ending_with(text, size, "\n"); }
static size_t memcached_answer(const char *text, size_t size) { return ending_with(text, size, "END\r\n"); }
/* A command as redis-benchmark sends it: *N, then N times a length and so many bytes. */
static size_t redis_command(const char *text, size_t size) {
  size_t at = ending_with(text, size, "\r\n");
  for (long left = at ? atol(text + 1) : 0; left > 0; left--) {
    size_t line = ending_with(text + at, size - at, "\r\n");
    if (!line) return 0;
    at += line + (size_t)atol(text + at + 1) + 2;
    if (at > size) return 0;
  }
  return at;
}

struct protocol {
  const char *name, *request;
  size_t (*answer)(const char *text, size_t size);
};
static const struct protocol protocols[] = {
    {"redis", "*1\r\n$4\r\nPING\r\n", line_message},
    {"http", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", http_message},
    {"memcached", "get key\r\n", memcached_answer},
    {"echo", "0123456789abcdef0123456789abcdef\n", line_message},
};

static bool send_all(int fd, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= (size_t)sent;
  }
  return true;
}

struct inbox {
  char bytes[1 << 17];
  size_t size;
};
/* Receives until a whole message is there; its length, or 0 when none comes any more. */
static size_t message(int fd, struct inbox *in, size_t (*length_of)(const char *, size_t)) {
  for (;;) {
    size_t length = in->size ? length_of(in->bytes, in->size) : 0;
    if (length > 0) return length;
    ssize_t got = recv(fd, in->bytes + in->size, sizeof in->bytes - 1 - in->size, 0);
    if (got <= 0) return 0;
    in->size += (size_t)got;
    in->bytes[in->size] = 0;
  }
}
static void consume(struct inbox *in, size_t length) {
  in->size -= length;
  memmove(in->bytes, in->bytes + length, in->size + 1);
}

/* ---- the client ---- */

static const struct protocol *protocol;
static long connections, requests, warm_up, port, lost;
static int64_t period_ns, think_ns;
static pthread_barrier_t warm;

/* `due_ns`: when it was to be asked; a timer that came late is part of how long it took. */
static bool ask(int fd, struct inbox *in, bool counts, int64_t due_ns) {
  errno = 0;
  if (!send_all(fd, protocol->request, strlen(protocol->request))) return false;
  size_t length = message(fd, in, protocol->answer);
  int64_t took_ns = now_ns() - due_ns;
  if (length == 0) return false;
  consume(in, length);
  note(&samples, &sample_count, counts ? took_ns : WARM_UP);
  return true;
}

static void *converse(void *given) {
  long which = (long)given, done = 0;
  struct inbox *in = calloc(1, sizeof *in);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  struct timeval patience = {10, 0};
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  errno = 0;
  bool well = in && connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
  for (long i = 0; well && i < warm_up; i++) well = ask(fd, in, false, now_ns());
  pthread_barrier_wait(&warm);
  sleep_until(now_ns() + period_ns * which / connections);
  for (int64_t due_ns = now_ns(); well && done < requests; done += well) {
    well = ask(fd, in, true, due_ns);
    due_ns = now_ns();
    if (think_ns == 0) continue;
    sleep_until(due_ns + think_ns);
    note(&held, &held_count, now_ns() - due_ns);
    due_ns += think_ns;
  }
  if (!well) fprintf(stderr, "load: a request was not answered: %s\n", errno ? strerror(errno) : "the connection ended");
  __atomic_fetch_add(&lost, requests - done, __ATOMIC_RELAXED);
  close(fd);
  free(in);
  return NULL;
}

static void client(void) {
  for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
    if (strcmp(protocols[i].name, option("proto", "http")) == 0) protocol = &protocols[i];
  connections = number("connections", 1);
  requests = number("requests", 10);
  warm_up = number("warm_up", 3);
  port = number("port", 0);
  period_ns = number("period_us", 0) * 1000;
  think_ns = number("think_us", 0) * 1000;
  if (!protocol || connections < 1 || port == 0) {
    errno = EINVAL;
    fail("say a protocol, a port and at least one connection");
  }
  pthread_t *threads = calloc((size_t)connections, sizeof *threads);
  pthread_barrier_init(&warm, NULL, (unsigned)connections);
  for (long i = 0; i < connections; i++)
    if (pthread_create(&threads[i], NULL, converse, (void *)i)) fail("pthread_create");
  for (long i = 0; i < connections; i++) pthread_join(threads[i], NULL);
  print_results(lost);
}

/* ---- the server ---- */

static int64_t hold_ns;

static size_t either_request(const char *text, size_t size) {
  return text[0] == '*' ? redis_command(text, size) : http_message(text, size);
}

static const char http[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
static const char http_last[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n";

static void *serve(void *given) {
  int fd = (int)(long)given, one = 1;
  struct inbox *in = calloc(1, sizeof *in);
  int64_t answered_ns = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  for (size_t length; in && (length = message(fd, in, either_request)) > 0;) {
    int64_t asked_ns = now_ns();
    bool redis = in->bytes[0] == '*', last = !redis && memmem(in->bytes, length, "Connection: close", 17);
    const char *answer = redis ? memmem(in->bytes, length, "PING", 4) ? "+PONG\r\n" : "*0\r\n" : last ? http_last : http;
    note(&samples, &sample_count, answered_ns ? asked_ns - answered_ns : WARM_UP);
    consume(in, length);
    if (hold_ns > 0) sleep_until(asked_ns + hold_ns);
    /* A request that did not wait for this answer says nothing. Else it begins when the answer was due. */
    answered_ns = in->size > 0 ? 0 : hold_ns > 0 ? asked_ns + hold_ns : now_ns();
    note(&held, &held_count, now_ns() - asked_ns);
    if (!send_all(fd, answer, strlen(answer)) || last) break;
  }
  close(fd);
  free(in);
  return NULL;
}

static void *accept_all(void *given) {
  for (int listener = (int)(long)given, fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, (void *)(long)fd)) fail("pthread_create");
    pthread_detach(thread);
  }
  return NULL;
}

static void server(void) {
  struct sockaddr_in at = {.sin_family = AF_INET};
  socklen_t length = sizeof at;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  pthread_t acceptor;
  char ignored[64];
  hold_ns = number("hold_us", 0) * 1000;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&at, length) || listen(listener, 128)) fail("listen");
  getsockname(listener, (struct sockaddr *)&at, &length);
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  if (pthread_create(&acceptor, NULL, accept_all, (void *)(long)listener)) fail("pthread_create");
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) continue;
  print_results(0);
  _exit(0); /* connections may still be open */
}

int main(int count, char **values) {
  arg_count = count;
  arg_values = values;
  prctl(PR_SET_TIMERSLACK, 1UL); /* threads inherit it: sleeps end when they should */
  if (count > 1 && strcmp(values[1], "client") == 0) client();
  else if (count > 1 && strcmp(values[1], "server") == 0) server();
  else {
    fprintf(stderr, "usage: load client|server [key=value ...]\n");
    return 2;
  }
  return 0;
}
