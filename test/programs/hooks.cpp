// Drives every row of the interceptor's hook table once. The names come from the table itself, so a row without a driver
// does not compile. Each driver runs in a process of its own and says what the program saw (`result`, the same with and
// without faults unless the fault is an answer), how long it took until that was there (`ms`), how many one-way delays that
// must hold (`ways`), and how long a call took that must not wait for any of it (`call_ms`).
//
//   hooks PORT DNS_PORT [NAME...]    PORT: an echo server that also connects back when told "call PORT\n"
//   hooks --probe PORT               what exec and spawn start: connects, has something echoed, prints the milliseconds
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <resolv.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>

extern "C" {
ssize_t __read_chk(int, void*, size_t, size_t);
ssize_t __recv_chk(int, void*, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void*, size_t, size_t, int, sockaddr*, socklen_t*);
int __poll(pollfd*, nfds_t, int);
int __poll_chk(pollfd*, nfds_t, int, size_t);
int __ppoll_chk(pollfd*, nfds_t, const timespec*, const sigset_t*, size_t);
int __select(int, fd_set*, fd_set*, fd_set*, timeval*);
int __vdprintf_chk(int, int, const char*, va_list);
int __dprintf_chk(int, int, const char*, ...);
}

namespace {

constexpr int kUntouched = 4711;  // what errno is set to before a call that will succeed
int port, dns_port;
std::string self_path;

struct Driven {
  std::string result;
  double ms = 0;
  int ways = 0;
  double call_ms = 0;
};

double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

[[noreturn]] void give_up(const char* what) {
  fprintf(stderr, "hooks: %s: %s\n", what, strerror(errno));
  syscall(SYS_exit_group, 99);
  abort();
}
int checked(int result, const char* what) {
  if (result < 0) give_up(what);
  return result;
}

std::string said(const char* call, long value) {
  std::string errno_text = errno == kUntouched ? "" : std::string(" errno ") + strerrorname_np(errno);
  return std::string(call) + " " + std::to_string(value) + errno_text;
}

sockaddr_in loopback(int to) {
  sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<uint16_t>(to));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

// A connection to the echo server.
int connected() {
  int fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in to = loopback(port);
  checked(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), "connect");
  return fd;
}

// Past every hook: the echo of what was sent, or what an unfaulted peer would send.
void put_behind_the_hooks(int fd, const char* text) { checked(static_cast<int>(syscall(SYS_write, fd, text, strlen(text))), "write"); }
std::string take_behind_the_hooks(int fd, size_t size) {
  std::string got;
  while (got.size() < size) {
    char bytes[64];
    long n = syscall(SYS_read, fd, bytes, size - got.size());
    if (n <= 0) give_up("read");
    got.append(bytes, static_cast<size_t>(n));
  }
  return got;
}

template <class Call>
Driven sends(int fd, const char* name, Call call) {
  Driven d;
  errno = kUntouched;
  double start = now_ms();
  long n = call(fd);
  d.call_ms = now_ms() - start;
  d.result = said(name, n) + " echoed " + take_behind_the_hooks(fd, 4);
  d.ms = now_ms() - start;
  d.ways = 1;
  return d;
}
template <class Call>
Driven sends(const char* name, Call call) {
  return sends(connected(), name, call);
}

char buffer[64];
iovec whole() { return {buffer, sizeof(buffer)}; }

template <class Call>
Driven receives(const char* name, Call call) {
  int fd = connected();
  double start = now_ms();
  put_behind_the_hooks(fd, "ping");
  errno = kUntouched;
  long n = call(fd);
  Driven d = {said(name, n) + " " + std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0), now_ms() - start, 1};
  return d;
}

// A descriptor whose ownership was carried along: a send on it is delayed.
Driven still_faulted(int fd, std::string result) {
  Driven d = sends(fd, "send", [](int s) { return send(s, "ping", 4, 0); });
  d.result = result + ", " + d.result;
  return d;
}

// ---- life -------------------------------------------------------------------------------------------------------------

