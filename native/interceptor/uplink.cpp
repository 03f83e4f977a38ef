// Uplink: every call that sends. The engine cuts the call into steps; a plain step waits until it is due and leaves through
// the real call; lost bytes are swallowed, errors raised, held units leave once others have overtaken them. What the
// kernel did not take (EAGAIN, a short write) is not committed: it has drawn nothing.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"
#include "wire/dns.h"

namespace mishap {
namespace {

constexpr int kParts = 64;  // entries of a list cut on the stack
constexpr u64 kCopyBytes = 65536;
constexpr u64 kRatedBytes = 16384;  // of a stream under a rate leave together

ssize_t real_sendmsg(const Outgoing& out, const iovec* parts, int count, bool first) {
  msghdr message = {};
  message.msg_name = const_cast<void*>(out.to);
  message.msg_namelen = out.to_length;
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<size_t>(count);
  if (first) {
    message.msg_control = const_cast<void*>(out.control);
    message.msg_controllen = out.control_length;
  }
  return real.sendmsg(out.fd, &message, out.flags);
}

void wait_writable(int fd) {
  pollfd p = {fd, POLLOUT, 0};
  real.syscall(SYS_poll, reinterpret_cast<long>(&p), 1, -1, 0, 0, 0);
}

// Sends out.parts[skip, skip + bytes). Returns what the kernel took, or -1 with errno when it took nothing.
ssize_t transmit(const Outgoing& out, u64 skip, u64 bytes, bool everything) {
  u64 sent = 0;
  do {
    iovec parts[kParts];
    u64 part = bytes - sent;
    int count = cut_parts(out.parts, out.count, skip + sent, &part, parts, kParts);
    ssize_t n = real_sendmsg(out, parts, count, skip + sent == 0);
    if (n < 0 && everything && (errno == EAGAIN || errno == EINTR) && (sent || skip)) {
      wait_writable(out.fd);
      continue;
    }
    if (n < 0) return sent ? static_cast<ssize_t>(sent) : -1;
    sent += static_cast<u64>(n);
    if (static_cast<u64>(n) < part && !everything) break;
  } while (sent < bytes);
  return static_cast<ssize_t>(sent);
}

// How many of a held unit's bytes went.
u64 send_held(int fd, Socket* socket, const Held& held) {
  u64 sent = 0;
  if (held.delay_ns) {  // its way is as long as that of the units that overtook it
    iovec part = {const_cast<u8*>(held.data), held.bytes};
    Outgoing out = {fd, &part, 1, held.bytes, 0, held.address_length ? &held.address : nullptr, held.address_length, nullptr, 0, true};
    engine::Decision d;
    d.part_ns[static_cast<u32>(engine::Part::Latency)] = static_cast<i64>(held.delay_ns);
    if (u64 lined = put_on_line(out, socket, 0, held.bytes, d, now_ns())) return lined;
  }
  while (sent < held.bytes || held.bytes == 0) {
    const sockaddr* to = held.address_length ? reinterpret_cast<const sockaddr*>(&held.address) : nullptr;
    ssize_t n = real.sendto(fd, held.data + sent, held.bytes - sent, MSG_NOSIGNAL, to, held.address_length);
    if (n < 0 && errno == EAGAIN) wait_writable(fd);
    else if (n < 0 && errno != EINTR) break;
    if (n >= 0) sent += static_cast<u64>(n);
    if (held.bytes == 0) break;
  }
  return sent;
}

void account_release(const Socket& socket, const Held& held) {
  if (held.overtaken == 0) return;  // nothing overtook it: it was late, not reordered
  record_time(self.segment, socket.policy, Fault::PacketReorder, Direction::Uplink, now_ns() - held.since_ns, 0);
}

// The first held unit whose window is used up or whose time has come (`all`: the first), taken off the list.
Held* take_due(Socket* socket, bool all) {
  Lists lists(socket);
  u64 now = now_ns();
  for (Held** link = &socket->held[0]; *link; link = &(*link)->next) {
    Held* held = *link;
    if (!all && held->window && !(held->due_ns && held->due_ns <= now)) continue;
    *link = held->next;
    return held;
  }
  return nullptr;
}

// `passed` units went by: held ones whose window is used up, or whose time has come, follow.
void overtake(int fd, Socket* socket, u32 passed, bool all) {
  if (!socket->held[0]) return;
  if (passed) {
    Lists lists(socket);
    for (Held* held = socket->held[0]; held; held = held->next) {
      held->overtaken += passed;
      held->window = held->window > passed ? held->window - passed : 0;
    }
  }
  while (Held* held = take_due(socket, all)) {
    count_held(socket, Direction::Uplink, -static_cast<i64>(held->bytes));
    account_for(socket, Direction::Uplink, Account::Cut, held->bytes - send_held(fd, socket, *held));
    for (u32 i = 0; i < held->copies; i++) account_for(socket, Direction::Uplink, Account::Duplicated, send_held(fd, socket, *held));
    if (held->copies) count_applied(self.segment, socket->policy, Fault::PacketDuplicate, Direction::Uplink, held->copies);
    account_release(*socket, *held);
    free_held(held);
  }
}

bool hold_back(Socket* socket, const Outgoing& out, u64 skip, u64 bytes, const engine::Decision& d, bool lines) {
  Held* held = make_held(out.parts, out.count, skip, bytes);
  if (!held) return false;
  held->delay_ns = lines ? static_cast<u64>(d.delay_ns()) : 0;
  held->window = d.hold_window;
  held->copies = d.copies;
  held->due_ns = d.hold_ns ? held->since_ns + d.hold_ns : 0;
  if (out.to && out.to_length <= sizeof(held->address)) {
    memcpy(&held->address, out.to, out.to_length);
    held->address_length = out.to_length;
  }
  Lists lists(socket);
  count_held(socket, Direction::Uplink, static_cast<i64>(bytes));
  Held** link = &socket->held[0];
  while (*link) link = &(*link)->next;
  *link = held;
  return true;
}

// A terminal outcome for this call. Returns the call's result: bytes swallowed, or -1 with errno.
ssize_t end_call(engine::Call* call, Socket* socket, const Outgoing& out, const engine::Step& step) {
  const engine::Decision& d = step.decision;
  switch (d.outcome) {
    case Verdict::Drop:
      if (!d.continued) engine::applied(*call, d.fault, 1);
      engine::commit(call, step, step.bytes);
      account_for(socket, Direction::Uplink, Account::Dropped, step.bytes);
      return static_cast<ssize_t>(step.bytes);
    case Verdict::Timeout: {
      u64 start = now_ns(), end = wait_until(start + d.timeout_ns);
      engine::applied_wait(*call, d.fault, end - start, d.timeout_ns);
      engine::commit(call, step, 0);
      errno = ETIMEDOUT;
      return -1;
    }
    default: {
      int error = break_connection(out.fd, socket, d.error);
      engine::applied(*call, d.fault, 1);
      engine::commit(call, step, 0);
      errno = error;
      return -1;
    }
  }
}

// Whether the program may know by now that nothing can be sent on this stream any more: the real send then says why.
bool is_over(int fd, Socket* socket) {
  const short kernel = kernel_events(fd);
  if (!(kernel & (POLLERR | POLLHUP))) return false;
  tcp_info info = {};
  socklen_t size = sizeof(info);
  const bool closed = (kernel & POLLHUP) || (real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_CLOSE);
  return closed && (!socket->linked || (look(fd, socket, false).events & (POLLERR | POLLHUP)));
}

constexpr ssize_t kNotLined = -2;

// Puts a step on the line, as far as there is room: how much; -1 with errno; or kNotLined: there is no courier any more.
// A program that would block waits for room.
ssize_t line_up(engine::Call* call, Socket* socket, const Outgoing& out, u64 skip, const engine::Step& step) {
  if (i32 error = take_line_error(socket)) {
    errno = error;
    return -1;
  }
  if (socket->stream && is_over(out.fd, socket)) return transmit(out, skip, step.bytes, false);
  // A datagram goes whole, or, into an empty line, whatever its size.
  const u64 wanted = socket->stream ? 1 : step.bytes;
  if (room_on_line(*socket) < wanted && line_busy(*socket)) {
    if (is_nonblocking(out.fd, out.flags) && !out.whole) {
      errno = EAGAIN;
      return -1;
    }
    if (!await_room(out.fd, socket, wanted)) return -1;
  }
  const u64 room = room_on_line(*socket);
  u64 bytes = socket->stream && !out.whole && step.bytes > room ? room : step.bytes;
  if (u64 lined = put_on_line(out, socket, skip, bytes, step.decision, call->now_ns)) return static_cast<ssize_t>(lined);
  if (!courier_lost(socket)) return kNotLined;
  break_connection(out.fd, socket, ErrorKind::Reset);
  errno = ECONNRESET;
  return -1;
}

// Carries the whole call out, step by step. `original` is the program's own call, used where nothing has to be cut.
ssize_t carry(engine::Call* call, Socket* socket, const Outgoing& out, RealSend original, const void* arguments) {
  u64 done = 0;
  bool checked = false, told = false;
  auto tell = [&](i64 delay_ns) {  // once a call, when what it sends is what will leave next
    if (!told && delay_ns > 0 && !line_busy(*socket)) tell_call(out.fd);
    told = true;
  };
  do {
    const u64 left = out.total - done;
    engine::Step step = engine::next_step(call, call->stream && socket->wants.rated && left > kRatedBytes ? kRatedBytes : left, socket->held[0] != nullptr);
    const engine::Decision& d = step.decision;
    engine::book_rate(call, &step);
    if (!call->stream && d.delay_ns() > 0 && fails_at_once(out, socket)) return original ? original(arguments) : transmit(out, 0, out.total, true);
    // Behind bytes that wait, nothing goes ahead.
    const bool lines = d.outcome == Verdict::Continue && (d.delay_ns() >= static_cast<i64>(kShortestNs) || (call->stream && line_busy(*socket))) && can_line(out, *socket);
    if (d.untouched() && !socket->held[0] && !lines) {
      bool whole = done == 0 && step.bytes == out.total;
      ssize_t n = whole && original ? original(arguments) : transmit(out, done, step.bytes, out.whole);
      if (n < static_cast<ssize_t>(step.bytes)) engine::unbook_rate(call, step.bytes - (n > 0 ? static_cast<u64>(n) : 0));
      if (n < 0) return done ? static_cast<ssize_t>(done) : -1;
      int kept = errno;
      engine::commit(call, step, static_cast<u64>(n));
      errno = kept;
      done += static_cast<u64>(n);
      if (static_cast<u64>(n) < step.bytes) break;
      continue;
    }
    // From here on a fault is being applied.
    if (!checked) {
      if (!still_ours(out.fd, socket)) return original ? original(arguments) : transmit(out, 0, out.total, out.whole);
      checked = true;
      // What the kernel would not take now must not wait first: it would wait again on the next try.
      if (d.plain() && d.delay_ns() && !lines && is_nonblocking(out.fd, out.flags) && !ready_now(out.fd, POLLOUT)) {
        engine::unbook_rate(call, step.bytes);
        if (done) break;
        errno = EAGAIN;
        return -1;
      }
    }
    if (d.outcome != Verdict::Continue) {
      engine::unbook_rate(call, step.bytes);
      if (d.outcome != Verdict::Drop && done) break;  // what was sent stands; the end comes with the next call
      ssize_t n = end_call(call, socket, out, step);
      if (n < 0) return -1;
      done += static_cast<u64>(n);
      continue;
    }
    if (i64 delay = lines ? 0 : d.delay_ns(); delay > 0) {
      tell(delay);
      u64 start = call->now_ns, end = wait_until(start + static_cast<u64>(delay));
      engine::delivered(*call, d, end - start);
      call->now_ns = end;
    }
    if (d.hold && may_hold(socket, Direction::Uplink, d.hold_window) && hold_back(socket, out, done, step.bytes, d, lines)) {
      engine::commit(call, step, step.bytes);
      done += step.bytes;
      continue;
    }
    if (lines) {
      tell(d.delay_ns());
      ssize_t n = line_up(call, socket, out, done, step);
      if (n < static_cast<ssize_t>(step.bytes)) engine::unbook_rate(call, step.bytes - (n > 0 ? static_cast<u64>(n) : 0));
      if (n == kNotLined) continue;
      if (n < 0) return done ? static_cast<ssize_t>(done) : -1;
      engine::commit(call, step, static_cast<u64>(n));
      if (d.copies) engine::applied(*call, Fault::PacketDuplicate, d.copies);
      done += static_cast<u64>(n);
      overtake(out.fd, socket, 1 + d.copies, false);
      if (static_cast<u64>(n) == step.bytes) continue;
      if (is_nonblocking(out.fd, out.flags)) break;
      call->now_ns = now_ns();  // the rest enters the line when there is room
      continue;
    }
    ssize_t n = transmit(out, done, step.bytes, out.whole);
    if (n < static_cast<ssize_t>(step.bytes)) engine::unbook_rate(call, step.bytes - (n > 0 ? static_cast<u64>(n) : 0));
    if (n < 0) return done ? static_cast<ssize_t>(done) : -1;
    for (u32 i = 0; i < d.copies; i++) {
      const ssize_t copied = transmit(out, done, step.bytes, true);
      if (copied == static_cast<ssize_t>(step.bytes)) engine::applied(*call, Fault::PacketDuplicate, 1);
      if (copied > 0) account_for(socket, Direction::Uplink, Account::Duplicated, static_cast<u64>(copied));
    }
    engine::commit(call, step, static_cast<u64>(n));
    done += static_cast<u64>(n);
    overtake(out.fd, socket, 1 + d.copies, false);
    if (static_cast<u64>(n) < step.bytes) break;
  } while (done < out.total);
  return static_cast<ssize_t>(done);
}

// R7 first: the changed bytes are what is cut, delayed, held and sent again. All of them go, whatever the kernel's mood:
// a program told "half was taken" could not resend the other half of bytes it never wrote.
ssize_t carry_mutated(engine::Call* call, Socket* socket, const Outgoing& out, const engine::Mutation& mutation) {
  if (is_nonblocking(out.fd, out.flags) && (!ready_now(out.fd, POLLOUT) || room_on_line(*socket) == 0)) {
    errno = EAGAIN;
    return -1;
  }
  u64 capacity = out.total + engine::kMaxGrowth;
  u8* buffer = map_buffer(capacity);
  if (!buffer) return carry(call, socket, out, nullptr, nullptr);
  gather(out.parts, out.count, 0, buffer, out.total);
  u64 length = engine::mutate(mutation, buffer, out.total, capacity);
  iovec part = {buffer, length};
  Outgoing changed = out;
  changed.parts = &part;
  changed.count = 1;
  changed.total = length;
  changed.whole = true;
  ssize_t n = length || !call->stream ? carry(call, socket, changed, nullptr, nullptr) : 0;
  int kept = errno;
  if (n >= 0) {
    if (length == 0) engine::commit(call, {}, 0);
    if (!mutation.dry_run) engine::applied(*call, Fault::PayloadMutation, 1);
    engine::commit_mutation(call, mutation);
    account_for_change(socket, Direction::Uplink, out.total, static_cast<u64>(n));
  }
  unmap_buffer(buffer, capacity);
  errno = kept;
  return n < 0 ? n : static_cast<ssize_t>(out.total);
}

ssize_t send_straight(int fd, int from, off_t* offset, size_t size) {
  const ssize_t n = real.sendfile(fd, from, offset, size);
  count_straight(fd, Direction::Uplink, n);
  return n;
}

// Bytes that come out of a file or pipe: read, then sent like any others.
ssize_t send_from_file(int fd, int from, off_t* offset, size_t size) {
  u64 take = size < kCopyBytes ? size : kCopyBytes;
  u8* buffer = map_buffer(kCopyBytes);
  if (!buffer) return send_straight(fd, from, offset, size);
  off_t start = offset ? *offset : lseek(from, 0, SEEK_CUR);
  ssize_t n = pread(from, buffer, take, start);
  if (n > 0) {
    iovec part = {buffer, static_cast<size_t>(n)};
    Outgoing out = {fd, &part, 1, static_cast<u64>(n), 0, nullptr, 0, nullptr, 0, false};
    n = send_through(out, nullptr, nullptr);
    if (n > 0) {
      if (offset) *offset = start + n;
      else lseek(from, start + n, SEEK_SET);
    }
  }
  int kept = errno;
  unmap_buffer(buffer, kCopyBytes);
  errno = kept;
  return n;
}

// Whether a datagram goes where the flow's policy was settled for.
bool same_peer(const Socket& socket, const void* to, socklen_t length) {
  Endpoint peer;
  return endpoint_of(static_cast<const sockaddr*>(to), length, &peer) && peer.port == load(&socket.flow->peer_port) &&
         memcmp(peer.address, socket.flow->peer, sizeof(peer.address)) == 0;
}

// The usual call in as few steps as can be: a settled socket, and no stage touches what it sends. False: not so, and nothing
// has happened.
template <class Original>
inline bool sent_at_once(int fd, u64 total, int flags, const void* to, socklen_t to_length, const Original& original, ssize_t* sent) {
  if (Flow* flow = quiet_flow(fd)) {
    *sent = original();
    if (*sent >= 0) count_op(&flow->up);
    count_called(flow, Direction::Uplink, *sent);
    return true;
  }
  Socket* socket = settled_socket(fd);
  if (!socket || (flags & MSG_OOB) || socket->connecting.under_way || socket->shut || (socket->stream ? total == 0 || line_busy(*socket) : to && !same_peer(*socket, to, to_length))) return false;
  engine::Passing passing;
  if (!engine::pass_whole(&passing, self.segment, socket->flow, Direction::Uplink, total, coarse_now_ns())) return false;
  *sent = original();
  engine::passed(passing, *sent);
  count_called(socket->flow, Direction::Uplink, *sent);
  if (*sent != static_cast<ssize_t>(total)) add(&socket->refused, 1u);
  return true;
}

template <class Original>
__attribute__((noinline)) ssize_t send_long_way(const Outgoing& out, const Original& original) {
  return send_through(out, [](const void* p) { return (*static_cast<const Original*>(p))(); }, &original);
}

}  // namespace

void release_held(int fd, Socket* socket, bool all) {
  int kept = errno;
  overtake(fd, socket, 0, all);
  errno = kept;
}

void release_everything() {
  if (!load(&self.held) || getpid() != self.pid) return;
  for (u32 fd = 0; fd < kDescriptors && load(&self.held); fd++) {
    if (load(&kinds[fd]) != static_cast<u8>(Kind::Socket)) continue;
    if (Socket* socket = socket_of(static_cast<int>(fd))) release_held(static_cast<int>(fd), socket, true);
  }
}

namespace {

ssize_t send_on(Socket* socket, const Outgoing& out, RealSend original, const void* arguments) {
  auto pass = [&] {
    drain_line(socket);
    return original ? original(arguments) : transmit(out, 0, out.total, out.whole);
  };
  if (!active()) return pass();
  int kept = errno;
  if (socket->wants_sni) learn_sni(out.fd, socket, out.parts, out.count);
  bool in_force = faulted(out.fd, socket, static_cast<const sockaddr*>(out.to), out.to_length) && !socket->resolver;
  errno = kept;
  Flow* flow = socket->flow;
  if (socket->shut) {
    if (!(out.flags & MSG_NOSIGNAL)) real.syscall(SYS_tgkill, self.pid, thread_id(), SIGPIPE, 0, 0, 0);
    errno = EPIPE;
    return -1;
  }
  if (flow && socket->connecting.under_way && !look(out.fd, socket, false).events) {
    errno = EAGAIN;  // as in SYN_SENT
    return -1;
  }
  if (i32 error = take_connect_error(socket)) {
    errno = error;
    return -1;
  }
  if (!in_force) {
    ssize_t n = pass();
    if (n >= 0 && flow) store(&flow->up.ops, load(&flow->up.ops) + 1);
    return n;
  }
  if (load(&flow->state) == static_cast<u8>(FlowState::Reset)) return pass();  // the kernel answers as behind any RST
  bool urgent_or_empty = out.flags & MSG_OOB || (socket->stream && out.total == 0);
  if (self.scripted && !urgent_or_empty) ask_about_op(socket, OpKind::Send, Direction::Uplink, 0, out.total);
  engine::Call call;
  engine::Begun begun = urgent_or_empty ? engine::Begun::NoRow
                                        : engine::begin(&call, self.segment, flow, OpKind::Send, Direction::Uplink, now_ns());
  if (begun != engine::Begun::Ready) {
    ssize_t n = pass();
    if (n >= 0 && begun == engine::Begun::Gated) engine::count_gated(self.segment, flow, Direction::Uplink, static_cast<u64>(n));
    return n;
  }
  engine::Mutation mutation = engine::plan_mutation(call, out.total);
  ssize_t n = mutation.type != MutationType::None ? carry_mutated(&call, socket, out, mutation) : carry(&call, socket, out, original, arguments);
  engine::finish(&call);
  if (n != static_cast<ssize_t>(out.total)) add(&socket->refused, 1u);
  return n;
}

}  // namespace

ssize_t send_through(const Outgoing& out, RealSend original, const void* arguments) {
  Guard guard(out.fd);
  Socket* socket = guard ? socket_of(out.fd) : nullptr;
  ssize_t n;
  if (socket) n = send_on(socket, out, original, arguments);
  else n = original ? original(arguments) : transmit(out, 0, out.total, out.whole);
  if (socket) record_payload(*socket, OpKind::Send, out.parts, out.count, n);
  if (Socket* sent_by = socket ? socket : noted_socket(out.fd)) count_called(sent_by->flow, Direction::Uplink, n);
  return n;
}

namespace slow {

ssize_t sendto(int fd, const void* bytes, size_t size, int flags, const sockaddr* to, socklen_t length) {
  auto original = [=] { return real.sendto(fd, bytes, size, flags, to, length); };
  if (ssize_t sent; sent_at_once(fd, size, flags, to, length, original, &sent)) return sent;
  iovec part = {const_cast<void*>(bytes), size};
  return send_long_way({fd, &part, 1, size, flags, to, length, nullptr, 0, false}, original);
}
ssize_t send(int fd, const void* bytes, size_t size, int flags) {
  auto original = [=] { return real.send(fd, bytes, size, flags); };
  if (ssize_t sent; sent_at_once(fd, size, flags, nullptr, 0, original, &sent)) return sent;
  iovec part = {const_cast<void*>(bytes), size};
  return send_long_way({fd, &part, 1, size, flags, nullptr, 0, nullptr, 0, false}, original);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  auto original = [=] { return real.write(fd, bytes, size); };
  if (ssize_t sent; sent_at_once(fd, size, 0, nullptr, 0, original, &sent)) return sent;
  iovec part = {const_cast<void*>(bytes), size};
  return send_long_way({fd, &part, 1, size, 0, nullptr, 0, nullptr, 0, false}, original);
}

ssize_t writev(int fd, const iovec* parts, int count) {
  auto original = [=] { return real.writev(fd, parts, count); };
  const u64 total = length_of(parts, count);
  if (ssize_t sent; sent_at_once(fd, total, 0, nullptr, 0, original, &sent)) return sent;
  return send_long_way({fd, parts, count, total, 0, nullptr, 0, nullptr, 0, false}, original);
}

ssize_t pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  auto original = [=] { return real.pwritev2(fd, parts, count, offset, flags); };
  if (offset != -1) return original();  // a socket answers ESPIPE
  const u64 total = length_of(parts, count);
  if (ssize_t sent; sent_at_once(fd, total, 0, nullptr, 0, original, &sent)) return sent;
  return send_long_way({fd, parts, count, total, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0, nullptr, 0, nullptr, 0, false}, original);
}
ssize_t pwritev64v2(int fd, const iovec* parts, int count, off_t offset, int flags) { return slow::pwritev2(fd, parts, count, offset, flags); }

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  auto original = [=] { return real.sendmsg(fd, message, flags); };
  if (!message) return original();
  const iovec* parts = message->msg_iov;
  const int count = static_cast<int>(message->msg_iovlen);
  const u64 total = length_of(parts, count);
  const void* to = message->msg_name;
  if (ssize_t sent; sent_at_once(fd, total, flags, to, message->msg_namelen, original, &sent)) return sent;
  return send_long_way({fd, parts, count, total, flags, to, message->msg_namelen, message->msg_control, message->msg_controllen, false}, original);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (!is_faulted(fd)) {
    const int sent = real.sendmmsg(fd, messages, count, flags);
    count_straight(fd, Direction::Uplink, bytes_of(messages, sent));
    return sent;
  }
  int kept = errno;
  unsigned sent = 0;
  for (; sent < count && sent < IOV_MAX; sent++) {
    ssize_t n = slow::sendmsg(fd, &messages[sent].msg_hdr, flags);
    if (n < 0) {
      if (sent) errno = kept;
      return sent ? static_cast<int>(sent) : -1;
    }
    messages[sent].msg_len = static_cast<unsigned>(n);
  }
  return static_cast<int>(sent);
}

