// A program that moves bytes by every call there is, and prints how many its calls said they moved:
//
//   bytes tcp PORT [calls]     sends to 127.0.0.1:PORT, ends its side, receives until the other's end or an error
//   bytes udp PORT             sends datagrams, receives until nothing came for a while
//   {"up":31415,"down":100000,"sends":"","receives":""}     and the errno that ended each half
//
// `calls` leaves out stdio, which cannot say how much of a failed write went.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kRounds = 4, kLargest = 4000 };

static char text[2 * kLargest];
static int file, ends[2];

static ssize_t by_sendfile(int fd, size_t size) {
  off_t from = 0;
  return sendfile(fd, file, &from, size);
}
static ssize_t by_splice(int fd, size_t size) {
  static char rest[2 * kLargest];
  if (write(ends[1], text, size) < 0) return -1;
  ssize_t n = splice(ends[0], NULL, fd, NULL, size, 0);
  int error = errno;
  while (read(ends[0], rest, sizeof(rest)) > 0) continue;  // what did not go
  errno = error;
  return n;
}
static ssize_t by_sendmmsg(int fd, size_t size) {
  struct iovec halves[2] = {{text, size / 2}, {text + size / 2, size - size / 2}};
  struct mmsghdr two[2] = {{.msg_hdr = {.msg_iov = halves, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = halves + 1, .msg_iovlen = 1}}};
  int n = sendmmsg(fd, two, 2, 0);
  return n < 0 ? n : (ssize_t)two[0].msg_len + (n > 1 ? (ssize_t)two[1].msg_len : 0);
}
static ssize_t by_stream(int fd, size_t size) {
  FILE* stream = fdopen(dup(fd), "w");
  size_t n = fwrite(text, 1, size, stream);
  return fclose(stream) == 0 ? (ssize_t)n : -1;
}

enum { kSends = 8, kPrints = 10 };
static ssize_t send_by(int way, int fd, size_t size) {
  struct iovec halves[2] = {{text, size / 2}, {text + size / 2, size - size / 2}};
  struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2};
  switch (way) {
    case 0: return send(fd, text, size, 0);
    case 1: return sendto(fd, text, size, MSG_NOSIGNAL, NULL, 0);
    case 2: return write(fd, text, size);
    case 3: return writev(fd, halves, 2);
    case 4: return sendmsg(fd, &message, 0);
    case 5: return by_sendmmsg(fd, size);
    case 6: return by_sendfile(fd, size);
    case 7: return by_splice(fd, size);
    case 8: return dprintf(fd, "%.*s", (int)size, text);
    default: return by_stream(fd, size);
  }
}

enum { kReceives = 8 };
static ssize_t receive_by(int way, int fd, size_t size) {
  static char into[2 * kLargest];
  struct iovec halves[2] = {{into, size / 2}, {into + size / 2, size - size / 2}};
  struct msghdr message = {.msg_iov = halves, .msg_iovlen = 2};
  struct mmsghdr one = {.msg_hdr = message};
  switch (way) {
    case 0: return recv(fd, into, size, 0);
    case 1: return recvfrom(fd, into, size, 0, NULL, NULL);
    case 2: return read(fd, into, size);
    case 3: return readv(fd, halves, 2);
    case 4: return recvmsg(fd, &message, 0);
    case 5: return recvmmsg(fd, &one, 1, 0, NULL) < 0 ? -1 : (ssize_t)one.msg_len;
    case 6: recv(fd, into, size / 2, MSG_PEEK); return recv(fd, into, size, 0);
    default: return recv(fd, into, size, MSG_WAITALL);
  }
}

static const char* name_of(int error) { return error ? strerrorname_np(error) : ""; }

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const bool stream = strcmp(argv[1], "tcp") == 0;
  const int ways = argc > 3 || !stream ? kSends : kPrints;
  signal(SIGPIPE, SIG_IGN);
  alarm(30);
  for (size_t i = 0; i < sizeof(text); i++) text[i] = (char)('a' + i % 26);
  file = memfd_create("text", 0);
  if (write(file, text, sizeof(text)) < 0 || pipe2(ends, O_NONBLOCK) != 0) return 1;

  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, stream ? SOCK_STREAM : SOCK_DGRAM, 0), sends = 0, receives = 0;
  struct timeval patience = {0, 400000};
  if (!stream) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(fd, (struct sockaddr*)&to, sizeof(to)) != 0) return 1;
  long up = 0, down = 0;
  for (int i = 0; i < kRounds * ways && !sends; i++) {
    ssize_t n = send_by(i % ways, fd, (size_t)(1 + i * 977 % (stream ? kLargest : 1400)));
    if (n < 0) sends = errno;
    else up += n;
  }
  if (stream && !sends) shutdown(fd, SHUT_WR);
  for (int i = 0; !receives; i++) {
    ssize_t n = receive_by(i % kReceives, fd, (size_t)(stream ? 1 + i * 811 % kLargest : kLargest));
    if (n < 0) receives = errno;
    else if (n == 0 && stream) break;
    else down += n;
  }
  printf("{\"up\":%ld,\"down\":%ld,\"sends\":\"%s\",\"receives\":\"%s\"}\n", up, down, name_of(sends), name_of(receives));
  return 0;
}
