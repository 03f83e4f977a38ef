// A client that uses io_uring for everything a socket does, through liburing, which makes its system calls itself.
#include <liburing.h>

#include "exchange.h"

static struct io_uring ring;

static long submitted(void) {
  struct io_uring_cqe *done;
  int result = io_uring_submit_and_wait(&ring, 1);
  if (result >= 0) result = io_uring_wait_cqe(&ring, &done);
  if (result < 0) return result;
  result = done->res;
  io_uring_cqe_seen(&ring, done);
  return result;
}

static long uring_open(const struct sockaddr_in *peer) {
  io_uring_prep_socket(io_uring_get_sqe(&ring), AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, 0);
  const long fd = submitted();
  if (fd < 0) return fd;
  io_uring_prep_connect(io_uring_get_sqe(&ring), (int)fd, (const struct sockaddr *)peer, sizeof(*peer));
  const long result = submitted();
  return result < 0 ? result : fd;
}
static long uring_send(int fd, const void *bytes, size_t count) {
  io_uring_prep_send(io_uring_get_sqe(&ring), fd, bytes, count, MSG_NOSIGNAL);
  return submitted();
}
static long uring_receive(int fd, void *bytes, size_t count) {
  io_uring_prep_recv(io_uring_get_sqe(&ring), fd, bytes, count, 0);
  return submitted();
}
static void uring_close(int fd) {
  io_uring_prep_close(io_uring_get_sqe(&ring), fd);
  submitted();
}

int main(int count, char **values) {
  const struct task task = task_of(count, values);
  const int result = io_uring_queue_init(8, &ring, 0);
  if (result < 0) fail("io_uring", result);
  struct way way = {"io_uring", uring_open, uring_send, uring_receive, uring_close, 0, 0, 0}, *ways[] = {&way};
  exchange(ways, 1, &task);
  report(&way);
  return 0;
}
