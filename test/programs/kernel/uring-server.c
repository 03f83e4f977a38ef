// A server that uses io_uring from accept on, through liburing, which makes its system calls itself.
#include <liburing.h>

#include "serving.h"

static struct io_uring ring;

static int submitted(void) {
  struct io_uring_cqe *done;
  if (io_uring_submit_and_wait(&ring, 1) < 0 || io_uring_wait_cqe(&ring, &done) < 0) fail("io_uring");
  const int result = done->res;
  io_uring_cqe_seen(&ring, done);
  return result;
}

int main(int count, char **values) {
  static char bytes[65536];
  long connections;
  const int listener = listener_of(count, values, &connections);
  if (io_uring_queue_init(8, &ring, 0) < 0) fail("io_uring");
  while (connections-- > 0) {
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);
    io_uring_prep_accept(io_uring_get_sqe(&ring), listener, (struct sockaddr *)&from, &length, SOCK_CLOEXEC);
    const int fd = submitted();
    if (fd < 0) fail("accept");
    report(fd, &from);
    for (;;) {
      io_uring_prep_recv(io_uring_get_sqe(&ring), fd, bytes, sizeof(bytes), 0);
      const int n = submitted();
      if (n <= 0) break;
      for (int at = 0, sent = 0; at < n && sent >= 0; at += sent) {
        io_uring_prep_send(io_uring_get_sqe(&ring), fd, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        sent = submitted();
      }
    }
    io_uring_prep_close(io_uring_get_sqe(&ring), fd);
    submitted();
  }
  return 0;
}
