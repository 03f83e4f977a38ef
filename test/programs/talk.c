// A program that does on sockets what its arguments say, step by step, and prints for each step what the call returned,
// when it began (milliseconds since the first step) and how long it took.
//
//   talk a.tcp:8080 a.send:hello a.recv:100
//   {"step":"a.send:hello","result":5,"errno":"","at":1.207,"ms":0.031,"data":""}
//
// A step is SLOT.VERB[:ARGUMENT...]; a slot is a letter that stands for a descriptor. PORT is a number, or @SLOT for the
// port that slot is bound to. TEXT is sent as it is; *N stands for N bytes. Verbs that begin with raw go past libc, as an
// unfaulted peer within reach of the test.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Past libc altogether: syscall(2) is libc's too. */
static long close_unseen(long fd) {
#if defined(__x86_64__)
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_close), "D"(fd) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long number __asm__("x8") = SYS_close;
  register long result __asm__("x0") = fd;
  __asm__ volatile("svc 0" : "+r"(result) : "r"(number) : "memory");
  return result;
#else
#error "how to make a system call on this processor is not known here"
#endif
}

static int fds[128];
static char data[1 << 20];  // what the last step received
static size_t data_length;
static volatile sig_atomic_t alarms;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void on_alarm(int number) {
  (void)number;
  alarms++;
  ssize_t n = write(fds['a'], "", 0);  // a call from a handler, on the very socket that may be waiting
  (void)n;
}

static int port_of(const char* text) {
  if (text[0] != '@') return atoi(text);
  struct sockaddr_in at;
  socklen_t length = sizeof(at);
  syscall(SYS_getsockname, fds[(int)text[1]], &at, &length);
  return ntohs(at.sin_port);
}

static struct sockaddr_in address(const char* host, const char* port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(port ? port_of(port) : 0))};
  inet_pton(AF_INET, host ? host : "127.0.0.1", &a.sin_addr);
  return a;
}

static struct sockaddr_un unix_address(const char* path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
  return a;
}

// The text of a step, or N bytes for *N.
static const char* text_of(const char* text, size_t* size) {
  static char many[1 << 20];
  *size = strlen(text);
  if (text[0] != '*') return text;
  *size = (size_t)atol(text + 1);
  for (size_t i = 0; i < *size && i < sizeof(many); i++) many[i] = (char)('A' + i % 26);
  return many;
}

static struct sockaddr_in last_peer;

static long send_by(const char* call, int fd, const void* bytes, size_t size) {
  struct iovec parts[2] = {{(void*)bytes, size / 2}, {(char*)bytes + size / 2, size - size / 2}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  if (!strcmp(call, "send")) return send(fd, bytes, size, MSG_NOSIGNAL);
  if (!strcmp(call, "sendto")) {
    bool addressed = last_peer.sin_port != 0;
    return sendto(fd, bytes, size, MSG_NOSIGNAL, addressed ? (struct sockaddr*)&last_peer : NULL, addressed ? sizeof(last_peer) : 0);
  }
  if (!strcmp(call, "write")) return write(fd, bytes, size);
  if (!strcmp(call, "writev")) return writev(fd, parts, 2);
  if (!strcmp(call, "sendmsg")) return sendmsg(fd, &message, MSG_NOSIGNAL);
  if (!strcmp(call, "sendmmsg")) {
    struct mmsghdr one = {.msg_hdr = message};
    int n = sendmmsg(fd, &one, 1, MSG_NOSIGNAL);
    return n < 0 ? n : n == 0 ? 0 : (long)one.msg_len;
  }
  errno = EINVAL;
  return -2;
}

static long receive_by(const char* call, int fd, void* bytes, size_t size, int flags) {
  struct sockaddr_in from;
  socklen_t length = sizeof(from);
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &part, .msg_iovlen = 1};
  if (!strcmp(call, "recv")) return recv(fd, bytes, size, flags);
  if (!strcmp(call, "recvfrom")) {
    ssize_t n = recvfrom(fd, bytes, size, flags, (struct sockaddr*)&from, &length);
    if (n >= 0 && length == sizeof(from)) last_peer = from;
    return n;
  }
  if (!strcmp(call, "read")) return read(fd, bytes, size);
  if (!strcmp(call, "readv")) return readv(fd, &part, 1);
  if (!strcmp(call, "recvmsg")) {
    ssize_t n = recvmsg(fd, &message, flags);
    if (n >= 0 && message.msg_namelen == sizeof(from)) last_peer = from;
    return n;
  }
  if (!strcmp(call, "recvmmsg")) {
    struct mmsghdr one = {.msg_hdr = message};
    int n = recvmmsg(fd, &one, 1, flags, NULL);
    return n < 0 ? n : n == 0 ? 0 : (long)one.msg_len;
  }
  errno = EINVAL;
  return -2;
}