ssize_t sendfile(int fd, int from, off_t* offset, size_t size) {
  return is_faulted(fd) ? send_from_file(fd, from, offset, size) : send_straight(fd, from, offset, size);
}
ssize_t sendfile64(int fd, int from, off_t* offset, size_t size) { return slow::sendfile(fd, from, offset, size); }

// A pipe on one side, a socket on the other. The pipe's bytes are taken out, so they go whole.
ssize_t splice(int from, off_t* from_offset, int to, off_t* to_offset, size_t size, unsigned flags) {
  bool sends = !is_foreign(to) && is_faulted(to);
  bool receives = !sends && !is_foreign(from) && is_faulted(from);
  auto straight = [&] {
    const ssize_t n = real.splice(from, from_offset, to, to_offset, size, flags);
    if (!is_foreign(to)) count_straight(to, Direction::Uplink, n);
    if (!is_foreign(from)) count_straight(from, Direction::Downlink, n);
    return n;
  };
  if ((!sends && !receives) || from_offset || to_offset || size == 0) return straight();
  int pipe_fd = sends ? from : to, queued = 0;
  ioctl(pipe_fd, FIONREAD, &queued);
  u64 room = static_cast<u64>(sends ? queued : real.fcntl(pipe_fd, F_GETPIPE_SZ, 0) - queued);
  u64 take = size < kCopyBytes ? size : kCopyBytes;
  if (room && take > room) take = room;
  u8* buffer = map_buffer(kCopyBytes);
  if (!buffer) return straight();
  iovec part = {buffer, take};
  ssize_t n = -1;
  int message_flags = flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0;
  if (sends) {
    if (is_nonblocking(to, message_flags) && !ready_now(to, POLLOUT)) errno = EAGAIN;
    else if ((n = real.read(from, buffer, take)) > 0) {
      part.iov_len = static_cast<size_t>(n);
      Outgoing out = {to, &part, 1, static_cast<u64>(n), message_flags, nullptr, 0, nullptr, 0, true};
      n = send_through(out, nullptr, nullptr);
    }
  } else if (is_nonblocking(to, message_flags) && room == 0) {
    errno = EAGAIN;
  } else {
    n = slow::recv(from, buffer, take, message_flags);
    for (ssize_t written = 0; n > 0 && written < n;) {
      ssize_t w = real.write(to, buffer + written, static_cast<size_t>(n - written));
      if (w < 0 && errno == EAGAIN) wait_writable(to);
      else if (w < 0 && errno != EINTR) break;
      if (w > 0) written += w;
    }
  }
  int kept = errno;
  unmap_buffer(buffer, kCopyBytes);
  errno = kept;
  return n;
}

}  // namespace slow
}  // namespace mishap
