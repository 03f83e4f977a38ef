// The readiness program's cases of bytes under way: receiving, connecting, sending, ending, many flows, datagrams.
#pragma once

#include "ends.h"

namespace {

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

}  // namespace
