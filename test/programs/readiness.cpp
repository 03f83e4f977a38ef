// A program that knows how a network with a delay behaves, and checks that it gets one: every way of waiting for bytes, of
// sending them and of ending a connection, on real loopback sockets.
//
//   readiness CASE[,CASE...] [DOWN_MS [UP_MS [server]]]     "all" for every case; without delays what a bare network does
//
// Each case prints one line of JSON with what it measured, and says in one sentence what was wrong. In a connection, `near` is
// the end whose network is delayed: what it receives by DOWN_MS, what it sends by UP_MS. It is the end that connects; with
// "server" it is the one that accepts, from a peer outside of the run. The other end, `far`, goes past libc, so nothing delays
// it. Nothing may be early; lateness is allowed what a busy machine takes.
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

// ---- cases: poll and select -------------------------------------------------------------------------------------------

void poll_level() {
  Pair p = tcp();
  arrivals("poll", p, [&] {
    CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not say POLLIN");
    CHECK(polled(p.near, POLLIN | POLLOUT, 0) == (POLLIN | POLLOUT), "poll forgot what is readable");
  });
  CHECK(polled(p.near, POLLIN, 0) == 0, "poll says a drained socket is readable");
  put(p.far, "y");
  if (down_ms <= 0) return;
  CHECK(polled(p.near, POLLIN | POLLOUT, 0) == POLLOUT, "poll for both does not say only writable before it is due");
  takes_nothing(p.near, "before it is due");
}

void poll_zero() {
  Pair p = tcp();
  double at = now_ms();
  put(p.far, "x");
  int looks = 1;
  while (polled(p.near, POLLIN, 0) == 0) {
    CHECK(++looks < 5000, "a loop of poll with timeout 0 never saw the byte");
    usleep(1000);
  }
  on_time("seen", now_ms() - at, down_ms);
  note("looks", looks);
  takes(p.near, "x");
}

// Waits that end before anything is due.
void timeouts() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN);
  const double patience = 25;
  auto ends = [&](const char* what, const std::function<void()>& wait) {
    put(p.far, "x");
    if (down_ms <= 0) takes(p.near, "x");
    double start = now_ms();
    wait();
    on_time(what, now_ms() - start, patience);
    if (down_ms <= 0) return;
    CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "the byte did not become readable after a timeout of %s", what);
    takes(p.near, "x");
  };
  ends("poll", [&] { CHECK(polled(p.near, POLLIN, 25) == 0, "poll saw a byte that is not due"); });
  ends("epoll", [&] { expect_none(epfd, "before it is due", 25); });
  auto selects = [&](timeval* left) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p.near, &set);
    int n = static_cast<int>(must(select(p.near + 1, &set, nullptr, nullptr, left), "select"));
    CHECK(n == FD_ISSET(p.near, &set), "select said %d and its set another", n);
    return n;
  };
  ends("select", [&] {
    timeval left = {0, 25000};
    CHECK(selects(&left) == 0, "select saw a byte that is not due");
    CHECK(ms_of(left) <= 0, "select left %.3f ms of a timeout that ran out", ms_of(left));
  });
  arrivals("select_left", p, [&] {
    timeval left = {2, 0};
    double start = now_ms();
    CHECK(selects(&left) == 1, "select did not see the byte");
    double used = 2000 - ms_of(left), took = now_ms() - start;
    CHECK(used <= took + 1 && used >= took - kLateMs, "select says it took %.1f ms, and it took %.1f", used, took);
  });
}

void select_many() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 1100 + 64) {
    fprintf(stderr, "select_many: skipped, this machine allows %lu descriptors\n", static_cast<unsigned long>(limit.rlim_max));
    note("skipped", 1);
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
  Pair p = tcp();
  int high = static_cast<int>(must(fcntl(p.near, F_DUPFD, 1100), "fcntl"));
  std::vector<unsigned long> asked(high / 64 + 1);
  auto bit = [](std::vector<unsigned long>& set, int fd) { set[fd / 64] |= 1ul << fd % 64; };
  int pipes[2], count = 1;
  must(pipe(pipes), "pipe");
  for (; count < 1002; count++) bit(asked, static_cast<int>(must(dup(pipes[0]), "dup")));
  bit(asked, high);
  note("descriptors", count);
  std::vector<unsigned long> only(asked.size());
  bit(only, high);
  auto result = asked;
  arrivals("select", {high, p.far}, [&] {
    result = asked;
    timeval left = {2, 0};
    int n = select(high + 1, reinterpret_cast<fd_set*>(result.data()), nullptr, nullptr, &left);
    CHECK(n == 1 && result == only, "select of %d descriptors said %d, or named others", count, n);
  });
  result = asked;
  timeval none = {0, 0};
  int n = select(high + 1, reinterpret_cast<fd_set*>(result.data()), nullptr, nullptr, &none);
  CHECK(n == 0, "select says a drained socket is readable");
  CHECK(std::count(result.begin(), result.end(), 0ul) == static_cast<long>(result.size()), "select left bits in a set of none");
}

// A pipe, a unix socket and an eventfd become readable while the socket's byte is on its way: each is reported at once.
void mixed() {
  Pair p = tcp();
  int pipes[2], pair[2], counter = eventfd(0, 0);
  must(pipe(pipes), "pipe");
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
  const std::vector<int> fds = {p.near, pipes[0], pair[0], counter};
  const int highest = *std::max_element(fds.begin(), fds.end());
  int epfd = static_cast<int>(must(epoll_create1(0), "epoll_create1"));
  for (int fd : fds) watch(epfd, fd, EPOLLIN);
  auto with_poll = [&] {
    std::vector<pollfd> set;
    for (int fd : fds) set.push_back({fd, POLLIN, 0});
    must(poll(set.data(), set.size(), kPatienceMs), "poll");
    std::vector<int> ready;
    for (const pollfd& f : set)
      if (f.revents) ready.push_back(f.fd);
    return ready;
  };
  auto with_select = [&] {
    fd_set set;
    FD_ZERO(&set);
    for (int fd : fds) FD_SET(fd, &set);
    must(select(highest + 1, &set, nullptr, nullptr, nullptr), "select");
    std::vector<int> ready;
    for (int fd : fds)
      if (FD_ISSET(fd, &set)) ready.push_back(fd);
    return ready;
  };
  auto with_epoll = [&] {
    epoll_event events[8];
    long n = must(epoll_wait(epfd, events, 8, kPatienceMs), "epoll_wait");
    std::vector<int> ready;
    for (long i = 0; i < n; i++) ready.push_back(events[i].data.fd);
    return ready;
  };
  const std::vector<std::pair<std::string, std::function<std::vector<int>()>>> ways = {
      {"poll", with_poll}, {"select", with_select}, {"epoll", with_epoll}};
  for (const auto& [name, wait] : ways) {
    double at = now_ms();
    put(p.far, "x");
    Later others(15, [&] {
      uint64_t one = 1;
      put(pipes[1], "p");
      put(pair[1], "u");
      put(counter, &one, sizeof(one));
    });
    double socket_ms = 0, others_ms = 0;
    int seen = 0, waits = 0;
    while (seen < 4) {
      CHECK(++waits < 50, "%s returned again and again without what was sent", name.c_str());
      for (int fd : wait()) {
        char bytes[8];
        must(read(fd, bytes, sizeof(bytes)), "read");
        seen++;
        (fd == p.near ? socket_ms : others_ms) = now_ms();
      }
    }
    on_time(name, socket_ms - at, down_ms);
    double others_at = others.at();
    on_time(name + "_others", others_ms - others_at, 0);
    if (down_ms > 50) CHECK(others_ms < socket_ms, "%s reported the other descriptors only with the socket", name.c_str());
  }
}