Driven drive_connect() {
  int fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in to = loopback(port);
  errno = kUntouched;
  double start = now_ms();
  int result = connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to));
  return {said("connect", result), now_ms() - start, 2};
}
Driven drive_socket() {
  errno = kUntouched;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string result = said("socket", fd >= 0);
  sockaddr_in to = loopback(port);
  double start = now_ms();
  checked(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), "connect");
  return {result, now_ms() - start, 2};
}
Driven drive_socketpair() {
  int pair[2];
  errno = kUntouched;
  std::string result = said("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  double start = now_ms();
  long n = send(pair[0], "ping", 4, 0);
  double call_ms = now_ms() - start;
  result += said(" send", n) + " " + take_behind_the_hooks(pair[1], 4);
  return {result, now_ms() - start, 1, call_ms};
}

Driven drive_listen() {
  int listener = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in at = loopback(0);
  checked(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof(at)), "bind");
  errno = kUntouched;
  std::string result = said("listen", listen(listener, 1));
  socklen_t length = sizeof(at);
  checked(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &length), "getsockname");
  int caller = connected();
  put_behind_the_hooks(caller, ("call " + std::to_string(ntohs(at.sin_port)) + "\n").c_str());
  return still_faulted(checked(accept(listener, nullptr, nullptr), "accept"), result);
}

// The server outside connects to us and sends a greeting; ours is the faulted end.
template <class Accept>
Driven accepts(const char* name, Accept accept_one) {
  int listener = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
  sockaddr_in at = loopback(0);
  checked(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof(at)), "bind");
  checked(listen(listener, 1), "listen");
  socklen_t length = sizeof(at);
  checked(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &length), "getsockname");
  int caller = connected();
  put_behind_the_hooks(caller, ("call " + std::to_string(ntohs(at.sin_port)) + "\n").c_str());
  errno = kUntouched;
  length = sizeof(at);
  int fd = accept_one(listener, reinterpret_cast<sockaddr*>(&at), &length);
  std::string result = said(name, fd >= 0) + " from " + inet_ntoa(at.sin_addr);
  return still_faulted(fd, result);
}
Driven drive_accept() {
  return accepts("accept", [](int fd, sockaddr* from, socklen_t* length) { return accept(fd, from, length); });
}
Driven drive_accept4() {
  return accepts("accept4", [](int fd, sockaddr* from, socklen_t* length) { return accept4(fd, from, length, SOCK_CLOEXEC); });
}

// A duplicate outlives the descriptor that is closed, and stays faulted.
template <class Close>
Driven closes(const char* name, Close close_it) {
  int fd = connected(), kept = checked(dup(fd), "dup");
  int low = 40;  // below what closefrom and close_range are given, above all else
  checked(dup2(kept, low), "dup2");
  int high = checked(fcntl(fd, F_DUPFD, 50), "F_DUPFD");
  errno = kUntouched;
  std::string result = said(name, close_it(high));
  bool gone = syscall(SYS_fcntl, high, F_GETFD) < 0;
  return still_faulted(low, result + (gone ? ", gone" : ", still open"));
}
Driven drive_close() {
  return closes("close", [](int fd) { return close(fd); });
}
Driven drive_close_range() {
  return closes("close_range", [](int fd) { return close_range(static_cast<unsigned>(fd), ~0u, 0); });
}
Driven drive_closefrom() {
  return closes("closefrom", [](int fd) {
    closefrom(fd);
    errno = kUntouched;  // it walks until nothing is left, as its own business
    return 0;
  });
}
Driven drive_shutdown() {
  int fd = connected();
  double start = now_ms();
  put_behind_the_hooks(fd, "ping");
  errno = kUntouched;
  double call = now_ms();
  std::string result = said("shutdown", shutdown(fd, SHUT_WR)), got;
  double call_ms = now_ms() - call;
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) got.append(buffer, static_cast<size_t>(n));
  return {result + ", then " + got + " and the end", now_ms() - start, 2, call_ms};  // our end goes out, theirs comes back
}
Driven drive_dup() {
  int fd = connected();
  errno = kUntouched;
  int copy = dup(fd);
  return still_faulted(copy, said("dup", copy >= 0));
}
Driven drive_dup2() {
  int fd = connected();
  errno = kUntouched;
  int copy = dup2(fd, 40);
  return still_faulted(copy, said("dup2", copy));
}
Driven drive_dup3() {
  int fd = connected();
  errno = kUntouched;
  int copy = dup3(fd, 40, O_CLOEXEC);
  return still_faulted(copy, said("dup3", copy));
}
Driven drive_fcntl() {
  int fd = connected();
  errno = kUntouched;
  int copy = fcntl(fd, F_DUPFD, 40);
  return still_faulted(copy, said("F_DUPFD", copy));
}
Driven drive_fcntl64() {
  int fd = connected();
  errno = kUntouched;
  int copy = fcntl64(fd, F_DUPFD_CLOEXEC, 40);
  return still_faulted(copy, said("F_DUPFD_CLOEXEC", copy));
}
// The stamps that date arrivals do not show: neither in the option nor in what is received.
Driven drive_setsockopt() {
  return receives("recvmsg", [](int fd) {
    int off = 0;
    char control[256];
    iovec part = whole();
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof(off))) give_up("setsockopt");
    long n = recvmsg(fd, &message, 0);
    return message.msg_controllen ? -static_cast<long>(message.msg_controllen) : n;
  });
}
Driven drive_getsockopt() {
  return receives("recv", [](int fd) {
    int on = 1;
    socklen_t length = sizeof(on);
    long n = recv(fd, buffer, sizeof(buffer), 0);
    if (getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, &length)) give_up("getsockopt");
    return on ? -1 : n;
  });
}

