// connect and its faults: the SYN's way, the real attempt, the answer's way, and what may end it instead. A program that blocks
// waits here for all of it; one that does not gets EINPROGRESS at once, the attempt is put on the line, and readiness and
// SO_ERROR tell what came of it when that is due.
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

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

// How long the kernel sends SYNs before it gives up.
u64 syn_patience_ns() {
  const u64 retries = read_sysctl("/proc/sys/net/ipv4/tcp_syn_retries", 6), linear = read_sysctl("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", 0);
  return engine::syn_patience_ns(retries, linear);
}

// Lets a connect that does not block go its way. False: it cannot be put on the line.
bool begin_connecting(int fd, Socket* socket, const sockaddr* to, socklen_t length, engine::Call* call, const engine::Step& step) {
  const engine::Decision& d = step.decision;
  const u64 now = call->now_ns, way = static_cast<u64>(d.delay_ns());
  Connecting next = {};
  next.under_way = true;
  next.since_ns = now;
  next.leaves_ns = now + way;
  next.answer_ns = d.answer_ns;
  next.limit_ns = d.limit_ns;
  next.fault = d.fault;
  u64 fails_in = 0;
  if (d.outcome == Verdict::Error) {
    next.error = errno_of(d.error);
    fails_in = way + d.answer_ns;
  } else if (d.outcome != Verdict::Continue) {
    next.error = ETIMEDOUT;
    fails_in = d.outcome == Verdict::Timeout ? d.timeout_ns : syn_patience_ns();
  }
  if (d.limit_ns && (next.error ? fails_in > d.limit_ns : way + d.answer_ns >= d.limit_ns)) {
    next.error = ETIMEDOUT;
    next.fault = Fault::ConnectTimeout;
    fails_in = d.limit_ns;
  }
  if (next.error) next.due_ns = now + fails_in;
  else if (way < kShortestNs) {
    if (real.connect(fd, to, length) != 0 && errno != EINPROGRESS) {
      next.error = errno;
      next.fault = Fault::Latency;
      next.due_ns = now + d.answer_ns;
    }
  } else if (!connect_on_line(fd, socket, to, length, d, now)) {
    return false;
  }
  if (!socket->linked) begin_link(fd, socket);
  socket->connecting = next;
  add(&socket->refused, 1u);  // writable comes as an edge
  return true;
}

// connect under a decision: the SYN's way, the real attempt, the answer's way, all within the limit.
int connect_decided(int fd, Socket* socket, const sockaddr* to, socklen_t length) {
  engine::Call call;
  int kept = errno;
  if (self.scripted) ask_about_op(socket, OpKind::Connect, Direction::Uplink, 0, 1);
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
  const bool fails_here = d.outcome == Verdict::Continue && socket->family != AF_UNIX && no_way_to(fd, socket->family, to, length);
  if (d.untouched() || fails_here) {
    int result = real.connect(fd, to, length);
    int error = errno;
    engine::commit(&call, step, 1);
    engine::finish(&call);
    errno = error;
    return result;
  }
  u64 way = static_cast<u64>(d.delay_ns());
  u64 deadline = d.limit_ns ? start + d.limit_ns : 0;
  auto time_out = [&](Fault fault, u64 asked) {
    u64 end = wait_until(start + asked);
    engine::applied_wait(call, fault, end - start, asked);
    return fail(&call, step, ETIMEDOUT);
  };
  const bool nonblocking = is_nonblocking(fd, 0);
  if (nonblocking && begin_connecting(fd, socket, to, length, &call, step)) {
    engine::commit(&call, step, 1);
    engine::finish(&call);
    errno = EINPROGRESS;
    return -1;
  }
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
      u64 total = syn_patience_ns();
      if (d.limit_ns && d.limit_ns < total) total = d.limit_ns;
      return time_out(d.fault, total);
    }
    default: break;
  }
  if (d.limit_ns && way + d.answer_ns >= d.limit_ns) return time_out(Fault::ConnectTimeout, d.limit_ns);
  if (way) {
    u64 end = wait_until(start + way);
    engine::delivered(call, d, end - start);
  }
  if (nonblocking) {  // no courier to be had: the attempt follows, its answer comes unheld
    int result = real.connect(fd, to, length), error = errno;
    engine::commit(&call, step, 1);
    engine::finish(&call);
    errno = error;
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

}  // namespace