// A signal ends a wait; a mask keeps it away until the wait is over.
void signal_masks() {
  Pair p = tcp();
  const pthread_t self = pthread_self();
  sigset_t none, one, now;
  sigemptyset(&none);
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  const int epfd = set_of(p.near, EPOLLIN);
  const timespec patience = {2, 0};
  auto with_ppoll = [&](const sigset_t* mask) {
    pollfd f = {p.near, POLLIN, 0};
    return ppoll(&f, 1, &patience, mask);
  };
  auto with_pselect = [&](const sigset_t* mask) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p.near, &set);
    return pselect(p.near + 1, &set, nullptr, nullptr, &patience, mask);
  };
  auto with_epoll = [&](const sigset_t* mask) {
    epoll_event e;
    return epoll_pwait(epfd, &e, 1, kPatienceMs, mask);
  };
  const std::vector<std::pair<std::string, std::function<int(const sigset_t*)>>> ways = {
      {"ppoll", with_ppoll}, {"pselect", with_pselect}, {"epoll_pwait", with_epoll}};
  for (const auto& [name, wait] : ways) {
    handle_signal(SA_RESTART);
    for (bool restart : {true, false}) {  // the wait lets the signal in: with something on its way, and with nothing
      pthread_sigmask(SIG_BLOCK, &one, nullptr);
      signals = 0;
      if (restart && down_ms > 0) put(p.far, "x");
      Later signal(20, [&] { signal_thread(self); });
      int n = wait(&none);
      int error = errno;
      double ended = now_ms();
      CHECK(n == -1 && error == EINTR, "%s gave %d (%s) when a signal came", name.c_str(), n, strerrorname_np(error));
      on_time(name + "_eintr", ended - signal.at(), 0);
      CHECK(signals == 1, "the handler ran %d times in %s", signals, name.c_str());
      pthread_sigmask(SIG_SETMASK, nullptr, &now);
      CHECK(sigismember(&now, SIGUSR1) == 1, "%s did not give the mask back", name.c_str());
      if (restart && down_ms > 0) {
        CHECK(wait(nullptr) == 1, "%s did not see the byte after a signal", name.c_str());
        takes(p.near, "x");
      }
    }
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);  // the wait keeps the signal out
    signals = 0;
    double at = 0;
    Later peer(20, [&] {
      signal_thread(self);
      pause_ms(10);
      at = now_ms();
      put(p.far, "y");
    });
    int n = wait(&one);
    double ended = now_ms();
    peer.at();
    CHECK(n == 1, "%s gave %d (%s) with the signal masked", name.c_str(), n, strerrorname_np(errno));
    on_time(name + "_masked", ended - at, down_ms);
    CHECK(signals == 1, "the handler ran %d times after %s", signals, name.c_str());
    takes(p.near, "y");
  }
  handle_signal(SA_RESTART);  // poll and epoll_wait end even where calls restart
  for (const char* name : {"poll", "epoll_wait"}) {
    if (down_ms > 0) put(p.far, "z");
    Later signal(20, [&] { signal_thread(self); });
    pollfd f = {p.near, POLLIN, 0};
    epoll_event e;
    int n = name[0] == 'p' ? poll(&f, 1, kPatienceMs) : epoll_wait(epfd, &e, 1, kPatienceMs);
    CHECK(n == -1 && errno == EINTR, "%s gave %d when a signal came", name, n);
    on_time(name, now_ms() - signal.at(), 0);
    if (down_ms <= 0) continue;
    CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "the byte was lost after a signal in %s", name);
    takes(p.near, "z");
  }
}

// ---- cases: epoll -----------------------------------------------------------------------------------------------------

void epoll_level() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN);
  arrivals("epoll", p, [&] {
    expect_event(epfd, EPOLLIN, "on arrival");
    expect_event(epfd, EPOLLIN, "again, as a level does", 0);
  });
  expect_none(epfd, "once drained");
  put(p.far, "ab");
  expect_event(epfd, EPOLLIN, "on arrival");
  char byte;
  must(recv(p.near, &byte, 1, 0), "recv");
  expect_event(epfd, EPOLLIN, "with a byte left", 0);
  takes(p.near, "b");
  expect_none(epfd, "once drained");
  put(p.far, "c");
  watch(epfd, p.near, 0, EPOLL_CTL_DEL);
  expect_none(epfd, "of a descriptor that was taken out", static_cast<int>(down_ms) + 20);
  watch(epfd, p.near, EPOLLIN | EPOLLOUT);
  expect_event(epfd, EPOLLIN | EPOLLOUT, "of a descriptor put in again", 0);
}

void epoll_edge() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN | EPOLLET);
  double at = now_ms();
  put(p.far, "ab");
  if (down_ms > 0) expect_none(epfd, "before it is due");
  if (down_ms > 0) takes_nothing(p.near, "before it is due");
  expect_event(epfd, EPOLLIN, "on arrival");
  on_time("first", now_ms() - at, down_ms);
  expect_none(epfd, "without anything new", 20);
  char byte;
  must(recv(p.near, &byte, 1, 0), "recv");
  expect_none(epfd, "with a byte left", 20);
  at = now_ms();
  put(p.far, "c");
  expect_event(epfd, EPOLLIN, "for more, though the rest is unread");
  on_time("more", now_ms() - at, down_ms);
  takes(p.near, "bc");
  takes_nothing(p.near, "once drained");
  expect_none(epfd, "once drained", 20);
  arrivals("again", p, [&] { expect_event(epfd, EPOLLIN, "after being drained"); });
  expect_none(epfd, "once drained again", 20);

  Pair both = tcp();
  const int each = set_of(both.near, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  expect_event(each, EPOLLOUT, "of a new connection");
  expect_none(each, "without anything new");
  at = now_ms();
  put(both.far, "d");
  expect_event(each, EPOLLIN | EPOLLOUT, "on arrival");
  on_time("both", now_ms() - at, down_ms);
  expect_none(each, "without anything new", 20);
}

void epoll_oneshot() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN | EPOLLONESHOT);
  auto arm = [&](uint32_t events = EPOLLIN | EPOLLONESHOT) { watch(epfd, p.near, events, EPOLL_CTL_MOD); };
  arrivals("armed", p, [&] {
    expect_event(epfd, EPOLLIN, "on arrival");
    expect_none(epfd, "after its one shot");
    arm();
    expect_event(epfd, EPOLLIN, "armed again with unread data", 0);
    arm();
  });
  double at = now_ms();
  put(p.far, "y");
  arm();
  expect_event(epfd, EPOLLIN, "armed before it is due");
  on_time("armed_before", now_ms() - at, down_ms);
  put(p.far, "z");
  expect_none(epfd, "of a shot that was fired", static_cast<int>(down_ms) + 20);
  takes(p.near, "yz");
  arm();
  expect_none(epfd, "of a drained socket, armed", 20);
  put(p.far, "w");
  expect_event(epfd, EPOLLIN, "on arrival");
  arm(EPOLLIN | EPOLLET);
  expect_event(epfd, EPOLLIN, "changed to edges with unread data", 0);
  expect_none(epfd, "a second time without anything new", 20);
}