// ---- uplink -----------------------------------------------------------------------------------------------------------

iovec two_parts[2] = {{const_cast<char*>("pi"), 2}, {const_cast<char*>("ng"), 2}};

int file_with_ping() {
  char path[] = "/tmp/mishap-hooks-XXXXXX";
  int fd = checked(mkstemp(path), "mkstemp");
  unlink(path);
  put_behind_the_hooks(fd, "ping");
  lseek(fd, 0, SEEK_SET);
  return fd;
}

Driven drive_send() {
  return sends("send", [](int fd) { return send(fd, "ping", 4, 0); });
}
Driven drive_sendto() {
  return sends("sendto", [](int fd) { return sendto(fd, "ping", 4, 0, nullptr, 0); });
}
Driven drive_sendmsg() {
  return sends("sendmsg", [](int fd) {
    msghdr message = {};
    message.msg_iov = two_parts;
    message.msg_iovlen = 2;
    return sendmsg(fd, &message, 0);
  });
}
Driven drive_sendmmsg() {
  return sends("sendmmsg", [](int fd) {
    mmsghdr messages[2] = {};
    for (int i = 0; i < 2; i++) {
      messages[i].msg_hdr.msg_iov = &two_parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    int n = sendmmsg(fd, messages, 2, 0);
    return n == 2 && messages[0].msg_len == 2 && messages[1].msg_len == 2 ? n : -1;
  });
}
Driven drive_write() {
  return sends("write", [](int fd) { return write(fd, "ping", 4); });
}
Driven drive_writev() {
  return sends("writev", [](int fd) { return writev(fd, two_parts, 2); });
}
Driven drive_pwritev2() {
  return sends("pwritev2", [](int fd) { return pwritev2(fd, two_parts, 2, -1, 0); });
}
Driven drive_pwritev64v2() {
  return sends("pwritev64v2", [](int fd) { return pwritev64v2(fd, two_parts, 2, -1, 0); });
}
Driven drive_sendfile() {
  return sends("sendfile", [](int fd) { return sendfile(fd, file_with_ping(), nullptr, 100); });
}
Driven drive_sendfile64() {
  return sends("sendfile64", [](int fd) {
    off64_t offset = 0;
    ssize_t n = sendfile64(fd, file_with_ping(), &offset, 100);
    return offset == n ? n : -1;
  });
}
Driven drive_splice() {
  return sends("splice", [](int fd) {
    int ends[2];
    checked(pipe(ends), "pipe");
    put_behind_the_hooks(ends[1], "ping");
    return splice(ends[0], nullptr, fd, nullptr, 100, 0);
  });
}

// ---- downlink ---------------------------------------------------------------------------------------------------------

Driven drive_recv() {
  return receives("recv", [](int fd) { return recv(fd, buffer, sizeof(buffer), 0); });
}
Driven drive_recvfrom() {
  return receives("recvfrom", [](int fd) { return recvfrom(fd, buffer, sizeof(buffer), 0, nullptr, nullptr); });
}
Driven drive_recvmsg() {
  return receives("recvmsg", [](int fd) {
    iovec part = whole();
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return recvmsg(fd, &message, 0);
  });
}
Driven drive_recvmmsg() {
  return receives("recvmmsg", [](int fd) {
    iovec part = whole();
    mmsghdr messages[2] = {};
    messages[0].msg_hdr.msg_iov = &part;
    messages[0].msg_hdr.msg_iovlen = 1;
    messages[1].msg_hdr.msg_iov = &part;
    messages[1].msg_hdr.msg_iovlen = 1;
    int n = recvmmsg(fd, messages, 2, MSG_WAITFORONE, nullptr);
    return n == 1 ? static_cast<long>(messages[0].msg_len) : -1;
  });
}
Driven drive_read() {
  return receives("read", [](int fd) { return read(fd, buffer, sizeof(buffer)); });
}
Driven drive_readv() {
  return receives("readv", [](int fd) {
    iovec part = whole();
    return readv(fd, &part, 1);
  });
}
Driven drive_preadv2() {
  return receives("preadv2", [](int fd) {
    iovec part = whole();
    return preadv2(fd, &part, 1, -1, 0);
  });
}
Driven drive_preadv64v2() {
  return receives("preadv64v2", [](int fd) {
    iovec part = whole();
    return preadv64v2(fd, &part, 1, -1, 0);
  });
}
Driven drive___read_chk() {
  return receives("__read_chk", [](int fd) { return __read_chk(fd, buffer, sizeof(buffer), sizeof(buffer)); });
}
Driven drive___recv_chk() {
  return receives("__recv_chk", [](int fd) { return __recv_chk(fd, buffer, sizeof(buffer), sizeof(buffer), 0); });
}
Driven drive___recvfrom_chk() {
  return receives("__recvfrom_chk", [](int fd) {
    return __recvfrom_chk(fd, buffer, sizeof(buffer), sizeof(buffer), 0, nullptr, nullptr);
  });
}

// ---- readiness --------------------------------------------------------------------------------------------------------

// Waits until what is withheld may be received, and finds it there without waiting again.
template <class Wait>
Driven waits(const char* name, Wait wait) {
  return receives(name, [&](int fd) {
    int ready = wait(fd);
    return ready == 1 && recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) == 4 ? 4L : -1L;
  });
}

