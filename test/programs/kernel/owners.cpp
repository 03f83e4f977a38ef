// Whose a socket is, as the interceptor in this process reads it from the kernel's rows before the socket's first byte:
//
//   owners made THREADS SOCKETS        each thread makes so many sockets and looks each up at once
//   owners accepted THREADS SOCKETS    threads accept from one listener that the main thread made
//   owners inherited 1 SOCKETS         a child looks up what its parent made
//
// Answers {"rows":"interceptor","open":0,"sockets":100000,"known":100000,"right":100000}: `rows` whose mapping was read
// ("asked": without an interceptor, one of our own), `open` descriptors of the rows that were kept, `right` rows that name the
// process and the thread.
#include <netinet/in.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "rows.h"

namespace {

Rows rows;
std::atomic<long> sockets, known, right;

int own_tid() { return static_cast<int>(syscall(SYS_gettid)); }

void check(int fd, int pid, int tid) {
  mishap::KernelSocket row;
  sockets++;
  if (!row_of(rows, fd, &row)) return;
  known++;
  if (row.owner.pid == pid && row.owner.tid == tid && row.owner.process >> 32 == static_cast<mishap::u64>(pid)) right++;
}

void must(bool holds, const char* what) {
  if (holds) return;
  perror(what);
  exit(1);
}

int make(long turn) {
  const int fd = socket(turn & 2 ? AF_INET6 : AF_INET, turn & 1 ? SOCK_DGRAM : SOCK_STREAM, 0);
  must(fd >= 0, "socket");
  return fd;
}

template <typename Work>
void in_threads(long count, Work work) {
  std::vector<std::thread> threads;
  for (long i = 0; i < count; i++) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

void made(long threads, long each) {
  in_threads(threads, [each] {
    for (long i = 0; i < each; i++) {
      const int fd = make(i);
      check(fd, getpid(), own_tid());
      close(fd);
    }
  });
}

void accepted(long threads, long each) {
  sockaddr_in here = {};
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(here);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  must(bind(listener, reinterpret_cast<sockaddr*>(&here), length) == 0 && listen(listener, 128) == 0, "listen");
  must(getsockname(listener, reinterpret_cast<sockaddr*>(&here), &length) == 0, "getsockname");
  std::thread caller([&] {
    for (long i = 0; i < threads * each; i++) {
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      must(connect(fd, reinterpret_cast<const sockaddr*>(&here), sizeof(here)) == 0, "connect");
      char byte;
      must(read(fd, &byte, 1) >= 0, "read");  // until it was looked at
      close(fd);
    }
  });
  in_threads(threads, [&] {
    for (long i = 0; i < each; i++) {
      sockaddr_in peer;
      socklen_t room = sizeof(peer);
      const bool named = i & 1;  // whether accept is asked for the peer's name
      const int fd = accept(listener, named ? reinterpret_cast<sockaddr*>(&peer) : nullptr, named ? &room : nullptr);
      must(fd >= 0, "accept");
      check(fd, getpid(), own_tid());
      close(fd);
    }
  });
  caller.join();
}

void inherited(long each) {
  std::vector<int> fds;
  for (long i = 0; i < each; i++) fds.push_back(make(i));
  const int parent = getpid(), thread = own_tid();
  if (fork() != 0) {
    int status = 0;
    wait(&status);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
  }
  for (const int fd : fds) check(fd, parent, thread);
}

// The interceptor closes the rows' descriptor once it has mapped them.
int open_descriptors() {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) {
    char target[64] = {};
    if (readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof(target) - 1) > 0 && strstr(target, "bpf")) count++;
  }
  return count;
}

}  // namespace

int main(int count, char** values) {
  const std::string mode = count == 4 ? values[1] : "";
  const long threads = count == 4 ? atol(values[2]) : 0, each = count == 4 ? atol(values[3]) : 0;
  rows = mapped_rows();
  const char* whose = rows.first ? "interceptor" : "asked";
  if (!rows.first) rows = asked_for_rows();
  if (mode == "made") made(threads, each);
  else if (mode == "accepted") accepted(threads, each);
  else if (mode == "inherited") inherited(each);
  else return fputs("usage: owners made|accepted|inherited THREADS SOCKETS\n", stderr), 2;
  printf("{\"rows\":\"%s\",\"open\":%d,\"sockets\":%ld,\"known\":%ld,\"right\":%ld}\n", rows.first ? whose : "none", open_descriptors(), sockets.load(),
         known.load(), right.load());
  return 0;
}
