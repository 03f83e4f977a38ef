// The readiness program's cases of waiting: poll, select, epoll.
#pragma once

#include "ends.h"

namespace {

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

// A set inside another, and polled, is ready from outside no later than its event; an arrival that is not due may announce it once
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

}  // namespace