constexpr int kPatienceMs = 5000;
timespec patience() { return {kPatienceMs / 1000, 0}; }

template <class Poll>
Driven polls(const char* name, Poll poll_it) {
  return waits(name, [&](int fd) {
    pollfd p = {fd, POLLIN, 0};
    int n = poll_it(&p);
    return p.revents == POLLIN ? n : -1;
  });
}
Driven drive_poll() {
  return polls("poll", [](pollfd* p) { return poll(p, 1, kPatienceMs); });
}
Driven drive___poll() {
  return polls("__poll", [](pollfd* p) { return __poll(p, 1, kPatienceMs); });
}
Driven drive_ppoll() {
  return polls("ppoll", [](pollfd* p) {
    timespec t = patience();
    return ppoll(p, 1, &t, nullptr);
  });
}
Driven drive___poll_chk() {
  return polls("__poll_chk", [](pollfd* p) { return __poll_chk(p, 1, kPatienceMs, sizeof(*p)); });
}
Driven drive___ppoll_chk() {
  return polls("__ppoll_chk", [](pollfd* p) {
    timespec t = patience();
    return __ppoll_chk(p, 1, &t, nullptr, sizeof(*p));
  });
}

template <class Select>
Driven selects(const char* name, Select select_it) {
  return waits(name, [&](int fd) {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    int n = select_it(fd + 1, &readable);
    return FD_ISSET(fd, &readable) ? n : -1;
  });
}
Driven drive_select() {
  return selects("select", [](int count, fd_set* readable) {
    timeval t = {kPatienceMs / 1000, 0};
    return select(count, readable, nullptr, nullptr, &t);
  });
}
Driven drive___select() {
  return selects("__select", [](int count, fd_set* readable) {
    timeval t = {kPatienceMs / 1000, 0};
    return __select(count, readable, nullptr, nullptr, &t);
  });
}
Driven drive_pselect() {
  return selects("pselect", [](int count, fd_set* readable) {
    timespec t = patience();
    return pselect(count, readable, nullptr, nullptr, &t, nullptr);
  });
}