void epoll_exclusive() {
  Pair p = tcp();
  const int sets[] = {set_of(p.near, EPOLLIN | EPOLLEXCLUSIVE), set_of(p.near, EPOLLIN | EPOLLEXCLUSIVE)};
  std::atomic<int> woken = 0;
  double seen[2] = {};
  std::vector<std::thread> threads;
  for (int i : {0, 1})
    threads.emplace_back([&, i] {
      if (event_of(sets[i], 400) != EPOLLIN) return;
      seen[i] = now_ms();
      woken++;
    });
  pause_ms(20);
  double at = now_ms();
  put(p.far, "x");
  for (std::thread& thread : threads) thread.join();
  note("woken", woken);
  CHECK(woken > 0, "no set was told");
  for (double each : seen)
    if (each > 0) on_time("seen", each - at, down_ms);
  takes(p.near, "x");
}

// A set inside another, and polled: what it has to report shows from outside when it is due.
// A set that is waited for from outside is ready no later than its event; an arrival that is not due may announce it once
// before, as another thread's wait on the same set would.
void epoll_nested() {
  Pair p = tcp();
  const int inner = set_of(p.near, EPOLLIN), outer = set_of(inner, EPOLLIN);
  auto meet = [&](const char* how, const std::function<bool()>& announced) {
    int times = 0;
    uint32_t event = 0;
    while (event == 0) {
      CHECK(announced(), "%s of a set did not see it", how);
      CHECK(++times <= 3, "%s says again and again that a set is ready, and it has nothing to report", how);
      event = event_of(inner, 0);
    }
    CHECK(event == EPOLLIN, "after %s the set reported %#x", how, event);
  };
  arrivals("polled", p, [&] { meet("poll", [&] { return polled(inner, POLLIN, kPatienceMs) == POLLIN; }); });
  arrivals("nested", p, [&] { meet("epoll_wait", [&] { return event_of(outer, kPatienceMs) == EPOLLIN; }); });
  expect_none(outer, "once drained");
  arrivals("selected", p, [&] {
    meet("select", [&] {
      fd_set set;
      FD_ZERO(&set);
      FD_SET(inner, &set);
      timeval left = {2, 0};
      return select(inner + 1, &set, nullptr, nullptr, &left) == 1;
    });
  });
}

void epoll_dup() {
  Pair p = tcp();
  const int first = set_of(p.near, EPOLLIN), epfd = static_cast<int>(must(dup(first), "dup"));
  arrivals("dup", p, [&] { expect_event(epfd, EPOLLIN, "of a set by its other name"); });
  must(close(first), "close");
  arrivals("kept", p, [&] { expect_event(epfd, EPOLLIN, "of a set whose first name is closed"); });
  watch(epfd, p.near, EPOLLIN | EPOLLET, EPOLL_CTL_MOD);
  arrivals("changed", p, [&] { expect_event(epfd, EPOLLIN, "after a change"); });
}

void epoll_fork() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN);
  arrivals("before", p, [&] { expect_event(epfd, EPOLLIN, "before the fork"); });
  pid_t child = forked();
  if (child == 0) {
    for (int i = 0; i < 2; i++) {
      expect_event(epfd, EPOLLIN, "in the child");
      double seen = now_ms();
      on_time("inherited", seen - take_stamp(p.near), down_ms);
    }
    _exit(0);
  }
  pause_ms(20);
  put_stamp(p.far);
  pause_ms(down_ms + 20);
  put_stamp(p.far);
  reap(child);
  arrivals("after", p, [&] { expect_event(epfd, EPOLLIN, "in the parent after its child"); });
}

// What a set holds of a socket goes with its last descriptor, though bytes are still on their way from and to it.
void epoll_close() {
  Pair p = tcp(), other = tcp();
  const int epfd = set_of(p.near, EPOLLIN);
  watch(epfd, other.near, EPOLLIN);
  give(p.near, "out");
  put(p.far, "in");
  must(close(p.near), "close");
  expect_none(epfd, "of a closed descriptor", static_cast<int>(std::max(down_ms, up_ms)) + 30);
  arrivals("other", other, [&] { expect_event(epfd, EPOLLIN, "of the other descriptor"); });
}

// Twenty connections, a byte on each at once: no delay waits for another, and two threads share them out.
void epoll_threads() {
  constexpr int kConnections = 20;
  int epfd = static_cast<int>(must(epoll_create1(0), "epoll_create1"));
  std::vector<Pair> pairs;
  for (int i = 0; i < kConnections; i++) {
    pairs.push_back(tcp());
    watch(epfd, pairs.back().near, EPOLLIN | EPOLLET);
  }
  std::atomic<int> reports = 0;
  std::atomic<double> last = 0;
  std::vector<std::atomic<int>> times(4096);
  auto serve = [&] {
    for (epoll_event e; epoll_wait(epfd, &e, 1, 400) == 1;) {
      last = now_ms();
      reports++;
      times[static_cast<size_t>(e.data.fd)]++;
      takes(e.data.fd, "x");
    }
  };
  std::thread one(serve), two(serve);
  pause_ms(10);
  double at = now_ms();
  for (const Pair& p : pairs) put(p.far, "x");
  one.join();
  two.join();
  CHECK(reports == kConnections, "%d reports of %d messages", reports.load(), kConnections);
  for (const Pair& p : pairs) {
    int each = times[static_cast<size_t>(p.near)];
    CHECK(each == 1, "a message was reported %d times", each);
  }
  on_time("last", last - at, down_ms);
}

// Both ends in one event loop, as many programs' tests are.
void one_loop() {
  if (serving) {
    note("skipped", 1);  // its peer is outside of the run, which libc's calls here would not be
    return;
  }
  Pair p = tcp();
  int epfd = set_of(p.near, EPOLLIN);
  watch(epfd, p.far, EPOLLIN);
  for (int round = 0; round < 5; round++)
    for (const auto& [from, to, delay] : {std::tuple{p.near, p.far, up_ms}, std::tuple{p.far, p.near, down_ms}}) {
      double at = now_ms();
      give(from, "x");
      epoll_event e;
      CHECK(must(epoll_wait(epfd, &e, 1, kPatienceMs), "epoll_wait") == 1, "nothing came");
      on_time(from == p.near ? "there" : "back", now_ms() - at, delay);
      CHECK(e.data.fd == to && e.events == EPOLLIN, "another descriptor was reported");
      takes(to, "x");
    }
}

// Waiting takes no processor time.
void no_spin() {
  Pair p = tcp(), q = tcp();
  int epfd = set_of(p.near, EPOLLIN);
  watch(epfd, q.near, EPOLLIN | EPOLLOUT | EPOLLET);
  expect_event(epfd, EPOLLOUT, "of a new connection");
  auto used = [] {
    rusage u;
    getrusage(RUSAGE_SELF, &u);
    return ms_of(u.ru_utime) + ms_of(u.ru_stime);
  };
  double cpu = used(), start = now_ms();
  for (int i = 0; i < 4; i++) {
    put(p.far, "x");
    expect_event(epfd, EPOLLIN, "on arrival");
    takes(p.near, "x");
    put(p.far, "y");
    CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not say POLLIN");
    takes(p.near, "y");
  }
  expect_none(epfd, "once drained", 200);
  double wall = now_ms() - start;
  cpu = used() - cpu;
  note("wall_ms", wall);
  note("cpu_ms", cpu);
  CHECK(cpu < wall / 4, "waiting %.0f ms took %.0f ms of processor time", wall, cpu);
}

// ---- cases: receiving -------------------------------------------------------------------------------------------------