i32 take_connect_error(Socket* socket) {
  if (socket->connecting.under_way) return 0;
  i32 error = __atomic_exchange_n(&socket->connecting.error, 0, __ATOMIC_RELAXED);
  if (error) socket->ended = true;
  return error;
}

// When the answer to a connect came. TCP measured how long it took; a refusal it did not, which is dated when it is seen.
u64 answered_at(int fd, short kernel, u64 left_ns, u64 now) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (!(kernel & POLLERR) && real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) left_ns += info.tcpi_rtt * u64{1000};
  return left_ns < now ? left_ns : now;
}

// What a connect that failed looks like.
constexpr short kRefused = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP;

Sight look_at_connect(int fd, Socket* socket, short kernel, bool waiting, u64 now) {
  Connecting& c = socket->connecting;
  Sight sight = {};
  const bool lifted = !active();
  auto fail = [&](i32 error, Fault fault, u64 asked_ns) {
    record_time(self.segment, socket->policy, fault, Direction::Uplink, now - c.since_ns, asked_ns);
    c.error = error;
    c.under_way = false;
    sight.events = kRefused;
    sight.in_mark = 1;
    return sight;
  };
  if (c.error) {
    sight.due_ns = c.due_ns;
    return now >= c.due_ns || lifted ? fail(c.error, c.fault, c.due_ns - c.since_ns) : sight;
  }
  const u64 deadline = c.limit_ns ? c.since_ns + c.limit_ns : 0;
  if (deadline && now >= deadline) {
    sockaddr none = {};
    none.sa_family = AF_UNSPEC;
    real.connect(fd, &none, sizeof(none));  // takes the attempt back
    return fail(ETIMEDOUT, Fault::ConnectTimeout, c.limit_ns);
  }
  if (i32 error = take_line_error(socket)) return fail(error, Fault::Latency, now - c.since_ns);
  auto wait_for = [&](u64 due) {
    if (sight.due_ns == 0 || due < sight.due_ns) sight.due_ns = due;
  };
  if (deadline) wait_for(deadline);
  constexpr u64 kCourierNs = 70000;  // how soon after its time the courier will have begun
  if (line_busy(*socket)) {
    u64 head = load(&socket->flow->line_head_due_ns);
    wait_for(head > now ? head + kCourierNs : now + kCourierNs);
    return sight;
  }
  if (!(kernel & (POLLOUT | POLLERR | POLLHUP))) {
    sight.ask = POLLOUT;
    return sight;
  }
  if (!c.answered_ns) c.answered_ns = waiting && (kernel & POLLERR) ? now : answered_at(fd, kernel, c.leaves_ns, now);
  if (now < c.answered_ns + c.answer_ns && !lifted) {
    wait_for(c.answered_ns + c.answer_ns);
    return sight;
  }
  if (c.answer_ns) record_time(self.segment, socket->policy, Fault::Latency, Direction::Downlink, now - c.answered_ns, c.answer_ns);
  c.under_way = false;
  if (kernel & POLLERR) {  // the answer is no: it is the program's from now on, whichever call asks for it
    socklen_t size = sizeof(c.error);
    real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &c.error, &size);
    sight.events = kRefused;
    sight.in_mark = 1;
    return sight;
  }
  sight.events = kernel;
  sight.in_mark = (kernel & POLLIN) != 0;
  if (!socket->wants.delays) end_link(socket);
  return sight;
}

namespace slow {

int connect(int fd, const sockaddr* address, socklen_t length) {
  Guard guard(fd);
  Socket* socket = guard && active() ? socket_of(fd) : nullptr;
  if (!socket || !address) return real.connect(fd, address, length);
  if (address->sa_family == AF_UNSPEC) {  // takes a connection back: what comes next is a new conversation
    int result = real.connect(fd, address, length);
    if (result == 0) socket->ended = true;
    return result;
  }
  if (socket->connecting.under_way) {
    Sight seen = look(fd, socket, false);
    if (!seen.events) {
      errno = EALREADY;
      return -1;
    }
  }
  if (i32 error = take_connect_error(socket)) {
    sockaddr none = {};
    none.sa_family = AF_UNSPEC;
    real.connect(fd, &none, sizeof(none));  // the kernel's socket may be connected again, as it is after it said so itself
    errno = error;
    return -1;
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
  int result = connect_decided(fd, socket, address, length);
  if (result < 0 && errno != EINPROGRESS) socket->ended = true;  // over: a further connect is a new conversation
  return result;
}

}  // namespace slow
}  // namespace mishap