template <class Wait>
Driven epolls(const char* name, Wait wait) {
  return waits(name, [&](int fd) {
    int set = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    epoll_event event = {EPOLLIN, {.u64 = 0x1234567812345678}};
    checked(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    event = {};
    int n = wait(set, &event);
    return event.events == EPOLLIN && event.data.u64 == 0x1234567812345678 ? n : -1;
  });
}
// Every operation: taken out, the descriptor tells nothing; put back, it waits for nothing until told to.
Driven drive_epoll_ctl() {
  return waits("epoll_ctl", [](int fd) {
    int set = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    epoll_event event = {EPOLLIN, {.fd = fd}}, got;
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) || epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr)) return -1;
    if (epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr) == 0 || errno != ENOENT) return -2;
    event.events = 0;
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) || epoll_wait(set, &got, 1, 0) != 0) return -3;
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 || errno != EEXIST) return -4;
    event.events = EPOLLIN | EPOLLONESHOT;
    if (epoll_ctl(set, EPOLL_CTL_MOD, fd, &event)) return -5;
    errno = kUntouched;
    int n = epoll_wait(set, &got, 1, kPatienceMs);
    return epoll_wait(set, &got, 1, 0) == 0 ? n : -6;
  });
}
Driven drive_epoll_wait() {
  return epolls("epoll_wait", [](int set, epoll_event* event) { return epoll_wait(set, event, 1, kPatienceMs); });
}
Driven drive_epoll_pwait() {
  return epolls("epoll_pwait", [](int set, epoll_event* event) { return epoll_pwait(set, event, 1, kPatienceMs, nullptr); });
}
Driven drive_epoll_pwait2() {
  return epolls("epoll_pwait2", [](int set, epoll_event* event) {
    timespec t = patience();
    return epoll_pwait2(set, event, 1, &t, nullptr);
  });
}
// FIONREAD counts what may be received now.
// Descriptors of the interceptor's own lie high; a program that looks for open ones finds none.
template <class Look>
Driven finds_none(const char* name, Look look) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) give_up("getrlimit");
  int fd = connected(), open = 0;
  for (int at = static_cast<int>(limit.rlim_cur) - 256; at < static_cast<int>(limit.rlim_cur); at++) open += look(at) == 0;
  errno = kUntouched;
  return still_faulted(fd, said(name, open));
}
Driven drive_fstat() {
  return finds_none("fstat", [](int fd) {
    struct stat about;
    return fstat(fd, &about);
  });
}
Driven drive_fstat64() {
  return finds_none("fstat64", [](int fd) {
    struct stat64 about;
    return fstat64(fd, &about);
  });
}

Driven drive_ioctl() {
  return waits("FIONREAD", [](int fd) {
    pollfd arrives = {fd, POLLIN, 0};
    syscall(SYS_poll, &arrives, 1, kPatienceMs);
    int queued = 0;
    for (double end = now_ms() + kPatienceMs; queued == 0 && now_ms() < end; usleep(500))
      if (ioctl(fd, FIONREAD, &queued)) return -1;
    return queued == 4 ? 1 : -1;
  });
}

// ---- stdio ------------------------------------------------------------------------------------------------------------

// Out by the stream, and the echo back by it.
Driven drive_fdopen() {
  int fd = connected();
  double start = now_ms();
  errno = kUntouched;
  FILE* file = fdopen(fd, "r+");
  std::string result = said("fdopen", file != nullptr);
  if (!file) return {result, 0, 2};
  result += ", fileno " + std::to_string(fileno(file) == fd) + ", " + said("fputs", fputs("by stdio", file)) + said(" fflush", fflush(file));
  double call_ms = now_ms() - start;
  size_t n = fread(buffer, 1, 8, file);
  result += " echoed " + std::string(buffer, n);
  double ms = now_ms() - start;
  return {result + said(" fclose", fclose(file)), ms, 2, call_ms};
}