static int flags_of(const char* word) {
  if (!strcmp(word, "peek")) return MSG_PEEK;
  if (!strcmp(word, "waitall")) return MSG_WAITALL;
  if (!strcmp(word, "trunc")) return MSG_TRUNC;
  if (!strcmp(word, "dontwait")) return MSG_DONTWAIT;
  return 0;
}

static bool is_any(const char* verb, const char* const* names) {
  for (; *names; names++)
    if (!strcmp(verb, *names)) return true;
  return false;
}

// `many` datagrams from a to its raw peer; says how many calls succeeded and how many datagrams came.
static long flood(int fd, const char* call, long many, int peer) {
  long sent = 0, came = 0;
  char bytes[64];
  for (long i = 0; i < many;) {
    for (int k = 0; k < 64 && i < many; k++, i++) {
      int size = snprintf(bytes, sizeof(bytes), "%08ld", i);
      if (send_by(call, fd, bytes, (size_t)size) == size) sent++;
    }
    while (syscall(SYS_recvfrom, peer, bytes, sizeof(bytes), MSG_DONTWAIT, NULL, NULL) >= 0) came++;
  }
  data_length = (size_t)snprintf(data, sizeof(data), "%ld", came);
  return sent;
}

// The same towards us: raw datagrams in, received by `call` without blocking.
static long soak(int fd, const char* call, long many, int peer) {
  long came = 0;
  char bytes[64];
  for (long i = 0; i < many;) {
    for (int k = 0; k < 64 && i < many; k++, i++) {
      int size = snprintf(bytes, sizeof(bytes), "%08ld", i);
      if (syscall(SYS_sendto, peer, bytes, (long)size, 0, NULL, 0) != size) return -1;
    }
    while (receive_by(call, fd, bytes, sizeof(bytes), 0) >= 0) came++;
    if (errno != EAGAIN) return -1;
  }
  return came;
}

static int bound(long fd, const char* port) {
  struct sockaddr_in at = address(NULL, port);
  return fd < 0 ? -1 : (int)(syscall(SYS_bind, (int)fd, &at, sizeof(at)) < 0 ? -1 : fd);
}

static long collect(int fd, size_t wanted) {
  data_length = 0;
  while (data_length < wanted && data_length < sizeof(data)) {
    size_t room = wanted < sizeof(data) ? wanted - data_length : sizeof(data) - data_length;
    ssize_t n = recv(fd, data + data_length, room, 0);
    if (n < 0) return -1;
    if (n == 0) break;
    data_length += (size_t)n;
  }
  return (long)data_length;
}

static long pump(int fd, const char* call, long total, long chunk) {
  static char bytes[1 << 16];
  long sent = 0;
  while (sent < total) {
    long size = total - sent < chunk ? total - sent : chunk;
    long n = send_by(call, fd, bytes, (size_t)size);
    if (n <= 0) return sent ? sent : n;
    sent += n;
  }
  return sent;
}

