// Both ends of the readiness program's connections, what they measure and judge, and its ways of waiting.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

// ---- measuring and judging --------------------------------------------------------------------------------------------

constexpr double kEarlyMs = 0.1, kLateMs = 60;
constexpr unsigned kCaseSeconds = 60;
double down_ms, up_ms;
bool serving;
const char* case_name = "";
pid_t case_pid;
std::string measured;

double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

double ms_of(const timeval& t) { return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3; }

void pause_ms(double ms) {
  timespec t = {static_cast<time_t>(ms / 1e3), static_cast<long>(ms * 1e6) % 1000000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

void conclude(bool ok, const char* why) {
  std::string line = std::string("{\"case\":\"") + case_name + "\",\"ok\":" + (ok ? "true" : "false") + ",\"why\":\"" + why +
                     "\",\"measured\":{" + measured + "}}\n";
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(2);
}

// A failed check ends the case; in a child of the case, the child, which its parent then notes.
[[noreturn]] void fail(const char* format, ...) {
  char why[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why, sizeof(why), format, arguments);
  va_end(arguments);
  if (getpid() == case_pid) conclude(false, why);
  else fprintf(stderr, "%s, in a child: %s\n", case_name, why);
  _exit(1);
}

#define CHECK(condition, ...) \
  do {                        \
    if (!(condition)) fail(__VA_ARGS__); \
  } while (false)

long must(long result, const char* what) {
  CHECK(result >= 0, "%s: %s", what, strerrorname_np(errno));
  return result;
}

void note(const std::string& name, double value) {
  static std::mutex busy;
  std::lock_guard lock(busy);
  char text[80];
  snprintf(text, sizeof(text), "%s\"%s\":%.2f", measured.empty() ? "" : ",", name.c_str(), value);
  measured += text;
}

// Holds a time that something took to a delay.
void on_time(const std::string& what, double took_ms, double delay_ms) {
  if (getpid() == case_pid) note(what, took_ms);
  CHECK(took_ms >= delay_ms - kEarlyMs, "%s was early: %.2f ms of %.0f", what.c_str(), took_ms, delay_ms);
  CHECK(took_ms <= delay_ms + kLateMs, "%s was late: %.2f ms of %.0f", what.c_str(), took_ms, delay_ms);
}

// Acts in a thread of its own after some time, or at once, and knows when that began.
class Later {
 public:
  Later(double ms, std::function<void()> act) {
    auto go = [this, ms, act = std::move(act)] {
      pause_ms(ms);
      at_ = now_ms();
      act();
    };
    if (ms > 0) thread_ = std::thread(go);
    else go();
  }
  ~Later() {
    if (thread_.joinable()) thread_.join();
  }
  Later(const Later&) = delete;
  double at() {
    if (thread_.joinable()) thread_.join();
    return at_;
  }

 private:
  double at_ = 0;
  std::thread thread_;
};

void reap(pid_t pid, int wanted_status = 0) {
  int status = 0;
  must(waitpid(pid, &status, 0), "waitpid");
  CHECK(status == wanted_status, "a child ended with status %#x", status);
}

pid_t forked() { return static_cast<pid_t>(must(fork(), "fork")); }

// ---- both ends --------------------------------------------------------------------------------------------------------

struct Pair {
  int near, far;
};

sockaddr_in loopback(int port) {
  sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<uint16_t>(port));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

sockaddr_in name_of(int fd) {
  sockaddr_in a = {};
  socklen_t length = sizeof(a);
  must(syscall(SYS_getsockname, fd, &a, &length), "getsockname");
  return a;
}

void set_option(int fd, int level, int option, int value) {
  must(setsockopt(fd, level, option, &value, sizeof(value)), "setsockopt");
}

int option_of(int fd, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  must(getsockopt(fd, SOL_SOCKET, option, &value, &length), "getsockopt");
  return value;
}

int listening() {
  int fd = static_cast<int>(must(socket(AF_INET, SOCK_STREAM, 0), "socket"));
  sockaddr_in any = loopback(0);
  must(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof(any)), "bind");
  must(listen(fd, 64), "listen");
  return fd;
}

// A peer outside of the run connects to a listener.
int outsider(int listener) {
  sockaddr_in to = name_of(listener);
  int fd = static_cast<int>(must(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), "socket"));
  must(syscall(SYS_connect, fd, &to, sizeof(to)), "connect");
  return fd;
}

Pair tcp() {
  static int listener = listening();
  Pair p;
  if (serving) {
    p.far = outsider(listener);
    p.near = static_cast<int>(must(accept(listener, nullptr, nullptr), "accept"));
  } else {
    sockaddr_in to = name_of(listener);
    p.near = static_cast<int>(must(socket(AF_INET, SOCK_STREAM, 0), "socket"));
    must(connect(p.near, reinterpret_cast<sockaddr*>(&to), sizeof(to)), "connect");
    p.far = static_cast<int>(must(accept(listener, nullptr, nullptr), "accept"));
  }
  for (int fd : {p.near, p.far}) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  return p;
}