template <class Print>
Driven prints(const char* name, Print print) {
  return sends(name, [&](int fd) { return print(fd, "p%cn%s", 'i', "g"); });
}
Driven drive_vdprintf() {
  return prints("vdprintf", [](int fd, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vdprintf(fd, format, arguments);
    va_end(arguments);
    return n;
  });
}
Driven drive___vdprintf_chk() {
  return prints("__vdprintf_chk", [](int fd, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = __vdprintf_chk(fd, 1, format, arguments);
    va_end(arguments);
    return n;
  });
}
Driven drive_dprintf() {
  return sends("dprintf", [](int fd) { return dprintf(fd, "p%cn%s", 'i', "g"); });
}
Driven drive___dprintf_chk() {
  return sends("__dprintf_chk", [](int fd) { return __dprintf_chk(fd, 1, "p%cn%s", 'i', "g"); });
}

// ---- names ------------------------------------------------------------------------------------------------------------

constexpr char kHost[] = "localhost";
in_addr kAddress = {htonl(INADDR_LOOPBACK)};

Driven named(const hostent* entry) {
  if (!entry) return {h_errno == HOST_NOT_FOUND ? "not found" : "failed", 0, 0};
  return {std::string("found ") + entry->h_name, 0, 0};
}
Driven drive_getaddrinfo() {
  addrinfo* list = nullptr;
  addrinfo hints = {};
  hints.ai_family = AF_INET;
  int status = getaddrinfo(kHost, "80", &hints, &list);
  if (status) return {status == EAI_NONAME ? "not found" : gai_strerror(status), 0, 0};
  return {std::string("found ") + inet_ntoa(reinterpret_cast<sockaddr_in*>(list->ai_addr)->sin_addr), 0, 0};
}
Driven drive_gethostbyname() { return named(gethostbyname(kHost)); }
Driven drive_gethostbyname2() { return named(gethostbyname2(kHost, AF_INET)); }
Driven drive_gethostbyaddr() { return named(gethostbyaddr(&kAddress, sizeof(kAddress), AF_INET)); }

template <class LookUp>
Driven named_r(LookUp look_up) {
  hostent entry, *found = nullptr;
  char space[1024];
  int error = 0;
  int status = look_up(&entry, space, sizeof(space), &found, &error);
  h_errno = error;
  if (status) return {"status " + std::to_string(status), 0, 0};
  return named(found);
}
Driven drive_gethostbyname_r() {
  return named_r([](hostent* e, char* b, size_t n, hostent** r, int* h) { return gethostbyname_r(kHost, e, b, n, r, h); });
}
Driven drive_gethostbyname2_r() {
  return named_r([](hostent* e, char* b, size_t n, hostent** r, int* h) { return gethostbyname2_r(kHost, AF_INET, e, b, n, r, h); });
}
Driven drive_gethostbyaddr_r() {
  return named_r([](hostent* e, char* b, size_t n, hostent** r, int* h) {
    return gethostbyaddr_r(&kAddress, sizeof(kAddress), AF_INET, e, b, n, r, h);
  });
}

