// What the kernel's side costs and bears, measured by a program that knows of it only the rows it may read:
//
//   kernel pingpong tcp|udp ROUNDS        64 bytes there and back between two threads: {"trip_ns":…}
//   kernel connections RATE SECONDS       as many connections a second, each end's row looked up when it is there:
//                                         {"connections":…,"per_second":…,"sockets":…,"right":…}
//
// Both stay on loopback; pin the process to a processor from outside.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <string>
#include <thread>

#include "../programs/kernel/rows.h"

namespace {

using mishap::i64;

constexpr size_t kBytes = 64;
constexpr int kWarmUp = 2000;
constexpr int kOpenAtOnce = 256;
constexpr long kWaiting = kOpenAtOnce / 2;  // to be accepted: fewer than the listener's queue holds, and all still open

void must(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  exit(1);
}

i64 now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return i64{t.tv_sec} * 1000000000 + t.tv_nsec;
}

sockaddr_in loopback() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
const sockaddr* generic(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

sockaddr_in bound(int fd) {
  sockaddr_in address = loopback();
  socklen_t length = sizeof(address);
  must(bind(fd, generic(address), length) == 0, "bind");
  must(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0, "getsockname");
  return address;
}

// ---- ping-pong ---------------------------------------------------------------------------------------------------------

struct Ends {
  int near, far;
};

Ends tcp_ends() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), near = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  const sockaddr_in address = bound(listener);
  must(listen(listener, 1) == 0 && connect(near, generic(address), sizeof(address)) == 0, "connect");
  const int far = accept(listener, nullptr, nullptr);
  must(far >= 0, "accept");
  close(listener);
  for (const int fd : {near, far}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return {near, far};
}

Ends udp_ends() {
  const Ends ends = {socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0)};
  const sockaddr_in near = bound(ends.near), far = bound(ends.far);
  must(connect(ends.near, generic(far), sizeof(far)) == 0 && connect(ends.far, generic(near), sizeof(near)) == 0, "connect");
  return ends;
}

void send_on(int fd) {
  static const char bytes[kBytes] = {};
  must(send(fd, bytes, kBytes, 0) == kBytes, "send");
}
void receive_on(int fd) {
  char bytes[kBytes];
  must(recv(fd, bytes, kBytes, MSG_WAITALL) == kBytes, "recv");
}

int pingpong(const Ends& ends, int rounds) {
  std::thread other([&] {
    for (int i = 0; i < kWarmUp + rounds; i++) receive_on(ends.far), send_on(ends.far);
  });
  i64 start = 0;
  for (int i = 0; i < kWarmUp + rounds; i++) {
    if (i == kWarmUp) start = now_ns();
    send_on(ends.near);
    receive_on(ends.near);
  }
  const i64 took = now_ns() - start;
  other.join();
  printf("{\"trip_ns\":%.1f}\n", static_cast<double>(took) / rounds);
  return 0;
}

// ---- connections -------------------------------------------------------------------------------------------------------

struct Looked {
  Rows rows = asked_for_rows();
  long sockets = 0, right = 0;
  const int tid = static_cast<int>(syscall(SYS_gettid));

  void at(int fd) {
    mishap::KernelSocket row;
    sockets++;
    right += row_of(rows, fd, &row) && row.owner.pid == getpid() && row.owner.tid == tid;
  }
};

// Ended by a RST, so that no port stays behind in TIME_WAIT.
void end(int fd) {
  const linger at_once = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd);
}

void wait_until(i64 at_ns) {
  const timespec at = {at_ns / 1000000000, at_ns % 1000000000};
  if (at_ns > now_ns()) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
}

int connections(long rate, long seconds) {
  const long count = rate * seconds;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = bound(listener);
  must(listen(listener, kOpenAtOnce) == 0, "listen");
  std::atomic<long> accepted = 0;
  long accepted_right = 0;
  std::thread server([&] {
    Looked looked;
    for (long i = 0; i < count; i++) {
      sockaddr_in peer;
      socklen_t length = sizeof(peer);
      const int fd = accept(listener, reinterpret_cast<sockaddr*>(&peer), &length);
      must(fd >= 0, "accept");
      looked.at(fd);
      end(fd);
      accepted++;
    }
    accepted_right = looked.right;
  });
  Looked looked;
  static int open[kOpenAtOnce];
  const i64 start = now_ns();
  for (long i = 0; i < count; i++) {
    wait_until(start + i * 1000000000 / rate);
    while (i - accepted >= kWaiting) wait_until(now_ns() + 50000);
    int& fd = open[i % kOpenAtOnce];
    if (fd) end(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    must(fd > 0, "socket");
    looked.at(fd);
    // The other end may have ended it already.
    must(connect(fd, generic(address), sizeof(address)) == 0 || errno == ECONNRESET, "connect");
  }
  server.join();
  const i64 took = now_ns() - start;
  for (const int fd : open)
    if (fd) end(fd);
  close(listener);
  printf("{\"connections\":%ld,\"per_second\":%.0f,\"sockets\":%ld,\"right\":%ld}\n", count, static_cast<double>(count) * 1e9 / static_cast<double>(took),
         looked.sockets + accepted, looked.right + accepted_right);
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const std::string mode = count == 4 ? values[1] : "", what = count == 4 ? values[2] : "";
  if (mode == "pingpong" && (what == "tcp" || what == "udp")) return pingpong(what == "tcp" ? tcp_ends() : udp_ends(), atoi(values[3]));
  if (mode == "connections") return connections(atol(values[2]), atol(values[3]));
  return fputs("usage: kernel pingpong tcp|udp ROUNDS, or kernel connections RATE SECONDS\n", stderr), 2;
}