Pair udp() {
  Pair p;
  p.far = static_cast<int>(must(syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0), "socket"));
  sockaddr_in any = loopback(0);
  must(syscall(SYS_bind, p.far, &any, sizeof(any)), "bind");
  sockaddr_in far = name_of(p.far);
  p.near = static_cast<int>(must(socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  must(connect(p.near, reinterpret_cast<sockaddr*>(&far), sizeof(far)), "connect");
  sockaddr_in near = name_of(p.near);
  must(syscall(SYS_connect, p.far, &near, sizeof(near)), "connect");
  return p;
}

// The far end.
void put(int fd, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  for (const char* end = from + size; from < end;) from += must(syscall(SYS_write, fd, from, end - from), "the peer's write");
}
void put(int fd, const std::string& text) { put(fd, text.data(), text.size()); }
std::string get(int fd, size_t size) {
  std::string got(size, 0);
  size_t done = 0;
  while (done < size) {
    long n = must(syscall(SYS_read, fd, got.data() + done, size - done), "the peer's read");
    CHECK(n > 0, "the peer met the end after %zu of %zu bytes", done, size);
    done += static_cast<size_t>(n);
  }
  return got;
}
void reset_by_far(const Pair& p) {
  linger hard = {1, 0};
  must(syscall(SYS_setsockopt, p.far, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), "setsockopt");
  must(close(p.far), "close");
}

// The near end.
void set_nonblocking(int fd) { must(fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl"); }
void give(int fd, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  for (const char* end = from + size; from < end;) from += must(send(fd, from, static_cast<size_t>(end - from), 0), "send");
}
void give(int fd, const std::string& text) { give(fd, text.data(), text.size()); }
void takes(int fd, const std::string& wanted) {
  std::string got(wanted.size() + 1, 0);
  long n = must(recv(fd, got.data(), got.size(), MSG_DONTWAIT), ("recv of " + wanted).c_str());
  got.resize(static_cast<size_t>(n));
  CHECK(got == wanted, "received %s instead of %s", got.c_str(), wanted.c_str());
}
void takes_nothing(int fd, const char* when) {
  char byte;
  long n = recv(fd, &byte, 1, MSG_DONTWAIT);
  CHECK(n == -1 && errno == EAGAIN, "recv %s gave %ld (%s)", when, n, n < 0 ? strerrorname_np(errno) : "");
}

// A message that says when it was written.
void put_stamp(int fd) {
  double at = now_ms();
  put(fd, &at, sizeof(at));
}
double stamp_in(const std::string& bytes) {
  double at;
  memcpy(&at, bytes.data(), sizeof(at));
  return at;
}
double take_stamp(int fd) {
  double at;
  long n = must(recv(fd, &at, sizeof(at), MSG_WAITALL), "recv");
  CHECK(n == sizeof(at), "recv gave %ld bytes of a message of 8", n);
  return at;
}

// Bytes that are different everywhere and for each flow.
constexpr size_t kPattern = 65521;
const char* pattern_at(size_t flow, size_t offset) {
  static const std::vector<char> pattern = [] {
    std::vector<char> made(kPattern * 2);
    uint32_t x = 1;
    for (size_t i = 0; i < kPattern; i++) {
      x = x * 1664525 + 1013904223;
      made[i] = made[i + kPattern] = static_cast<char>(x >> 24);
    }
    return made;
  }();
  return pattern.data() + (offset + flow * 977) % kPattern;
}
void check_pattern(const char* data, size_t size, size_t flow, size_t offset) {
  while (size > 0) {
    size_t part = std::min(size, kPattern);
    CHECK(memcmp(data, pattern_at(flow, offset), part) == 0, "flow %zu brought others than bytes %zu to %zu", flow, offset,
          offset + part);
    data += part, size -= part, offset += part;
  }
}

// ---- ways of waiting --------------------------------------------------------------------------------------------------

constexpr int kPatienceMs = 2000;

short polled(int fd, short events, int timeout_ms) {
  pollfd f = {fd, events, 0};
  int n = static_cast<int>(must(poll(&f, 1, timeout_ms), "poll"));
  CHECK(n == (f.revents != 0), "poll said %d with revents %#x", n, f.revents);
  return f.revents;
}

void watch(int epfd, int fd, uint32_t events, int op = EPOLL_CTL_ADD) {
  epoll_event e = {};
  e.events = events;
  e.data.fd = fd;
  must(epoll_ctl(epfd, op, fd, &e), "epoll_ctl");
}
int set_of(int fd, uint32_t events) {
  int epfd = static_cast<int>(must(epoll_create1(0), "epoll_create1"));
  watch(epfd, fd, events);
  return epfd;
}
// The events of the only descriptor in a set that has any; 0 none.
uint32_t event_of(int epfd, int timeout_ms = kPatienceMs) {
  epoll_event events[8];
  long n = must(epoll_wait(epfd, events, 8, timeout_ms), "epoll_wait");
  CHECK(n <= 1, "epoll_wait reported %ld descriptors instead of one", n);
  return n ? events[0].events : 0;
}
void expect_event(int epfd, uint32_t wanted, const char* when, int timeout_ms = kPatienceMs) {
  uint32_t got = event_of(epfd, timeout_ms);
  CHECK(got == wanted, "epoll reported %#x instead of %#x %s", got, wanted, when);
}
void expect_none(int epfd, const char* when, int timeout_ms = 0) { expect_event(epfd, 0, when, timeout_ms); }

// A byte that is there when the wait begins, and one that comes while it lasts.
void arrivals(const std::string& what, const Pair& p, const std::function<void()>& wait) {
  for (double after_ms : {0.0, 20.0}) {
    Later peer(after_ms, [&] { put(p.far, "x"); });
    wait();
    double seen = now_ms();
    on_time(what + (after_ms > 0 ? "_later" : ""), seen - peer.at(), down_ms);
    takes(p.near, "x");
  }
}

volatile sig_atomic_t signals;
void on_signal(int) { signals = signals + 1; }
void handle_signal(int flags) {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = flags;
  must(sigaction(SIGUSR1, &action, nullptr), "sigaction");
  signals = 0;
}
void signal_thread(pthread_t thread) { pthread_kill(thread, SIGUSR1); }

}  // namespace