static long step(char slot, const char* verb, char** arguments) {
  static const char* const kSends[] = {"send", "sendto", "sendmsg", "sendmmsg", "write", "writev", NULL};
  static const char* const kReceives[] = {"recv", "recvfrom", "recvmsg", "recvmmsg", "read", "readv", NULL};
  int* fd = &fds[(int)slot];
  const char* first = arguments[0] ? arguments[0] : "";
  const char* second = arguments[1] ? arguments[1] : "";
  data_length = 0;
  if (is_any(verb, kSends)) {
    size_t size;
    const char* bytes = text_of(first, &size);
    return send_by(verb, *fd, bytes, size);
  }
  if (is_any(verb, kReceives)) {
    size_t size = (size_t)atol(first);
    memset(data, '.', size);
    long n = receive_by(verb, *fd, data, size, flags_of(second));
    data_length = n < 0 ? 0 : (size_t)n;
    for (size_t i = data_length; !strcmp(second, "clean") && i < size; i++)  // behind the received span all must be as it was
      if (data[i] != '.') return -3;
    return n;
  }
  if (!strcmp(verb, "tcp")) {
    struct sockaddr_in to = address(arguments[1], first);
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(*fd, (struct sockaddr*)&to, sizeof(to));
  }
  if (!strcmp(verb, "unspec")) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    return connect(*fd, &none, sizeof(none));
  }
  if (!strcmp(verb, "fd")) return *fd = atoi(first);  // one that was inherited
  if (!strcmp(verb, "control")) {  // receives with much room for control messages; says how many of them came
    static char control[4096];
    struct iovec part = {data, 64};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = (size_t)atol(first)};
    ssize_t n = recvmsg(*fd, &message, 0);
    data_length = n < 0 ? 0 : (size_t)n;
    long many = 0;
    for (struct cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) many++;
    return n < 0 ? n : many;
  }
  if (!strcmp(verb, "wantttl")) {
    int on = 1;
    return setsockopt(*fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof(on));
  }
  if (!strcmp(verb, "dup2")) return dup2(fds[(int)first[0]], *fd);
  if (!strcmp(verb, "rawtcp")) {  // connected behind the hooks, which meet it at its first call
    struct sockaddr_in to = address(NULL, first);
    *fd = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    return syscall(SYS_connect, *fd, &to, sizeof(to));
  }
  if (!strcmp(verb, "again")) {
    struct sockaddr_in to = address(arguments[1], first);
    return connect(*fd, (struct sockaddr*)&to, sizeof(to));
  }
  if (!strcmp(verb, "udp")) {
    struct sockaddr_in to = address(arguments[1], first);
    *fd = bound(socket(AF_INET, SOCK_DGRAM, 0), NULL);
    return connect(*fd, (struct sockaddr*)&to, sizeof(to));
  }
  if (!strcmp(verb, "udpto")) {  // not connected: sendto names the peer
    *fd = bound(socket(AF_INET, SOCK_DGRAM, 0), NULL);
    last_peer = address(arguments[1], first);
    return *fd;
  }
  if (!strcmp(verb, "rawudp")) {
    int size = 4 << 20;
    *fd = bound(syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0), first);
    return syscall(SYS_setsockopt, *fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  }
  if (!strcmp(verb, "rawto")) {
    struct sockaddr_in to = address(NULL, first);
    return syscall(SYS_connect, *fd, &to, sizeof(to));
  }
  if (!strcmp(verb, "from")) return last_peer.sin_port && ntohs(last_peer.sin_port) == port_of(first);
  if (!strcmp(verb, "rawsend")) return syscall(SYS_sendto, *fd, first, strlen(first), 0, NULL, 0);
  if (!strcmp(verb, "rawawait")) {  // receives past libc once something is there, within so many milliseconds
    struct pollfd p = {*fd, POLLIN, 0};
    if (syscall(SYS_poll, &p, 1, *first ? atoi(first) : 5000) <= 0) return -1;
    verb = "rawrecv";
  }
  if (!strcmp(verb, "rawrecv")) {
    long n = syscall(SYS_recvfrom, *fd, data, sizeof(data), MSG_DONTWAIT, NULL, NULL);
    data_length = n < 0 ? 0 : (size_t)n;
    return n;
  }
  if (!strcmp(verb, "listen")) {
    *fd = bound(socket(AF_INET, SOCK_STREAM, 0), first);
    if (listen(*fd, 16)) return -1;
    char own[3] = {'@', slot, 0};
    return port_of(own);
  }
  if (!strcmp(verb, "rawdeaf")) {  // a listener whose queue is full: what connects to it gets no answer
    *fd = bound(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), NULL);
    if (syscall(SYS_listen, *fd, 0)) return -1;
    char own[3] = {'@', slot, 0};
    struct sockaddr_in to = address(NULL, own);
    for (int i = 0; i < 3; i++) syscall(SYS_connect, (int)syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), &to, sizeof(to));
    return 0;
  }
  if (!strcmp(verb, "accept")) return *fd = accept(fds[(int)first[0]], NULL, NULL);
  if (!strcmp(verb, "call")) {  // asks the echo server outside to connect to us
    int size = snprintf(data, sizeof(data), "call %d\n", port_of(first));
    return syscall(SYS_sendto, *fd, data, (long)size, 0, NULL, 0);
  }
  if (!strcmp(verb, "unix")) {
    struct sockaddr_un to = unix_address(first);
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(*fd, (struct sockaddr*)&to, sizeof(to));
  }
  if (!strcmp(verb, "unixlisten")) {
    struct sockaddr_un at = unix_address(first);
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return bind(*fd, (struct sockaddr*)&at, sizeof(at)) || listen(*fd, 4);
  }
  if (!strcmp(verb, "named")) {  // looks a name up and connects to the first address
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int status = getaddrinfo(first, NULL, &hints, &list);
    if (status) {
      data_length = (size_t)snprintf(data, sizeof(data), "%s", gai_strerror(status));
      return status;
    }
    struct sockaddr_in to = *(struct sockaddr_in*)list->ai_addr;
    freeaddrinfo(list);
    if (!*second) return 0;
    to.sin_port = htons((uint16_t)port_of(second));
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(*fd, (struct sockaddr*)&to, sizeof(to));
  }
  if (!strcmp(verb, "dup")) return *fd = dup(fds[(int)first[0]]);
  if (!strcmp(verb, "close")) return close(*fd);
  if (!strcmp(verb, "rawclose")) return close_unseen(*fd);
  if (!strcmp(verb, "rawopen")) return *fd = (int)syscall(SYS_openat, AT_FDCWD, first, O_RDWR | O_CREAT, 0600);
  if (!strcmp(verb, "rawsocket")) return *fd = (int)syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
  if (!strcmp(verb, "closeall")) return closefrom(3), 0;
  if (!strcmp(verb, "shut")) return shutdown(*fd, SHUT_WR);
  if (!strcmp(verb, "nonblock")) return fcntl(*fd, F_SETFL, O_NONBLOCK);
  if (!strcmp(verb, "block")) return fcntl(*fd, F_SETFL, 0);
  if (!strcmp(verb, "sndbuf")) {
    int size = atoi(first);
    return setsockopt(*fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
  if (!strcmp(verb, "fill")) {  // until the kernel takes no more
    long total = 0;
    for (long n; (n = syscall(SYS_sendto, *fd, data, 4096L, MSG_DONTWAIT, NULL, 0)) > 0;) total += n;
    return total;
  }
  if (!strcmp(verb, "flood")) return flood(*fd, first, atol(second), fds[(int)arguments[2][0]]);
  if (!strcmp(verb, "soak")) return soak(*fd, first, atol(second), fds[(int)arguments[2][0]]);
  if (!strcmp(verb, "collect")) return collect(*fd, (size_t)atol(first));
  if (!strcmp(verb, "pump")) return pump(*fd, first, atol(second), atol(arguments[2]));
  if (!strcmp(verb, "sleep")) return usleep((useconds_t)(1000 * atoi(first)));
  if (!strcmp(verb, "alarm")) {  // every so many milliseconds, without SA_RESTART
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 1000 * atoi(first)}, {0, 1000 * atoi(first)}};
    return setitimer(ITIMER_REAL, &every, NULL);
  }
  if (!strcmp(verb, "alarms")) return alarms;
  if (!strcmp(verb, "fork")) {  // the child goes on; the parent waits for it and leaves
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) return 0;
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status));
  }
  if (!strcmp(verb, "_exit")) {
    fflush(stdout);
    _exit(atoi(first));
  }
  errno = ENOSYS;
  return -2;
}

static void print_data(void) {
  for (size_t i = 0; i < data_length && i < 512; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c < ' ' || c > '~' || c == '"' || c == '\\') printf("\\u%04x", c);
    else putchar(c);
  }
}

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  alarm(30);  // a step that never ends must not outlive its test
  double began = now_ms();
  for (int i = 1; i < argc; i++) {
    char text[512], *arguments[8] = {NULL}, *rest = text;
    snprintf(text, sizeof(text), "%s", argv[i]);
    char slot = text[0];
    rest = text + 2;
    char* verb = strsep(&rest, ":");
    for (int n = 0; n < 7 && rest; n++) arguments[n] = strsep(&rest, ":");
    errno = 0;
    double start = now_ms();
    long result = step(slot, verb, arguments);
    int error = result < 0 ? errno : 0;
    double ms = now_ms() - start;
    printf("{\"step\":\"%s\",\"result\":%ld,\"errno\":\"%s\",\"at\":%.3f,\"ms\":%.3f,\"data\":\"", argv[i], result,
           error ? strerrorname_np(error) : "", start - began, ms);
    print_data();
    printf("\"}\n");
    fflush(stdout);
  }
  return 0;
}