void receive_blocking() {
  Pair p = tcp();
  for (double after_ms : {0.0, 20.0}) {
    Later peer(after_ms, [&] { put(p.far, "x"); });
    char byte;
    CHECK(must(recv(p.near, &byte, 1, 0), "recv") == 1, "recv met the end");
    double seen = now_ms();
    on_time(after_ms > 0 ? "later" : "there", seen - peer.at(), down_ms);
  }
}

void receive_peek() {
  Pair p = tcp();
  double at = now_ms();
  put(p.far, "ab");
  char bytes[8];
  if (down_ms > 0) {
    long n = recv(p.near, bytes, 8, MSG_PEEK | MSG_DONTWAIT);
    CHECK(n == -1 && errno == EAGAIN, "a peek saw what is not due");
  }
  CHECK(recv(p.near, bytes, 8, MSG_PEEK) == 2, "a peek did not see two bytes");
  on_time("peek", now_ms() - at, down_ms);
  CHECK(recv(p.near, bytes, 8, MSG_PEEK | MSG_DONTWAIT) == 2, "a second peek did not see two bytes");
  takes(p.near, "ab");
}

void receive_waitall() {
  Pair p = tcp();
  put(p.far, "abc");
  Later peer(20, [&] { put(p.far, "def"); });
  char bytes[6];
  long n = recv(p.near, bytes, 6, MSG_WAITALL);
  double seen = now_ms();
  CHECK(n == 6 && memcmp(bytes, "abcdef", 6) == 0, "MSG_WAITALL gave %ld of 6 bytes", n);
  on_time("all", seen - peer.at(), down_ms);
}

void receive_timeout() {
  Pair p = tcp();
  timeval patience = {0, 25000};
  must(setsockopt(p.near, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "setsockopt");
  char byte;
  for (bool on_its_way : {false, true}) {
    if (on_its_way && down_ms <= 0) break;
    double at = now_ms();
    if (on_its_way) put(p.far, "x");
    long n = recv(p.near, &byte, 1, 0);
    CHECK(n == -1 && errno == EAGAIN, "recv gave %ld at its timeout", n);
    on_time("timeout", now_ms() - at, 24);
  }
  if (down_ms > 0) {
    CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "the byte was lost after a timeout");
    takes(p.near, "x");
  }
  patience = {1, 0};
  must(setsockopt(p.near, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "setsockopt");
  double at = now_ms();
  put(p.far, "y");
  CHECK(recv(p.near, &byte, 1, 0) == 1, "recv did not see the byte within its timeout");
  on_time("within", now_ms() - at, down_ms);
}

void receive_lowat() {
  Pair p = tcp();
  set_option(p.near, SOL_SOCKET, SO_RCVLOWAT, 4);
  put(p.far, "ab");
  CHECK(polled(p.near, POLLIN, static_cast<int>(down_ms) + 30) == 0, "poll reports less than SO_RCVLOWAT");
  double at = now_ms();
  put(p.far, "cd");
  CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not report SO_RCVLOWAT bytes");
  on_time("polled", now_ms() - at, down_ms);
  takes(p.near, "abcd");
  Later peer(20, [&] { put(p.far, "efgh"); });
  char bytes[8];
  long n = recv(p.near, bytes, 8, 0);
  double seen = now_ms();
  CHECK(n == 4, "recv gave %ld bytes of SO_RCVLOWAT 4", n);
  on_time("received", seen - peer.at(), down_ms);
}

void receive_fionread() {
  Pair p = tcp();
  auto queued = [&] {
    int n = -1;
    must(ioctl(p.near, FIONREAD, &n), "FIONREAD");
    return n;
  };
  put(p.far, "abc");
  if (down_ms > 0) CHECK(queued() == 0, "FIONREAD tells of bytes that are not due");
  CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not say POLLIN");
  CHECK(queued() == 3, "FIONREAD says %d of 3 bytes", queued());
  put(p.far, "de");
  if (down_ms > 0) CHECK(queued() == 3, "FIONREAD tells of bytes that are not due behind others");
  char bytes[8];
  if (down_ms > 0) takes(p.near, "abc");
  else CHECK(recv(p.near, bytes, 3, 0) == 3, "recv did not give three bytes");
  CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not say POLLIN");
  takes(p.near, "de");
}

void receive_signal() {
  Pair p = tcp();
  const pthread_t self = pthread_self();
  char byte;
  for (bool restart : {true, false})
    for (bool on_its_way : {false, true}) {
      if (on_its_way && down_ms <= 0) continue;
      handle_signal(restart ? SA_RESTART : 0);
      double at = 0;
      auto write_now = [&] {
        at = now_ms();
        put(p.far, "x");
      };
      if (on_its_way) write_now();
      Later signal(20, [&] {
        signal_thread(self);
        pause_ms(20);
        if (!on_its_way) write_now();
      });
      long n = recv(p.near, &byte, 1, 0);
      int error = errno;
      double ended = now_ms();
      if (restart) {
        double began = signal.at();
        CHECK(n == 1, "recv gave %ld (%s) though calls restart", n, n < 0 ? strerrorname_np(error) : "");
        CHECK(signals == 1, "the handler ran %d times", signals);
        on_time("restarted", ended - at, down_ms);
        CHECK(ended >= began, "recv ended before the signal");
      } else {
        CHECK(n == -1 && error == EINTR, "recv gave %ld when a signal came", n);
        on_time("interrupted", ended - signal.at(), 0);
        CHECK(recv(p.near, &byte, 1, 0) == 1, "the byte was lost after a signal");
        on_time("after", now_ms() - at, down_ms);
      }
    }
}

void receive_threads() {
  constexpr int kMessages = 20, kSize = 10;
  Pair p = tcp();
  std::string got[2];
  auto receive = [&](std::string* into) {
    char bytes[3];
    for (long n; (n = must(recv(p.near, bytes, sizeof(bytes), 0), "recv")) > 0;) into->append(bytes, static_cast<size_t>(n));
  };
  std::thread one(receive, &got[0]), two(receive, &got[1]);
  std::string sent;
  for (int i = 0; i < kMessages * kSize; i++) sent += static_cast<char>(i);
  for (int i = 0; i < kMessages; i++) {
    put(p.far, sent.substr(static_cast<size_t>(i) * kSize, kSize));
    pause_ms(2);
  }
  double at = now_ms();
  must(syscall(SYS_shutdown, p.far, SHUT_WR), "shutdown");
  one.join();
  two.join();
  on_time("end", now_ms() - at, down_ms);
  std::string all = got[0] + got[1];
  std::sort(all.begin(), all.end());
  std::sort(sent.begin(), sent.end());
  CHECK(all == sent, "two threads received %zu of %zu bytes, or others", all.size(), sent.size());
}

void receive_fork() {
  Pair p = tcp();
  pid_t child = forked();
  if (child == 0) {
    double at = take_stamp(p.near);
    on_time("child", now_ms() - at, down_ms);
    _exit(0);
  }
  put_stamp(p.far);
  reap(child);
  put_stamp(p.far);
  if (down_ms > 0) takes_nothing(p.near, "before it is due");
  double at = take_stamp(p.near);
  on_time("parent", now_ms() - at, down_ms);
}

// The peer's end stays behind its data, and is late itself.
void end_after_data() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN | EPOLLRDHUP | EPOLLET);
  double at = now_ms();
  put(p.far, "last");
  Later end(20, [&] { must(syscall(SYS_shutdown, p.far, SHUT_WR), "shutdown"); });
  expect_event(epfd, EPOLLIN, "for the data");
  on_time("data", now_ms() - at, down_ms);
  takes(p.near, "last");
  if (down_ms > 30) takes_nothing(p.near, "before the end is due");
  expect_event(epfd, EPOLLIN | EPOLLRDHUP, "for the end");
  double seen = now_ms();
  on_time("end", seen - end.at(), down_ms);
  takes(p.near, "");
  expect_none(epfd, "after the end", 20);

  Pair q = tcp();
  at = now_ms();
  put(q.far, "last");
  must(close(q.far), "close");
  if (down_ms > 0) CHECK(polled(q.near, POLLIN | POLLRDHUP, 0) == 0, "poll tells of an end that is not due");
  short wanted = POLLIN | POLLRDHUP;
  for (short seen_events = 0; seen_events != wanted; seen_events = polled(q.near, wanted, kPatienceMs))
    CHECK(now_ms() - at < 1000, "the end never came");
  on_time("close", now_ms() - at, down_ms);
  char bytes[8];
  CHECK(recv(q.near, bytes, 4, 0) == 4 && recv(q.near, bytes, 8, 0) == 0, "the data or the end is missing");
}