void use_test_server(res_state state) {
  state->nscount = 1;
  state->nsaddr_list[0] = loopback(dns_port);
  state->retrans = 2;
  state->retry = 1;
}
template <class Query>
Driven asked(const char* name, Query plain) {
  if (res_init() != 0) give_up("res_init");
  use_test_server(&_res);
  unsigned char answer[512];
  void* found = dlsym(RTLD_DEFAULT, name);  // the old names have no declaration, and not every libc has them
  Query query = found ? reinterpret_cast<Query>(found) : plain;
  int n = query("name.test", ns_c_in, ns_t_a, answer, sizeof(answer));
  if (n < 0) return {h_errno == HOST_NOT_FOUND ? "not found" : "failed", 0, 0};
  return {"found an answer of " + std::to_string(n), 0, 0};
}
template <class Query>
Driven asked_of(const char* name, Query plain) {
  struct __res_state state = {};
  if (res_ninit(&state) != 0) give_up("res_ninit");
  use_test_server(&state);
  unsigned char answer[512];
  void* found = dlsym(RTLD_DEFAULT, name);
  Query query = found ? reinterpret_cast<Query>(found) : plain;
  int n = query(&state, "name.test", ns_c_in, ns_t_a, answer, sizeof(answer));
  if (n < 0) return {h_errno == HOST_NOT_FOUND ? "not found" : "failed", 0, 0};
  return {"found an answer of " + std::to_string(n), 0, 0};
}
#undef res_query
#undef res_search
#undef res_nquery
#undef res_nsearch
Driven drive_res_query() { return asked("res_query", &::res_query); }
Driven drive_res_search() { return asked("res_search", &::res_search); }
Driven drive_res_nquery() { return asked_of("res_nquery", &::res_nquery); }
Driven drive_res_nsearch() { return asked_of("res_nsearch", &::res_nsearch); }
Driven drive___res_query() { return asked("__res_query", &::res_query); }
Driven drive___res_search() { return asked("__res_search", &::res_search); }
Driven drive___res_nquery() { return asked_of("__res_nquery", &::res_nquery); }
Driven drive___res_nsearch() { return asked_of("__res_nsearch", &::res_nsearch); }

// ---- processes and threads --------------------------------------------------------------------------------------------

std::string port_text() { return std::to_string(port); }

// What a child with no environment of its own measures: its connect, and its send's way.
Driven probe() {
  double start = now_ms();
  int fd = connected();
  long n = send(fd, "ping", 4, 0);
  std::string result = "sent " + std::to_string(n) + " echoed " + take_behind_the_hooks(fd, 4);
  return {result, now_ms() - start, 3};
}

Driven of_child(int status_fd, pid_t child) {
  std::string text;
  char bytes[256];
  for (long n; (n = syscall(SYS_read, status_fd, bytes, sizeof(bytes))) > 0;) text.append(bytes, static_cast<size_t>(n));
  int status = 0;
  waitpid(child, &status, 0);
  double ms = 0;
  int ways = 0, eaten = 0;
  if (sscanf(text.c_str(), "%lf %d %n", &ms, &ways, &eaten) != 2) return {"the child said nothing", 0, 1};
  return {text.substr(static_cast<size_t>(eaten)) + " exit " + std::to_string(WEXITSTATUS(status)), ms, ways};
}

template <class Exec>
Driven executes(Exec exec) {
  int ends[2];
  checked(pipe(ends), "pipe");
  pid_t child = checked(fork(), "fork");
  if (child == 0) {
    dup2(ends[1], 1);
    close(ends[0]);
    close(ends[1]);
    std::string given = port_text();
    char* argv[] = {self_path.data(), const_cast<char*>("--probe"), given.data(), nullptr};
    exec(argv);
    give_up("exec");
  }
  close(ends[1]);
  return of_child(ends[0], child);
}
char* empty_environment[] = {nullptr};

Driven drive_execve() {
  return executes([](char** argv) { execve(argv[0], argv, empty_environment); });
}
Driven drive_execv() {
  return executes([](char** argv) { clearenv(), execv(argv[0], argv); });
}
Driven drive_execvp() {
  return executes([](char** argv) { clearenv(), execvp(argv[0], argv); });
}
Driven drive_execvpe() {
  return executes([](char** argv) { execvpe(argv[0], argv, empty_environment); });
}
Driven drive_fexecve() {
  return executes([](char** argv) { fexecve(open(argv[0], O_RDONLY), argv, empty_environment); });
}
Driven drive_execveat() {
  return executes([](char** argv) { execveat(AT_FDCWD, argv[0], argv, empty_environment, 0); });
}
Driven drive_execl() {
  return executes([](char** argv) { clearenv(), execl(argv[0], argv[0], argv[1], argv[2], nullptr); });
}
Driven drive_execlp() {
  return executes([](char** argv) { clearenv(), execlp(argv[0], argv[0], argv[1], argv[2], nullptr); });
}
Driven drive_execle() {
  return executes([](char** argv) { execle(argv[0], argv[0], argv[1], argv[2], nullptr, empty_environment); });
}

