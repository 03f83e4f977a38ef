// Hooks for the life of descriptors: who owns which socket along socket, accept, dup, close and their kin, connect with its
// faults, and the socket options through which our time stamps would show.
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"

namespace mishap {
namespace {

u64 read_sysctl(const char* path, u64 otherwise) {
  char text[24];
  long fd = real.syscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return otherwise;
  long n = real.syscall(SYS_read, fd, reinterpret_cast<long>(text), sizeof(text) - 1, 0, 0, 0);
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  if (n <= 0) return otherwise;
  u64 value = 0;
  for (long i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++) value = value * 10 + static_cast<u64>(text[i] - '0');
  return value;
}

// A real connect that gives up at `deadline_ns` (0: when the kernel does), on a socket the program left blocking.
int connect_within(int fd, const sockaddr* to, socklen_t length, u64 deadline_ns) {
  if (deadline_ns == 0) return real.connect(fd, to, length);
  long status = real.syscall(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
  real.syscall(SYS_fcntl, fd, F_SETFL, status | O_NONBLOCK, 0, 0, 0);
  int result = real.connect(fd, to, length), error = result < 0 ? errno : 0;
  while (error == EINPROGRESS) {
    u64 now = now_ns();
    u64 left = deadline_ns > now ? deadline_ns - now : 0;
    timespec t = {static_cast<time_t>(left / 1000000000), static_cast<long>(left % 1000000000)};
    pollfd p = {fd, POLLOUT, 0};
    long n = left ? real.syscall(SYS_ppoll, reinterpret_cast<long>(&p), 1, reinterpret_cast<long>(&t), 0, 8, 0) : 0;
    if (n < 0) continue;  // a signal: connect on Linux goes on behind EINTR too
    if (n == 0) {
      sockaddr none = {};
      none.sa_family = AF_UNSPEC;
      real.connect(fd, &none, sizeof(none));  // takes the attempt back
      error = ETIMEDOUT;
      break;
    }
    socklen_t size = sizeof(error);
    real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  real.syscall(SYS_fcntl, fd, F_SETFL, status, 0, 0, 0);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int fail(engine::Call* call, const engine::Step& step, int error) {
  engine::commit(call, step, step.bytes);
  engine::finish(call);
  errno = error;
  return -1;
}

// The way back of a connect's answer, as the clock saw it.
void answered_in(const engine::Call& call, u64 measured_ns, u64 asked_ns) {
  record_time(self.segment, call.policy, Fault::Latency, Direction::Downlink, measured_ns, asked_ns);
}

// connect under a decision: the SYN's way, the real attempt, the answer's way, all within the limit.
int connect_decided(int fd, Socket* socket, const sockaddr* to, socklen_t length) {
  engine::Call call;
  int kept = errno;
  u64 start = now_ns();
  if (engine::begin(&call, self.segment, socket->flow, OpKind::Connect, Direction::Uplink, start) != engine::Begun::Ready)
    return real.connect(fd, to, length);
  call.syn_retries = 6;
  engine::Step step = engine::next_step(&call, 1);
  if (step.decision.part_ns[static_cast<u32>(engine::Part::Loss)] || (step.decision.outcome == Verdict::Timeout && step.decision.stage == Stage::ChaosBase)) {
    call.syn_retries = read_sysctl("/proc/sys/net/ipv4/tcp_syn_retries", 6);
    call.syn_linear = read_sysctl("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", 0);
    step = engine::next_step(&call, 1);
  }
  const engine::Decision& d = step.decision;
  if (d.untouched()) {
    int result = real.connect(fd, to, length);
    engine::commit(&call, step, 1);
    engine::finish(&call);
    return result;
  }
  u64 way = static_cast<u64>(d.delay_ns());
  u64 deadline = d.limit_ns ? start + d.limit_ns : 0;
  auto time_out = [&](Fault fault, u64 asked) {
    u64 end = wait_until(start + asked);
    engine::applied_wait(call, fault, end - start, asked);
    return fail(&call, step, ETIMEDOUT);
  };
  switch (d.outcome) {
    case Verdict::Error: {
      u64 end = wait_until(start + way + d.answer_ns);
      if (way) engine::delivered(call, d, (end - start) * way / (way + d.answer_ns));
      if (d.answer_ns) answered_in(call, (end - start) * d.answer_ns / (way + d.answer_ns), d.answer_ns);
      engine::applied(call, d.fault, 1);
      return fail(&call, step, errno_of(d.error));
    }
    case Verdict::Timeout:
      if (d.limit_ns && d.limit_ns < d.timeout_ns) {  // the program's patience ends first
        engine::applied(call, d.fault, 1);
        return time_out(Fault::ConnectTimeout, d.limit_ns);
      }
      return time_out(d.fault, d.timeout_ns);
    case Verdict::Drop: {  // every SYN is lost: the kernel's own schedule of retries passes, then it gives up
      u64 total = 0, each = 1000000000;
      u64 retries = read_sysctl("/proc/sys/net/ipv4/tcp_syn_retries", 6), linear = read_sysctl("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", 0);
      for (u64 i = 0; i <= retries; i++) {
        total += each;
        if (i >= linear) each *= 2;
      }
      if (d.limit_ns && d.limit_ns < total) total = d.limit_ns;
      return time_out(d.fault, total);
    }
    default: break;
  }
  bool nonblocking = is_nonblocking(fd, 0);
  if (d.limit_ns && way + d.answer_ns >= d.limit_ns) return time_out(Fault::ConnectTimeout, d.limit_ns);
  if (way) {
    u64 end = wait_until(start + way);
    engine::delivered(call, d, end - start);
  }
  if (nonblocking) {  // the answer's way cannot be waited for behind EINPROGRESS: it is waited for ahead of the attempt
    if (d.answer_ns) {
      u64 from = now_ns(), end = wait_until(from + d.answer_ns);
      answered_in(call, end - from, d.answer_ns);
    }
    int result = real.connect(fd, to, length);
    int kept = errno;
    engine::commit(&call, step, 1);
    engine::finish(&call);
    errno = kept;
    return result;
  }
  u64 attempt = now_ns();
  int result = connect_within(fd, to, length, deadline ? deadline - d.answer_ns : 0);
  int error = result < 0 ? errno : 0;
  u64 answered = now_ns();
  if (error == ETIMEDOUT && deadline) {
    u64 end = wait_until(deadline);
    engine::applied_wait(call, Fault::ConnectTimeout, end - start, d.limit_ns);
    return fail(&call, step, ETIMEDOUT);
  }
  store(&socket->flow->rtt_ns, answered - attempt);
  if (d.answer_ns) {
    u64 end = wait_until(answered + d.answer_ns);
    answered_in(call, end - answered, d.answer_ns);
  }
  engine::commit(&call, step, 1);
  engine::finish(&call);
  errno = error ? error : kept;
  return result;
}

template <class Accept>
int accepted(int listener, Accept accept_one) {
  int fd = accept_one();
  if (fd < 0 || !self.attached) return fd;
  int kept = errno;
  Guard guard;
  if (guard && getpid() == self.pid) {
    if (Socket* from = socket_of(listener)) {
      from->listening = true;
      note_socket(fd, from->family, from->stream ? SOCK_STREAM : SOCK_DGRAM);
      if (active()) open_accepted(fd, listener);
    } else {
      forget(fd);
    }
  }
  errno = kept;
  return fd;
}

// A descriptor is about to close: what is held on its socket leaves first, if no duplicate keeps it.
void let_go(int fd) {
  if (!self.held || static_cast<u32>(fd) >= kDescriptors || load(&kinds[fd]) != static_cast<u8>(Kind::Socket) || getpid() != self.pid) return;
  int kept = errno;
  Guard guard;
  Socket* socket = guard ? socket_of(fd) : nullptr;
  if (socket && load(&socket->refs) == 1) release_held(fd, socket, true);
  errno = kept;
}

void note_new(int fd, int family, int type) {
  if (fd < 0) return;
  int kept = errno;
  note_socket(fd, family, type);
  errno = kept;
}

}  // namespace

namespace slow {

int socket(int family, int type, int protocol) {
  int fd = real.socket(family, type, protocol);
  note_new(fd, family, type);
  return fd;
}

int socketpair(int family, int type, int protocol, int* pair) {
  int result = real.socketpair(family, type, protocol, pair);
  if (result == 0 && self.attached) {
    int kept = errno;
    note_socket(pair[0], family, type);
    note_socket(pair[1], family, type);
    if (is_foreign(pair[0]) || !active()) {
      errno = kept;
      return result;
    }
    // The first end plays the connecting one, the second is its peer in the project.
    sockaddr none = {};
    if (Socket* first = socket_of(pair[0])) open_connecting(pair[0], first, &none, 0);
    if (Socket* second = socket_of(pair[1])) {
      open_connecting(pair[1], second, &none, 0);
      if (second->flow) store(&second->flow->carried_by_peer, u8{1});
      second->generation = 0;
    }
    errno = kept;
  }
  return result;
}

int connect(int fd, const sockaddr* address, socklen_t length) {
  Guard guard;
  Socket* socket = guard && active() ? socket_of(fd) : nullptr;
  if (!socket || !address) return real.connect(fd, address, length);
  if (address->sa_family == AF_UNSPEC) {  // takes a connection back: what comes next is a new conversation
    int result = real.connect(fd, address, length);
    if (result == 0) socket->ended = true;
    return result;
  }
  int kept = errno;
  bool in_progress = socket->flow && socket->stream && load(&socket->flow->state) == static_cast<u8>(FlowState::Open) && !socket->ended;
  if (in_progress) {  // asking again after EINPROGRESS, or on a connected socket: no new conversation
    errno = kept;
    return real.connect(fd, address, length);
  }
  open_connecting(fd, socket, address, length);
  errno = kept;
  if (!socket->flow || socket->policy < 0 || !socket->stream || socket->resolver) {
    int result = real.connect(fd, address, length);
    if (result < 0 && errno != EINPROGRESS && socket->flow) socket->ended = true;
    return result;
  }
  if (engine::wants(self.segment, socket->policy).dated) stamp_arrivals(fd, socket);
  int result = connect_decided(fd, socket, address, length);
  if (result < 0 && errno != EINPROGRESS) socket->ended = true;  // over: a further connect is a new conversation
  return result;
}

int accept(int fd, sockaddr* address, socklen_t* length) {
  return accepted(fd, [&] { return real.accept(fd, address, length); });
}
int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return accepted(fd, [&] { return real.accept4(fd, address, length, flags); });
}

int close(int fd) {
  if (static_cast<u32>(fd) < kDescriptors && load(&kinds[fd]) != static_cast<u8>(Kind::Unknown)) {
    if (is_foreign(fd)) {
      kinds[fd] = static_cast<u8>(Kind::Unknown);
    } else {
      int kept = errno;
      let_go(fd);
      Guard guard;
      if (guard) forget(fd);
      errno = kept;
    }
  }
  return real.close(fd);
}

int close_range(unsigned first, unsigned last, int flags) {
  if (self.attached && !(flags & CLOSE_RANGE_CLOEXEC) && getpid() == self.pid) {
    int kept = errno;
    unsigned end = last < kDescriptors - 1 ? last : kDescriptors - 1;
    for (unsigned fd = first; fd <= end; fd++)
      if (load(&kinds[fd]) != static_cast<u8>(Kind::Unknown)) {
        let_go(static_cast<int>(fd));
        forget(static_cast<int>(fd));
      }
    errno = kept;
  }
  if (real.close_range) return real.close_range(first, last, flags);
  return static_cast<int>(real.syscall(SYS_close_range, first, last, flags, 0, 0, 0));
}

void closefrom(int first) {
  int kept = errno;
  slow::close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0u, 0);
  errno = kept;
}

int shutdown(int fd, int how) {
  Guard guard;
  Socket* socket = guard && self.held ? socket_of(fd) : nullptr;
  if (socket && how != SHUT_RD) release_held(fd, socket, true);
  return real.shutdown(fd, how);
}

int dup(int fd) {
  int copy = real.dup(fd);
  int kept = errno;
  if (copy >= 0) note_copy(fd, copy);
  errno = kept;
  return copy;
}
int dup2(int fd, int to) {
  if (fd != to) let_go(to);
  int copy = real.dup2(fd, to);
  int kept = errno;
  if (copy >= 0 && fd != to) note_copy(fd, copy);
  errno = kept;
  return copy;
}
int dup3(int fd, int to, int flags) {
  if (fd != to) let_go(to);
  int copy = real.dup3(fd, to, flags);
  int kept = errno;
  if (copy >= 0) note_copy(fd, copy);
  errno = kept;
  return copy;
}

int fcntl(int fd, int command, long argument) {
  long result = real.fcntl(fd, command, argument);
  if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) {
    int kept = errno;
    note_copy(fd, static_cast<int>(result));
    errno = kept;
  }
  return static_cast<int>(result);
}
int fcntl64(int fd, int command, long argument) { return slow::fcntl(fd, command, argument); }

// stdio on a socket reads and writes inside libc, past every hook: said in evidence, not silently missed.
FILE* fdopen(int fd, const char* mode) {
  Socket* socket = active() ? socket_of(fd) : nullptr;
  if (socket && socket->policy >= 0) count(Fallback::Unsupported);
  return real.fdopen(fd, mode);
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  bool stamps = level == SOL_SOCKET && (name == SO_TIMESTAMP || name == SO_TIMESTAMPNS || name == SO_TIMESTAMPING);
  Socket* socket = stamps && self.attached ? socket_of(fd) : nullptr;
  if (socket && length >= sizeof(int)) {
    int on;
    memcpy(&on, value, sizeof(on));
    socket->program_stamps = on != 0;
    if (!on && socket->flow && load(&socket->flow->dated)) return 0;  // it asks for what it already seems to have
    if (on && socket->flow) store(&socket->flow->dated, u8{0});       // its stamps are its own: no dating on this socket
  }
  return real.setsockopt(fd, level, name, value, length);
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  int result = real.getsockopt(fd, level, name, value, length);
  if (result == 0 && level == SOL_SOCKET && name == SO_TIMESTAMPNS && self.attached && *length >= sizeof(int)) {
    Socket* socket = socket_of(fd);
    if (socket && socket->flow && load(&socket->flow->dated)) memset(value, 0, sizeof(int));
  }
  return result;
}

}  // namespace slow
}  // namespace mishap