void reset_after_data() {
  Pair p = tcp();
  const int epfd = set_of(p.near, EPOLLIN | EPOLLRDHUP);
  double at = now_ms();
  put(p.far, "last");
  Later reset(20, [&] { reset_by_far(p); });
  expect_event(epfd, EPOLLIN, "for the data");
  on_time("data", now_ms() - at, down_ms);
  if (down_ms > 30) CHECK(option_of(p.near, SO_ERROR) == 0, "SO_ERROR tells of a reset that is not due");
  takes(p.near, "last");
  expect_event(epfd, EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP, "for the reset");
  double seen = now_ms();
  on_time("reset", seen - reset.at(), down_ms);
  char byte;
  long n = recv(p.near, &byte, 1, 0);
  CHECK(n == -1 && errno == ECONNRESET, "recv gave %ld (%s) after the reset", n, n < 0 ? strerrorname_np(errno) : "");
  CHECK(recv(p.near, &byte, 1, 0) == 0, "the reset was told twice");

  Pair q = tcp();  // one that comes while a receive waits
  Later later(20, [&] { reset_by_far(q); });
  n = recv(q.near, &byte, 1, 0);
  int error = errno;
  seen = now_ms();
  CHECK(n == -1 && error == ECONNRESET, "a waiting recv gave %ld (%s) at the reset", n, n < 0 ? strerrorname_np(error) : "");
  on_time("waiting", seen - later.at(), down_ms);
}

// ---- cases: connecting and accepting ----------------------------------------------------------------------------------

// A port that nothing listens on, and stays so while the descriptor is open.
int deaf() {
  int fd = static_cast<int>(must(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), "socket"));
  sockaddr_in any = loopback(0);
  must(syscall(SYS_bind, fd, &any, sizeof(any)), "bind");
  return fd;
}

int begin_connect(int fd, int to) {
  sockaddr_in address = name_of(to);
  int n = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  if (n == 0) CHECK(up_ms + down_ms <= 0, "a connect that does not block was done at once");
  else CHECK(errno == EINPROGRESS, "a connect that does not block gave %s", strerrorname_np(errno));
  return n;
}