template <class Spawn>
Driven spawns(Spawn spawn) {
  int ends[2];
  checked(pipe(ends), "pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::string given = port_text();
  char* argv[] = {self_path.data(), const_cast<char*>("--probe"), given.data(), nullptr};
  pid_t child = 0;
  if (int error = spawn(&child, &actions, argv)) return {strerror(error), 0, 1};
  close(ends[1]);
  return of_child(ends[0], child);
}
Driven drive_posix_spawn() {
  return spawns([](pid_t* child, posix_spawn_file_actions_t* actions, char** argv) {
    return posix_spawn(child, argv[0], actions, nullptr, argv, empty_environment);
  });
}
Driven drive_posix_spawnp() {
  return spawns([](pid_t* child, posix_spawn_file_actions_t* actions, char** argv) {
    return posix_spawnp(child, argv[0], actions, nullptr, argv, empty_environment);
  });
}

Driven drive_pthread_create() {
  static Driven d;
  pthread_t thread;
  auto run = [](void* given) -> void* {
    d = probe();
    return given;
  };
  if (pthread_create(&thread, nullptr, run, &d)) give_up("pthread_create");
  void* returned = nullptr;
  pthread_join(thread, &returned);
  d.result += returned == &d ? ", joined" : ", lost";
  return d;
}

template <class Exit>
Driven exits(Exit exit_with) {
  pid_t child = checked(fork(), "fork");
  if (child == 0) {
    connected();
    exit_with(7);
  }
  double start = now_ms();
  int status = 0;
  waitpid(child, &status, 0);
  return {"exit " + std::to_string(WEXITSTATUS(status)), now_ms() - start, 2};
}
Driven drive__exit() {
  return exits([](int status) { _exit(status); });
}
Driven drive__Exit() {
  return exits([](int status) { _Exit(status); });
}
// io_uring would carry I/O past the hooks: it is refused where faults are in force, and only there. 0 entries is EINVAL
// to a kernel that has it and lets us use it.
Driven drive_syscall() {
  long result = syscall(SYS_io_uring_setup, 0, nullptr);
  std::string setup = result < 0 && errno == ENOSYS ? "refused" : "left to the kernel";
  bool others = syscall(SYS_getppid) == getppid();
  return {setup + (others ? "" : ", and other calls are broken"), 0, 0};
}

// ---- the table --------------------------------------------------------------------------------------------------------

struct Row {
  const char* name;
  Driven (*drive)();
};
constexpr Row kRows[] = {
#define FD(result, name, params, args) {#name, drive_##name},
#define ALL(result, name, params, args) {#name, drive_##name},
#include "../../native/interceptor/hooks.def"
#undef FD
#undef ALL
    // Entry points that the table cannot describe: variable arguments.
    {"execl", drive_execl},
    {"execlp", drive_execlp},
    {"execle", drive_execle},
    {"dprintf", drive_dprintf},
    {"__dprintf_chk", drive___dprintf_chk},
    {"syscall", drive_syscall},
};

// A process of its own for each: what it closes, executes or binds is gone with it.
void drive(const Row& row) {
  fflush(stdout);
  pid_t child = checked(fork(), "fork");
  if (child == 0) {
    Driven d = row.drive();
    dprintf(1, "{\"name\":\"%s\",\"result\":\"%s\",\"ms\":%.3f,\"ways\":%d,\"call_ms\":%.3f}\n", row.name, d.result.c_str(), d.ms,
            d.ways, d.call_ms);
    syscall(SYS_exit_group, 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status)
    dprintf(1, "{\"name\":\"%s\",\"result\":\"the driver ended with status %d\",\"ms\":0,\"ways\":-1,\"call_ms\":0}\n", row.name, status);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && !strcmp(argv[1], "--probe")) {
    port = atoi(argv[2]);
    Driven d = probe();
    printf("%f %d %s", d.ms, d.ways, d.result.c_str());
    return 0;
  }
  if (argc < 3) return 2;
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
  self_path.assign(path, n > 0 ? static_cast<size_t>(n) : 0);
  port = atoi(argv[1]);
  dns_port = atoi(argv[2]);
  for (const Row& row : kRows) {
    bool wanted = argc == 3;
    for (int i = 3; i < argc; i++) wanted |= !strcmp(argv[i], row.name);
    if (wanted) drive(row);
  }
}