void connect_good() {
  const int listener = listening();
  for (uint32_t edge : {0u, static_cast<uint32_t>(EPOLLET)}) {
    int fd = static_cast<int>(must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"));
    const int epfd = set_of(fd, EPOLLOUT | edge);  // known to the set before it is to anyone else
    expect_event(epfd, EPOLLOUT | EPOLLHUP, "of a socket that is not connected");
    double at = now_ms();
    begin_connect(fd, listener);
    if (up_ms + down_ms > 0) expect_none(epfd, "before the answer is due");
    if (up_ms + down_ms > 0) CHECK(option_of(fd, SO_ERROR) == 0, "SO_ERROR tells of an answer that is not due");
    expect_event(epfd, EPOLLOUT, "once connected");
    on_time(edge ? "edge" : "level", now_ms() - at, up_ms + down_ms);
    CHECK(option_of(fd, SO_ERROR) == 0, "SO_ERROR of a good connect is not 0");
    int far = static_cast<int>(must(accept(listener, nullptr, nullptr), "accept"));
    watch(epfd, fd, EPOLLIN | edge, EPOLL_CTL_MOD);
    arrivals(edge ? "edge_data" : "level_data", {fd, far}, [&] { expect_event(epfd, EPOLLIN, "on arrival"); });
  }
  int fd = static_cast<int>(must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"));
  double at = now_ms();
  begin_connect(fd, listener);
  CHECK(polled(fd, POLLOUT | POLLIN, kPatienceMs) == POLLOUT, "poll did not say POLLOUT once connected");
  on_time("poll", now_ms() - at, up_ms + down_ms);
  int blocking = static_cast<int>(must(socket(AF_INET, SOCK_STREAM, 0), "socket"));
  sockaddr_in to = name_of(listener);
  at = now_ms();
  must(connect(blocking, reinterpret_cast<sockaddr*>(&to), sizeof(to)), "connect");
  on_time("blocking", now_ms() - at, up_ms + down_ms);
}

void connect_refused() {
  const int to = deaf();
  int fd = static_cast<int>(must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"));
  double at = now_ms();
  begin_connect(fd, to);
  const int epfd = set_of(fd, EPOLLIN | EPOLLOUT);
  if (up_ms + down_ms > 0) expect_none(epfd, "before the answer is due");
  expect_event(epfd, EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP, "of a refused connect");
  on_time("epoll", now_ms() - at, up_ms + down_ms);
  int error = option_of(fd, SO_ERROR);
  CHECK(error == ECONNREFUSED, "SO_ERROR of a refused connect is %d", error);
  CHECK(option_of(fd, SO_ERROR) == 0, "SO_ERROR was told twice");

  int other = static_cast<int>(must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket"));
  at = now_ms();
  begin_connect(other, to);
  short events = polled(other, POLLOUT, kPatienceMs);
  on_time("poll", now_ms() - at, up_ms + down_ms);
  CHECK(events == (POLLOUT | POLLERR | POLLHUP), "poll said %#x of a refused connect", events);
  char byte;
  CHECK(recv(other, &byte, 1, 0) == -1 && errno == ECONNREFUSED, "recv did not tell of the refusal");

  int blocking = static_cast<int>(must(socket(AF_INET, SOCK_STREAM, 0), "socket"));
  sockaddr_in address = name_of(to);
  at = now_ms();
  int n = connect(blocking, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  CHECK(n == -1 && errno == ECONNREFUSED, "a connect gave %d instead of a refusal", n);
  on_time("blocking", now_ms() - at, up_ms + down_ms);
}

// A server's loop: the listener and what it accepted in one set, from peers outside of the run.
void accepting() {
  const int listener = listening();
  const int epfd = set_of(listener, EPOLLIN);
  for (int round = 0; round < 3; round++) {
    const int far = outsider(listener);
    double at = now_ms();
    put(far, "hello");
    expect_event(epfd, EPOLLIN, "of the listener");
    int near = static_cast<int>(must(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK), "accept4"));
    watch(epfd, near, EPOLLIN | EPOLLET);
    expect_event(epfd, EPOLLIN, "of what was accepted");
    on_time("request", now_ms() - at, down_ms);
    takes(near, "hello");
    at = now_ms();
    give(near, "answer");
    CHECK(get(far, 6) == "answer", "another answer came");
    on_time("answer", now_ms() - at, up_ms);
    must(close(near), "close");
    must(syscall(SYS_close, far), "close");
  }
}

// ---- cases: sending ---------------------------------------------------------------------------------------------------

// Ten messages that say when they were sent.
void arrive_on_time(const char* what, int fd, size_t size) {
  double took = 0;
  for (int i = 0; i < 10; i++) {
    double sent = stamp_in(get(fd, size));
    took = now_ms() - sent;
    CHECK(took >= up_ms - kEarlyMs && took <= up_ms + kLateMs, "message %d took %.2f ms of %.0f", i, took, up_ms);
  }
  note(what, took);
}

// Sends do not wait for each other: each message is late by one delay.
void send_pipelined() {
  Pair p = tcp();
  std::string message(64, 'm');
  for (double gap_ms : {0.0, 5.0}) {
    std::thread sender([&] {
      double start = now_ms();
      for (int i = 0; i < 10; i++) {
        double at = now_ms();
        memcpy(message.data(), &at, sizeof(at));
        give(p.near, message);
        pause_ms(gap_ms);
      }
      on_time("sending", now_ms() - start, 10 * gap_ms);
    });
    arrive_on_time(gap_ms > 0 ? "paced" : "at_once", p.far, message.size());
    sender.join();
  }
}

// What a program does right after its last send must not cost a byte, nor be seen before them.
void ending(const char* how, const std::function<void(int)>& act, int status = 0) {
  constexpr size_t kBytes = 60000;
  Pair p = tcp();
  pid_t child = forked();
  if (child == 0) {
    rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    must(close(p.far), "close");
    pause_ms(10);  // the parent has closed its copy, which is not the last
    double at = now_ms();
    give(p.near, std::string(reinterpret_cast<char*>(&at), sizeof(at)) + std::string(pattern_at(1, 0), kBytes));
    act(p.near);
    pause_ms(300);
    _exit(0);
  }
  must(close(p.near), "close");
  double sent = stamp_in(get(p.far, 8));
  on_time(std::string(how) + "_first", now_ms() - sent, up_ms);
  check_pattern(get(p.far, kBytes).data(), kBytes, 1, 0);
  char byte;
  long n = syscall(SYS_read, p.far, &byte, 1);
  CHECK(n == 0, "after %s the peer met %s instead of the end", how, n > 0 ? "more" : strerrorname_np(errno));
  on_time(std::string(how) + "_end", now_ms() - sent, up_ms);
  reap(child, status);
  must(close(p.far), "close");
}

void send_close() {
  ending("close", [](int fd) { close(fd); });
  ending("shutdown", [](int fd) { shutdown(fd, SHUT_WR); });
}
void send_exit() {
  ending("_exit", [](int) { _exit(0); });
  ending("exit", [](int) { exit(0); });
}
void send_killed() {
  ending("abort", [](int) { abort(); }, SIGABRT);
  ending("SIGKILL", [](int) { kill(getpid(), SIGKILL); }, SIGKILL);
  ending("SIGTERM", [](int) { kill(getpid(), SIGTERM); }, SIGTERM);
}
void send_exec() {
  ending("exec", [](int) { execl("/bin/true", "true", nullptr); });
}

void send_orphan() {
  Pair p = tcp();
  pid_t child = forked();
  if (child == 0) {
    if (forked() == 0) {
      pause_ms(30);  // its parent is gone
      double at = now_ms();
      give(p.near, &at, sizeof(at));
      _exit(0);
    }
    _exit(0);
  }
  must(close(p.near), "close");
  reap(child);
  double sent = stamp_in(get(p.far, 8));
  on_time("orphan", now_ms() - sent, up_ms);
  char byte;
  CHECK(syscall(SYS_read, p.far, &byte, 1) == 0, "the end is missing");
  on_time("end", now_ms() - sent, up_ms);
}

// Both processes write to one connection after a fork; each one's bytes keep their order.
void send_fork() {
  Pair p = tcp();
  give(p.near, "0");
  pid_t child = forked();
  if (child == 0) {
    give(p.near, "1");
    _exit(0);
  }
  reap(child);
  double at = now_ms();
  give(p.near, "2");
  std::string got = get(p.far, 3);
  on_time("last", now_ms() - at, up_ms);
  CHECK(got == "012", "the peer got %s", got.c_str());
}

void back_pressure(bool edge) {
  constexpr size_t kBytes = 200000;
  Pair p = tcp();
  set_option(p.near, SOL_SOCKET, SO_SNDBUF, 20000);
  set_nonblocking(p.near);
  const int epfd = set_of(p.near, EPOLLOUT | (edge ? EPOLLET : 0u));
  expect_event(epfd, EPOLLOUT, "of a new connection", 0);
  std::thread peer([&] {
    pause_ms(150);
    for (size_t done = 0; done < kBytes;) {
      char bytes[8192];
      long n = must(syscall(SYS_read, p.far, bytes, sizeof(bytes)), "the peer's read");
      CHECK(n > 0, "the peer met the end after %zu bytes", done);
      check_pattern(bytes, static_cast<size_t>(n), 7, done);
      done += static_cast<size_t>(n);
    }
  });
  int full = 0, futile = 0;
  size_t first = 0;
  bool progress = true;
  for (size_t done = 0; done < kBytes;) {
    size_t part = std::min<size_t>(3000, kBytes - done);
    std::string data(pattern_at(7, done), part);
    long n = send(p.near, data.data(), part, 0);
    if (n >= 0) {
      done += static_cast<size_t>(n);
      progress = true;
      continue;
    }
    CHECK(errno == EAGAIN, "send gave %s", strerrorname_np(errno));
    if (full++ == 0) first = done;
    if (full == 1 && up_ms > 0) expect_none(epfd, "of a socket that just was full");
    if (!progress) futile++;
    progress = false;
    expect_event(epfd, EPOLLOUT, "when there is room again");
  }
  peer.join();
  note(edge ? "edge_full" : "full", full);
  note(edge ? "edge_first" : "first", static_cast<double>(first));
  CHECK(full > 0, "200,000 bytes fitted into a buffer of 20,000");
  if (up_ms > 0) CHECK(first >= 10000 && first <= 80000, "a send buffer of 20,000 took %zu bytes", first);
  CHECK(futile <= 5, "EPOLLOUT was reported %d times without room", futile);
}
// A blocking send takes all it is given, however often it has to wait for room.
void send_whole() {
  constexpr size_t kBytes = 65000;
  Pair p = tcp();
  set_option(p.near, SOL_SOCKET, SO_SNDBUF, 20000);
  std::thread peer([&] {
    for (size_t done = 0; done < kBytes;) {
      char bytes[8192];
      long n = must(syscall(SYS_read, p.far, bytes, sizeof(bytes)), "the peer's read");
      CHECK(n > 0, "the peer met the end after %zu bytes", done);
      check_pattern(bytes, static_cast<size_t>(n), 5, done);
      done += static_cast<size_t>(n);
    }
  });
  std::string data(pattern_at(5, 0), kBytes);
  long n = send(p.near, data.data(), kBytes, 0);
  CHECK(n == static_cast<long>(kBytes), "a blocking send took %ld of %zu bytes", n, kBytes);
  peer.join();
}
void send_pressure() {
  back_pressure(false);
  back_pressure(true);
}

int file_of_pattern(size_t bytes) {
  int file = static_cast<int>(must(memfd_create("data", 0), "memfd_create"));
  for (size_t done = 0; done < bytes;) {
    size_t part = std::min(bytes - done, kPattern);
    done += static_cast<size_t>(must(write(file, pattern_at(3, done), part), "write"));
  }
  return file;
}

void send_file() {
  constexpr size_t kBytes = 300000;
  const int file = file_of_pattern(kBytes);
  int ends[2];
  must(pipe(ends), "pipe");
  Pair p = tcp();
  for (const char* how : {"sendfile", "splice"}) {
    double at = now_ms();
    std::thread sender([&] {
      for (off_t offset = 0; offset < static_cast<off_t>(kBytes);) {
        size_t left = kBytes - static_cast<size_t>(offset);
        if (how[1] == 'e') {
          CHECK(must(sendfile(p.near, file, &offset, left), "sendfile") > 0, "sendfile made no progress");
          continue;
        }
        long n = must(splice(file, &offset, ends[1], nullptr, left, 0), "splice from the file");
        while (n > 0) n -= must(splice(ends[0], nullptr, p.near, nullptr, static_cast<size_t>(n), 0), "splice to the socket");
      }
    });
    std::string got = get(p.far, 1);
    on_time(how, now_ms() - at, up_ms);
    got += get(p.far, kBytes - 1);
    sender.join();
    check_pattern(got.data(), kBytes, 3, 0);
  }
  double at = now_ms();
  put(p.far, pattern_at(4, 0), 40000);
  std::string got;
  while (got.size() < 40000) {
    long n = must(splice(p.near, nullptr, ends[1], nullptr, 40000 - got.size(), 0), "splice from the socket");
    if (got.empty()) on_time("spliced_in", now_ms() - at, down_ms);
    CHECK(n > 0, "splice met the end after %zu bytes", got.size());
    got += get(ends[0], static_cast<size_t>(n));
  }
  check_pattern(got.data(), got.size(), 4, 0);
}

void send_cork() {
  Pair p = tcp();
  set_option(p.near, IPPROTO_TCP, TCP_NODELAY, 0);
  set_option(p.near, IPPROTO_TCP, TCP_CORK, 1);
  double at = now_ms();
  for (const char* part : {"a", "b", "c"}) give(p.near, part);
  set_option(p.near, IPPROTO_TCP, TCP_CORK, 0);
  std::string got = get(p.far, 3);
  on_time("uncorked", now_ms() - at, up_ms);
  CHECK(got == "abc", "the peer got %s", got.c_str());
  at = now_ms();
  must(send(p.near, "d", 1, MSG_MORE), "send");
  must(send(p.near, "e", 1, 0), "send");
  got = get(p.far, 2);
  on_time("more", now_ms() - at, up_ms);
  CHECK(got == "de", "the peer got %s", got.c_str());
}

// Bytes that stdio writes inside libc may go undelayed, which is noted; their order must hold.
void send_stdio() {
  Pair p = tcp();
  FILE* file = fdopen(dup(p.near), "w");
  double at = now_ms(), times[5];
  std::string got;
  std::thread peer([&] {
    for (double& each : times) {
      got += get(p.far, 1);
      each = now_ms() - at;
    }
  });
  give(p.near, "1");
  fprintf(file, "2");
  fflush(file);
  give(p.near, "3");
  dprintf(p.near, "4");
  give(p.near, "5");
  peer.join();
  note("send", times[0]);
  note("fprintf", times[1]);
  note("dprintf", times[3]);
  CHECK(got == "12345", "the peer got %s", got.c_str());
  CHECK(times[0] >= up_ms - kEarlyMs, "the first byte was early: %.2f ms of %.0f", times[0], up_ms);
}

// ---- cases: much at once ----------------------------------------------------------------------------------------------

struct Half {
  int fd;
  size_t flow, sent, received;
};

// One end of every flow, in an event loop: sends its pattern while it checks the other's. `past`: past libc.
void exchange(std::vector<Half>* halves, size_t bytes, size_t from_flow, size_t to_flow, bool past) {
  auto control = [&](int epfd, int op, int fd, epoll_event* e) {
    return past ? syscall(SYS_epoll_ctl, epfd, op, fd, e) : epoll_ctl(epfd, op, fd, e);
  };
  int epfd = static_cast<int>(must(past ? syscall(SYS_epoll_create1, 0) : epoll_create1(0), "epoll_create1"));
  for (Half& half : *halves) {
    epoll_event e = {};
    e.events = EPOLLIN | EPOLLOUT;
    e.data.ptr = &half;
    must(control(epfd, EPOLL_CTL_ADD, half.fd, &e), "epoll_ctl");
  }
  std::vector<char> buffer(60000);
  for (size_t open = halves->size(); open > 0;) {
    epoll_event events[16];
    long n = past ? syscall(SYS_epoll_pwait, epfd, events, 16, 10000, nullptr, 8) : epoll_wait(epfd, events, 16, 10000);
    CHECK(n > 0, "nothing moved for ten seconds with %zu flows unfinished", open);
    for (long i = 0; i < n; i++) {
      Half& half = *static_cast<Half*>(events[i].data.ptr);
      if (events[i].events & EPOLLIN) {
        char* into = buffer.data();
        long got = past ? syscall(SYS_read, half.fd, into, buffer.size()) : recv(half.fd, into, buffer.size(), 0);
        CHECK(got > 0 || (got < 0 && errno == EAGAIN), "a receive gave %ld after %zu bytes", got, half.received);
        if (got > 0) {
          check_pattern(buffer.data(), static_cast<size_t>(got), half.flow + from_flow, half.received);
          half.received += static_cast<size_t>(got);
        }
      }
      if ((events[i].events & EPOLLOUT) && half.sent < bytes) {
        const char* data = pattern_at(half.flow + to_flow, half.sent);
        size_t part = std::min<size_t>(bytes - half.sent, 50000);
        long gave = past ? syscall(SYS_write, half.fd, data, part) : send(half.fd, data, part, 0);
        CHECK(gave > 0 || (gave < 0 && errno == EAGAIN), "a send gave %ld after %zu bytes", gave, half.sent);
        if (gave > 0) half.sent += static_cast<size_t>(gave);
        if (half.sent == bytes) {
          epoll_event only = {};
          only.events = EPOLLIN;
          only.data.ptr = &half;
          must(control(epfd, EPOLL_CTL_MOD, half.fd, &only), "epoll_ctl");
        }
      }
      if (half.sent == bytes && half.received == bytes) {
        must(control(epfd, EPOLL_CTL_DEL, half.fd, &events[i]), "epoll_ctl");
        half.sent++;  // is not counted again
        open--;
      }
    }
  }
}

void bulk_of(int send_buffer) {
  constexpr size_t kFlows = 24, kBytes = 3000000;
  std::vector<Half> near, far;
  for (size_t i = 0; i < kFlows; i++) {
    Pair p = tcp();
    if (send_buffer) set_option(p.near, SOL_SOCKET, SO_SNDBUF, send_buffer);
    set_nonblocking(p.near);
    must(syscall(SYS_fcntl, p.far, F_SETFL, O_NONBLOCK), "fcntl");
    near.push_back({p.near, i, 0, 0});
    far.push_back({p.far, i, 0, 0});
  }
  double start = now_ms();
  std::thread peer([&] { exchange(&far, kBytes, 0, 100, true); });
  exchange(&near, kBytes, 100, 0, false);
  peer.join();
  note("ms", now_ms() - start);
}
void bulk() { bulk_of(0); }
void bulk_small() { bulk_of(20000); }

// ---- cases: datagrams -------------------------------------------------------------------------------------------------

void udp_waits() {
  Pair p = udp();
  const int level = set_of(p.near, EPOLLIN);
  arrivals("poll", p, [&] { CHECK(polled(p.near, POLLIN, kPatienceMs) == POLLIN, "poll did not say POLLIN"); });
  arrivals("epoll", p, [&] { expect_event(level, EPOLLIN, "on arrival"); });
  expect_none(level, "once drained");
  const int edge = set_of(p.near, EPOLLIN | EPOLLET);
  std::thread peer([&] {
    for (int i = 0; i < 5; i++) {
      put_stamp(p.far);
      pause_ms(10);
    }
  });
  int reports = 0, taken = 0;
  while (taken < 5) {
    expect_event(edge, EPOLLIN, "for a datagram");
    reports++;
    double at;
    for (; recv(p.near, &at, sizeof(at), MSG_DONTWAIT) == sizeof(at); taken++) on_time("datagram", now_ms() - at, down_ms);
  }
  peer.join();
  CHECK(reports <= 5, "%d reports of 5 datagrams", reports);
  expect_none(edge, "once drained", 20);
}

void udp_sends() {
  Pair p = udp();
  double start = now_ms();
  for (int i = 0; i < 10; i++) {
    double at = now_ms();
    must(send(p.near, &at, sizeof(at), 0), "send");
  }
  must(close(p.near), "close");
  on_time("sending", now_ms() - start, 0);
  arrive_on_time("tenth", p.far, 8);
}

// Requests and answers under jitter and reordering, where the delays given are the least they may be: nothing is lost, nothing
// comes twice, and everything comes.
void udp_exchange() {
  constexpr int kRequests = 100;
  struct Message {
    int id;
    double at;
  };
  Pair p = udp();
  std::thread echo([&] {
    for (int i = 0; i < kRequests + 20; i++) {
      Message m;
      must(syscall(SYS_read, p.far, &m, sizeof(m)), "the peer's read");
      put(p.far, &m, sizeof(m));
    }
  });
  set_nonblocking(p.near);
  const int epfd = set_of(p.near, EPOLLIN | EPOLLET);
  std::vector<int> times(kRequests);
  int sent = 0, back = 0;
  double start = now_ms(), longest = 0;
  while (back < kRequests) {
    CHECK(now_ms() - start < 10000, "%d of %d answers came", back, kRequests);
    if (sent < kRequests) {
      Message m = {sent++, now_ms()};
      must(send(p.near, &m, sizeof(m), 0), "send");
    }
    if (event_of(epfd, sent < kRequests ? 2 : 3000) == 0) continue;
    for (Message m; recv(p.near, &m, sizeof(m), 0) == sizeof(m); back++) {
      CHECK(m.id >= 0 && m.id < kRequests && times[static_cast<size_t>(m.id)]++ == 0, "answer %d came twice", m.id);
      double took = now_ms() - m.at;
      longest = std::max(longest, took);
      CHECK(took >= up_ms + down_ms - kEarlyMs, "answer %d was early: %.2f ms", m.id, took);
    }
  }
  note("longest", longest);
  for (int i = 0; i < 20; i++) {  // one at a time, when nothing comes to overtake
    Message m = {1000 + i, now_ms()};
    must(send(p.near, &m, sizeof(m), 0), "send");
    Message answer = {};
    for (long n = -1; n < 0;) {  // readable and then nothing is what the kernel may do too, with datagrams
      CHECK(polled(p.near, POLLIN, 3000) == POLLIN, "lone request %d was not answered in three seconds", i);
      n = recv(p.near, &answer, sizeof(answer), 0);
      CHECK(n > 0 || errno == EAGAIN, "recv: %s", strerrorname_np(errno));
    }
    CHECK(answer.id == m.id, "answer %d came to request %d", answer.id, m.id);
  }
  echo.join();
}

// ---------------------------------------------------------------------------------------------------------------------

struct Case {
  const char* name;
  void (*run)();
};
const Case kCases[] = {
    {"poll_level", poll_level},
    {"poll_zero", poll_zero},
    {"timeouts", timeouts},
    {"select_many", select_many},
    {"mixed", mixed},
    {"signal_masks", signal_masks},
    {"epoll_level", epoll_level},
    {"epoll_edge", epoll_edge},
    {"epoll_oneshot", epoll_oneshot},
    {"epoll_exclusive", epoll_exclusive},
    {"epoll_nested", epoll_nested},
    {"epoll_dup", epoll_dup},
    {"epoll_fork", epoll_fork},
    {"epoll_close", epoll_close},
    {"epoll_threads", epoll_threads},
    {"one_loop", one_loop},
    {"no_spin", no_spin},
    {"receive_blocking", receive_blocking},
    {"receive_peek", receive_peek},
    {"receive_waitall", receive_waitall},
    {"receive_timeout", receive_timeout},
    {"receive_lowat", receive_lowat},
    {"receive_fionread", receive_fionread},
    {"receive_signal", receive_signal},
    {"receive_threads", receive_threads},
    {"receive_fork", receive_fork},
    {"end_after_data", end_after_data},
    {"reset_after_data", reset_after_data},
    {"connect_good", connect_good},
    {"connect_refused", connect_refused},
    {"accepting", accepting},
    {"send_pipelined", send_pipelined},
    {"send_close", send_close},
    {"send_exit", send_exit},
    {"send_killed", send_killed},
    {"send_exec", send_exec},
    {"send_orphan", send_orphan},
    {"send_fork", send_fork},
    {"send_whole", send_whole},
    {"send_pressure", send_pressure},
    {"send_file", send_file},
    {"send_cork", send_cork},
    {"send_stdio", send_stdio},
    {"bulk", bulk},
    {"bulk_small", bulk_small},
    {"udp_waits", udp_waits},
    {"udp_sends", udp_sends},
    {"udp_exchange", udp_exchange},
};

// Each of several cases has a process of its own.
int run_each(const std::string& names, char** argv) {
  int failures = 0;
  for (const Case& each : kCases) {
    if (names != "all" && (',' + names + ',').find(std::string(",") + each.name + ',') == std::string::npos) continue;
    pid_t child = forked();
    if (child == 0) {
      argv[1] = const_cast<char*>(each.name);
      execv("/proc/self/exe", argv);
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status == 0) continue;
    failures++;
    case_name = each.name;
    if (WIFSIGNALED(status)) conclude(false, WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status)));
  }
  return failures ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fputs("usage: readiness CASE[,CASE...] [DOWN_MS [UP_MS [server]]], with the cases\n", stderr);
    for (const Case& each : kCases) fprintf(stderr, "  %s\n", each.name);
    return 2;
  }
  down_ms = argc > 2 ? atof(argv[2]) : 0;
  up_ms = argc > 3 ? atof(argv[3]) : 0;
  serving = argc > 4 && strcmp(argv[4], "server") == 0;
  case_pid = getpid();
  signal(SIGPIPE, SIG_IGN);
  const std::string name = argv[1];
  if (name == "all" || name.find(',') != std::string::npos) return run_each(name, argv);
  for (const Case& each : kCases) {
    if (name != each.name) continue;
    case_name = each.name;
    alarm(kCaseSeconds);
    each.run();
    conclude(true, "");
    _exit(0);
  }
  fprintf(stderr, "there is no case %s\n", argv[1]);
  return 2;
}
