// Downlink: every call that receives. The bytes are received for real first, and with them when they arrived; then the engine
// decides over what was received, the call waits until arrival + delay, and the received span is changed, withheld or handed
// over. Two receives of one answer share its arrival and so wait once. A call that finds nothing has drawn nothing.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"
#include "wire/dns.h"

namespace mishap {

// names.cpp: the resolver's own traffic is a class of its own.
ssize_t receive_answer(const Incoming& in, Socket* socket, RealReceive original, const void* arguments);

namespace {

constexpr size_t kControlBytes = 4096;  // more than the kernel hands over with one message
constexpr u64 kSecond = 1000000000;
constexpr int kParts = 64;  // entries of a list cut on the stack

struct Arrival {
  ssize_t bytes = -1;        // received, or -1 with errno
  u64 at_ns = 0;             // CLOCK_MONOTONIC
  u64 seen_ns = 0;           // when the program could first see it, having looked in vain before; 0 it had not
  bool from_inside = false;  // a datagram whose sender carried its faults
  socklen_t source_length = 0;
  sockaddr_storage source;   // its first source_length bytes
};

// Copies the program's share of the control messages: all but the stamp that we asked for.
void pass_control(const msghdr& ours, msghdr* theirs) {
  size_t used = 0;
  for (const cmsghdr* c = CMSG_FIRSTHDR(&ours); c; c = CMSG_NXTHDR(const_cast<msghdr*>(&ours), const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) continue;
    size_t space = CMSG_ALIGN(c->cmsg_len);
    if (used + c->cmsg_len > theirs->msg_controllen) {
      theirs->msg_flags |= MSG_CTRUNC;
      break;
    }
    memcpy(static_cast<u8*>(theirs->msg_control) + used, c, c->cmsg_len);
    used += used + space <= theirs->msg_controllen ? space : c->cmsg_len;
  }
  theirs->msg_controllen = used;
}

// Writes where a datagram came from to where the program wants it.
void name_sender(const Incoming& in, const sockaddr_storage* source, socklen_t length) {
  if (in.message) {
    if (in.message->msg_name) memcpy(in.message->msg_name, source, in.message->msg_namelen < length ? in.message->msg_namelen : length);
    if (in.message->msg_name || length == 0) in.message->msg_namelen = length;
  } else if (in.from && in.from_length) {
    memcpy(in.from, source, *in.from_length < length ? *in.from_length : length);
    *in.from_length = length;
  }
}

// Receives a datagram, and with it where it came from: all that is wanted where no date is.
void receive_from(const Incoming& in, Socket* socket, Arrival* arrival) {
  socklen_t length = sizeof(arrival->source);
  sockaddr* source = reinterpret_cast<sockaddr*>(&arrival->source);
  if (!in.message && in.count == 1) {
    arrival->bytes = real.recvfrom(in.fd, in.parts->iov_base, in.parts->iov_len, in.flags, source, &length);
    if (arrival->bytes < 0) return;
  } else {
    msghdr message = {};
    if (in.message) message = *in.message;
    message.msg_iov = const_cast<iovec*>(in.parts);
    message.msg_iovlen = static_cast<size_t>(in.count);
    message.msg_name = source;
    message.msg_namelen = length;
    arrival->bytes = real.recvmsg(in.fd, &message, in.flags);
    if (arrival->bytes < 0) return;
    length = message.msg_namelen;
    if (in.message) {
      in.message->msg_flags = message.msg_flags;
      in.message->msg_controllen = message.msg_controllen;
    }
  }
  arrival->source_length = length;
  arrival->from_inside = sender_inside(in.fd, socket, source, length);
  if (in.message || in.from) name_sender(in, &arrival->source, length);
}

// Receives with our own control buffer and source address, so that arrival and sender are known.
Arrival receive_dated(const Incoming& in, Socket* socket) {
  Arrival arrival;
  sockaddr_storage& source = arrival.source;
  alignas(cmsghdr) u8 control[kControlBytes];
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(in.parts);
  message.msg_iovlen = static_cast<size_t>(in.count);
  message.msg_name = &source;
  message.msg_namelen = sizeof(source);
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  arrival.bytes = real.recvmsg(in.fd, &message, in.flags);
  if (arrival.bytes < 0) return arrival;
  arrival.source_length = message.msg_namelen;
  arrival.at_ns = now_ns();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
      timespec stamp;
      memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
      arrival.at_ns = monotonic_of(stamp);
    }
  if (!socket->stream) arrival.from_inside = sender_inside(in.fd, socket, reinterpret_cast<sockaddr*>(&source), message.msg_namelen);
  name_sender(in, &source, message.msg_namelen);
  if (in.message) {
    in.message->msg_flags = message.msg_flags;
    if (in.message->msg_control) pass_control(message, in.message);
    else in.message->msg_controllen = 0;
  }
  return arrival;
}

// Waits for data until due_ns; true when that time came first.
bool wait_readable(int fd, u64 due_ns) {
  u64 now = now_ns(), left = due_ns > now ? due_ns - now : 0;
  timespec t = {static_cast<time_t>(left / kSecond), static_cast<long>(left % kSecond)};
  pollfd p = {fd, POLLIN, 0};
  return real.syscall(SYS_ppoll, reinterpret_cast<long>(&p), 1, reinterpret_cast<long>(&t), 0, 8, 0) == 0;
}

// timeout.recv: gives the receive until `limit` after it began to find nothing. False: time is up.
bool data_within(const Incoming& in, Flow* flow, u64 limit_ns, bool nonblocking) {
  u64 now = now_ns(), since = load(&flow->wait_since_ns);
  if (!nonblocking || since == 0) store(&flow->wait_since_ns, since = now);
  if (ready_now(in.fd, POLLIN)) return true;
  if (nonblocking) return now - since < limit_ns;
  u64 due = since + limit_ns;
  while ((now = now_ns()) < due && active()) {
    u64 left = due - now < kSecond / 5 ? due - now : kSecond / 5;
    timespec t = {0, static_cast<long>(left)};
    pollfd p = {in.fd, POLLIN, 0};
    long n = real.syscall(SYS_ppoll, reinterpret_cast<long>(&p), 1, reinterpret_cast<long>(&t), 0, 8, 0);
    if (n != 0) return true;  // data, or a signal: the real call answers that
  }
  return !active();
}

// Units and copies that wait to be received.
struct Pending {
  Socket* socket;
  // False: there is no memory for it.
  bool push(const u8* bytes, u64 size, const engine::Decision& d, bool copy, const Arrival& arrival) {
    iovec part = {const_cast<u8*>(bytes), size};
    Held* held = make_held(&part, 1, 0, size);
    if (!held) return false;
    count_held(socket, Direction::Downlink, static_cast<i64>(size));
    held->window = copy ? 0 : d.hold_window;
    held->copies = copy ? 0 : d.copies;
    held->address_length = arrival.source_length < sizeof(held->address) ? arrival.source_length : 0;
    memcpy(&held->address, &arrival.source, held->address_length);
    held->due_ns = !copy && d.hold_ns ? held->since_ns + d.hold_ns : 0;
    Lists lists(socket);
    Held** link = &socket->held[1];
    while (*link) link = &(*link)->next;
    *link = held;
    return true;
  }
  // One that is due: its window used up, its time come, or `any` (nothing else can come).
  Held* pop(bool any) {
    Lists lists(socket);
    u64 now = now_ns();
    for (Held** link = &socket->held[1]; *link; link = &(*link)->next) {
      Held* held = *link;
      if (!any && held->window && !(held->due_ns && held->due_ns <= now)) continue;
      *link = held->next;
      return held;
    }
    return nullptr;
  }
  void overtaken(u32 units) {
    if (!socket->held[1]) return;
    Lists lists(socket);
    for (Held* held = socket->held[1]; held; held = held->next) {
      if (held->window) held->overtaken += units;
      held->window = held->window > units ? held->window - units : 0;
    }
  }
  u64 next_due() const {
    Lists lists(socket);
    u64 due = 0;
    for (Held* held = socket->held[1]; held; held = held->next)
      if (held->due_ns && (due == 0 || held->due_ns < due)) due = held->due_ns;
    return due;
  }
};

void put_first(Socket* socket, Held* held) {
  held->window = 0;
  Lists lists(socket);
  held->next = socket->held[1];
  socket->held[1] = held;
}

// Hands over a withheld unit; on streams what does not fit stays first in line, and so do its copies, and all that is only
// looked at.
ssize_t deliver(const Incoming& in, Socket* socket, Held* held) {
  u64 room = in.total < held->bytes ? in.total : held->bytes;
  scatter(held->data, room, in.parts, in.count);
  if (in.message) {
    in.message->msg_controllen = 0;
    in.message->msg_flags = !socket->stream && room < held->bytes ? MSG_TRUNC : 0;
  }
  name_sender(in, &held->address, held->address_length);
  if (in.flags & MSG_PEEK) {
    put_first(socket, held);
    return static_cast<ssize_t>(room);
  }
  if (held->overtaken) record_time(self.segment, socket->policy, Fault::PacketReorder, Direction::Downlink, now_ns() - held->since_ns, 0);
  held->overtaken = 0;
  const bool more = socket->stream && room < held->bytes;
  count_held(socket, Direction::Downlink, -static_cast<i64>(more ? room : held->bytes));
  if (!more) account_for(socket, Direction::Downlink, Account::Cut, held->bytes - room);
  if (more) {
    memmove(held->data, held->data + room, held->bytes - room);
    held->bytes -= room;
    put_first(socket, held);
  } else if (held->copies) {
    held->copies--;
    count_applied(self.segment, socket->policy, Fault::PacketDuplicate, Direction::Downlink, 1);
    account_for(socket, Direction::Downlink, Account::Duplicated, held->bytes);
    count_held(socket, Direction::Downlink, static_cast<i64>(held->bytes));
    put_first(socket, held);
  } else {
    free_held(held);
  }
  return static_cast<ssize_t>(room);
}

enum class Outcome : u8 { Deliver, Swallowed, Ended };
struct Received {
  Outcome outcome;
  u64 bytes;  // Deliver: left in the buffer
};

// A delay counts from the arrival. On a link it has passed, and what counts is when the program could first see the bytes.
void let_pass(const engine::Call& call, const engine::Decision& d, const Socket& socket, const Arrival& arrival) {
  const u64 due = arrival.at_ns + static_cast<u64>(d.delay_ns());
  if (socket.linked && arrival.seen_ns) engine::delivered(call, d, arrival.seen_ns - arrival.at_ns);
  else if (!socket.linked && due > now_ns()) engine::delivered(call, d, wait_until(due) - arrival.at_ns);
}

// The general case: what was received lies in one buffer and is walked unit by unit into what the program gets.
Received sort_out(engine::Call* call, Socket* socket, const Incoming& in, const Arrival& arrival, u8* bytes, u64 total) {
  Pending pending = {socket};
  u64 done = 0, kept = 0;
  do {
    engine::Step step = engine::next_step(call, total - done, socket->held[1] != nullptr);
    const engine::Decision& d = step.decision;
    engine::book_rate(call, &step);
    if (i64 delay = d.delay_ns(); delay > 0 && d.outcome == Verdict::Continue) {
      let_pass(*call, d, *socket, arrival);
    }
    switch (d.outcome) {
      case Verdict::Continue: break;
      case Verdict::Drop:
        if (!d.continued) engine::applied(*call, d.fault, 1);
        engine::commit(call, step, step.bytes);
        account_for(socket, Direction::Downlink, Account::Dropped, step.bytes);
        done += step.bytes;
        continue;
      case Verdict::Timeout: {
        account_for(socket, Direction::Downlink, Account::Cut, total - done);
        if (kept) return {Outcome::Deliver, kept};
        u64 start = now_ns(), end = wait_until(start + d.timeout_ns);
        engine::applied_wait(*call, d.fault, end - start, d.timeout_ns);
        engine::commit(call, step, 0);
        errno = ETIMEDOUT;
        return {Outcome::Ended, 0};
      }
      default: {
        account_for(socket, Direction::Downlink, Account::Cut, total - done);
        if (kept && d.error != ErrorKind::Reset) return {Outcome::Deliver, kept};
        int error = break_connection(in.fd, socket, d.error);
        engine::applied(*call, d.fault, 1);
        engine::commit(call, step, 0);
        if (kept) {  // broken at once all the same: what came behind is taken already, so nothing else would wake the program
          store(&socket->error_behind, error);
          return {Outcome::Deliver, kept};
        }
        errno = error;
        return {Outcome::Ended, 0};
      }
    }
    if (d.hold && may_hold(socket, Direction::Downlink, d.hold_window)) {
      if (!pending.push(bytes + done, step.bytes, d, false, arrival)) account_for(socket, Direction::Downlink, Account::Cut, step.bytes);
    } else {
      if (kept != done) memmove(bytes + kept, bytes + done, step.bytes);
      pending.overtaken(1);
      for (u32 i = 0; i < d.copies; i++) {
        if (!pending.push(bytes + kept, step.bytes, d, true, arrival)) break;
        account_for(socket, Direction::Downlink, Account::Duplicated, step.bytes);
        engine::applied(*call, Fault::PacketDuplicate, 1);
      }
      kept += step.bytes;
    }
    engine::commit(call, step, step.bytes);
    done += step.bytes;
  } while (done < total);
  return {kept || (total == 0 && !call->stream) ? Outcome::Deliver : Outcome::Swallowed, kept};
}

// Decides over what was received and hands over what the program gets of it: bytes, or -1 with errno. kNothing: all of it
// was lost or withheld, and the program waits for more.
constexpr ssize_t kNothing = -2;
ssize_t hand_over(const Incoming& in, Socket* socket, const Arrival& arrival) {
  Flow* flow = socket->flow;
  const engine::Wants& wants = socket->wants;
  if (arrival.bytes < 0) return -1;
  if (arrival.bytes == 0 && socket->stream) {
    Pending pending = {socket};
    if (Held* held = pending.pop(true)) return deliver(in, socket, held);  // nothing can overtake it any more
    return 0;
  }
  if (load(&flow->wait_since_ns)) store(&flow->wait_since_ns, u64{0});
  u64 bytes = static_cast<u64>(arrival.bytes) < in.total ? static_cast<u64>(arrival.bytes) : in.total;
  if (arrival.from_inside && !wants.downlink_only) {
    if (!(in.flags & MSG_PEEK)) engine::count_gated(self.segment, flow, Direction::Downlink, bytes);
    return arrival.bytes;
  }
  if (self.scripted && !arrival.from_inside) ask_about_op(socket, OpKind::Recv, Direction::Downlink, 0, bytes);
  engine::Call call;
  engine::Begun begun = engine::begin(&call, self.segment, flow, OpKind::Recv, Direction::Downlink, arrival.at_ns, arrival.from_inside);
  if (begun != engine::Begun::Ready) {
    if (begun == engine::Begun::Gated) engine::count_gated(self.segment, flow, Direction::Downlink, bytes);
    return arrival.bytes;
  }
  engine::Mutation mutation = engine::plan_mutation(call, bytes);
  engine::Step step = engine::next_step(&call, bytes, socket->held[1] != nullptr);
  bool simple = step.decision.plain() && step.bytes == bytes && mutation.type == MutationType::None && !socket->held[1];
  if (simple) {
    if (!(in.flags & MSG_PEEK)) engine::book_rate(&call, &step);
    i64 delay = step.decision.delay_ns();
    if (delay > 0 && still_ours(in.fd, socket)) let_pass(call, step.decision, *socket, arrival);
    if (!(in.flags & MSG_PEEK)) engine::commit(&call, step, bytes);
    engine::finish(&call);
    return arrival.bytes;
  }
  if (in.flags & MSG_PEEK) {  // looking changes nothing; what it looked at is sorted out when it is taken
    engine::finish(&call);
    return arrival.bytes;
  }
  if (!still_ours(in.fd, socket)) {
    engine::finish(&call);
    return arrival.bytes;
  }
  call.draft = call.start;
  call.ahead = 0;
  u64 capacity = bytes + engine::kMaxGrowth;
  u8* buffer = map_buffer(capacity);
  if (!buffer) {
    engine::finish(&call);
    return arrival.bytes;
  }
  gather(in.parts, in.count, 0, buffer, bytes);
  const u64 received = static_cast<u64>(arrival.bytes);  // more than there is room for: of a datagram, by MSG_TRUNC
  if (mutation.type != MutationType::None) {
    bytes = engine::mutate(mutation, buffer, bytes, in.total < capacity ? in.total : capacity);
    if (!mutation.dry_run) engine::applied(call, Fault::PayloadMutation, 1);
    engine::commit_mutation(&call, mutation);
  }
  account_for_change(socket, Direction::Downlink, received, bytes);
  Received result = sort_out(&call, socket, in, arrival, buffer, bytes);
  int kept = errno;
  scatter(buffer, result.bytes, in.parts, in.count);
  unmap_buffer(buffer, capacity);
  engine::finish(&call);
  errno = kept;
  if (result.outcome == Outcome::Ended) return -1;
  if (result.outcome == Outcome::Deliver) return static_cast<ssize_t>(result.bytes);
  if (is_nonblocking(in.fd, in.flags) && !ready_now(in.fd, POLLIN)) {  // all of it was lost or withheld
    errno = EAGAIN;
    return -1;
  }
  return kNothing;
}

ssize_t receive_faulted(const Incoming& in, Socket* socket, RealReceive original, const void* arguments) {
  Flow* flow = socket->flow;
  const engine::Wants& wants = socket->wants;
  Pending pending = {socket};
  for (;;) {
    if (socket->held[1])
      if (Held* held = pending.pop(false)) return deliver(in, socket, held);

    if (wants.guarded && engine::may_be_over(self.segment, flow, coarse_now_ns())) {  // a spent budget ends the conversation before anything arrives
      engine::Call call;
      if (engine::begin(&call, self.segment, flow, OpKind::Recv, Direction::Downlink, now_ns()) == engine::Begun::Ready) {
        engine::Step step = engine::next_step(&call, 0);
        bool over = (step.decision.fault == Fault::SessionBudget || step.decision.fault == Fault::HalfOpen) &&
                    (step.decision.outcome == Verdict::Timeout || step.decision.outcome == Verdict::Error);
        if (over && still_ours(in.fd, socket)) {
          u8 nothing = 0;
          call.draft = call.start;
          Received end = sort_out(&call, socket, in, {}, &nothing, 0);
          engine::finish(&call);
          if (end.outcome == Outcome::Ended) return -1;
        } else {
          engine::finish(&call);
        }
      }
    }

    bool nonblocking = false;
    if (wants.recv_limit_ns || socket->held[1]) {
      nonblocking = is_nonblocking(in.fd, in.flags);
      if (socket->held[1] && !nonblocking && !ready_now(in.fd, POLLIN)) {
        u64 due = pending.next_due();
        // A withheld unit's time may come before anything overtakes it.
        if (due && wait_readable(in.fd, due)) continue;
      }
      if (wants.recv_limit_ns && !data_within(in, flow, wants.recv_limit_ns, nonblocking)) {
        u64 waited = now_ns() - load(&flow->wait_since_ns);
        record_time(self.segment, socket->policy, Fault::RecvTimeout, Direction::Downlink, waited, wants.recv_limit_ns);
        count_verdict(self.segment, socket->policy, Stage::Transport, Verdict::Timeout);
        store(&flow->wait_since_ns, u64{0});
        errno = ETIMEDOUT;
        return -1;
      }
    }

    Arrival arrival;
    Incoming due = in;  // as much as may be seen
    iovec parts[kParts];
    if (socket->linked) {
      u64 bytes;
      if (!await_arrival(in, socket, &bytes)) return -1;
      if (bytes < in.total) {
        due.count = cut_parts(in.parts, in.count, 0, &bytes, parts, kParts);
        due.parts = parts;
        due.total = bytes;
      }
    }
    if (socket->stamped) {
      arrival = receive_dated(due, socket);
    } else if (!socket->stream || socket->linked) {
      receive_from(due, socket, &arrival);
      arrival.at_ns = now_ns();
    } else {
      arrival.bytes = original(arguments);
      arrival.at_ns = now_ns();
    }
    if (socket->linked && arrival.bytes >= 0 && !(in.flags & MSG_PEEK))
      note_taken(socket, static_cast<u64>(arrival.bytes), &arrival.at_ns, &arrival.seen_ns);
    if (ssize_t n = hand_over(in, socket, arrival); n != kNothing) return n;
  }
}

// Units held back on the way out go when their time comes, also while the program waits for their answer.
void serve_uplink_holds(const Incoming& in, Socket* socket) {
  bool nonblocking = is_nonblocking(in.fd, in.flags);
  for (;;) {
    release_held(in.fd, socket, false);
    u64 due = 0;
    {
      Lists lists(socket);
      for (const Held* held = socket->held[0]; held; held = held->next)
        if (held->due_ns && (due == 0 || held->due_ns < due)) due = held->due_ns;
    }
    if (due == 0 || nonblocking || !wait_readable(in.fd, due)) return;
  }
}

}  // namespace

namespace {

// MSG_WAITALL on a link: as many receives as it takes, each of what may be seen.
ssize_t receive_all(const Incoming& in, Socket* socket, RealReceive original, const void* arguments) {
  u64 done = 0;
  while (done < in.total) {
    iovec parts[kParts];
    u64 left = in.total - done;
    Incoming rest = in;
    rest.flags &= ~MSG_WAITALL;
    rest.count = cut_parts(in.parts, in.count, done, &left, parts, kParts);
    rest.parts = parts;
    rest.total = left;
    ssize_t n = receive_faulted(rest, socket, original, arguments);
    if (n <= 0) return done ? static_cast<ssize_t>(done) : n;
    done += static_cast<u64>(n);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

namespace {

ssize_t receive_on(Socket* socket, const Incoming& in, RealReceive original, const void* arguments) {
  int kept = errno;
  bool in_force = faulted(in.fd, socket, nullptr, 0);
  errno = kept;
  if (socket->resolver && !socket->stream) return receive_answer(in, socket, original, arguments);
  if (socket->held[0]) serve_uplink_holds(in, socket);
  Flow* flow = socket->flow;
  if (!in_force || (in.flags & (MSG_OOB | MSG_ERRQUEUE))) {
    ssize_t n = original(arguments);
    if (n >= 0 && flow) store(&flow->down.ops, load(&flow->down.ops) + 1);
    return n;
  }
  if (load(&flow->state) == static_cast<u8>(FlowState::Reset)) {
    int error = __atomic_exchange_n(&socket->error_behind, 0, __ATOMIC_RELAXED);
    if (!error) return 0;  // as behind an RST that was reported
    errno = error;
    return -1;
  }
  bool all = socket->linked && socket->stream && (in.flags & MSG_WAITALL) && !(in.flags & MSG_PEEK) && !is_nonblocking(in.fd, in.flags);
  return all ? receive_all(in, socket, original, arguments) : receive_faulted(in, socket, original, arguments);
}

}  // namespace

ssize_t receive_through(const Incoming& in, RealReceive original, const void* arguments) {
  Guard guard(in.fd);
  Socket* socket = guard ? socket_of(in.fd) : nullptr;
  const ssize_t n = socket && active() ? receive_on(socket, in, original, arguments) : original(arguments);
  Socket* received_by = socket ? socket : noted_socket(in.fd);
  if (socket && !(in.flags & MSG_PEEK)) record_payload(*socket, OpKind::Recv, in.parts, in.count, n);
  if (received_by && !(in.flags & MSG_PEEK)) count_called(received_by->flow, Direction::Downlink, n);
  return n;
}

// The usual call in as few steps as can be: a settled socket whose arrivals need no date, and no stage touches what came.
// Anything else goes the long way.
template <class Original>
static inline ssize_t receive_at_once(const Incoming& in, const Original& original) {
  auto long_way = [&] {
    return receive_through(in, [](const void* p) { return (*static_cast<const Original*>(p))(); }, &original);
  };
  if (Flow* flow = quiet_flow(in.fd)) {
    const ssize_t n = original();
    if (n >= 0) count_op(&flow->down);
    if (!(in.flags & MSG_PEEK)) count_called(flow, Direction::Downlink, n);
    return n;
  }
  Socket* socket = settled_socket(in.fd);
  if (!socket || !socket->wants.undated || socket->linked || (in.flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))) return long_way();
  if (socket->stamped && in.message) return long_way();  // a stamp that only we asked for would show
  if (!socket->stream && socket->wants.downlink_only) return long_way();
  Flow* flow = socket->flow;
  if (socket->wants.guarded && engine::may_be_over(self.segment, flow, coarse_now_ns())) return long_way();

  Arrival arrival;
  if (socket->stream) arrival.bytes = original();
  else receive_from(in, socket, &arrival);
  if (arrival.bytes < 0 || (arrival.bytes == 0 && socket->stream)) return arrival.bytes;
  const u64 bytes = static_cast<u64>(arrival.bytes) < in.total ? static_cast<u64>(arrival.bytes) : in.total;
  if (arrival.from_inside) {
    engine::count_gated(self.segment, flow, Direction::Downlink, bytes);
    count_called(flow, Direction::Downlink, arrival.bytes);
    return arrival.bytes;
  }
  engine::Passing passing;
  if (engine::pass_whole(&passing, self.segment, flow, Direction::Downlink, bytes, coarse_now_ns())) {
    engine::passed(passing, static_cast<i64>(bytes));
    count_called(flow, Direction::Downlink, arrival.bytes);
    return arrival.bytes;
  }
  arrival.at_ns = now_ns();
  ssize_t n;
  {
    Guard guard;
    n = hand_over(in, socket, arrival);
  }
  if (n == kNothing) return long_way();
  count_called(flow, Direction::Downlink, n);
  return n;
}

namespace slow {

ssize_t recvfrom(int fd, void* bytes, size_t size, int flags, sockaddr* from, socklen_t* length) {
  iovec part = {bytes, size};
  return receive_at_once({fd, &part, 1, size, flags, nullptr, from, length},
                         [=] { return real.recvfrom(fd, bytes, size, flags, from, length); });
}
ssize_t recv(int fd, void* bytes, size_t size, int flags) {
  iovec part = {bytes, size};
  return receive_at_once({fd, &part, 1, size, flags, nullptr, nullptr, nullptr}, [=] { return real.recv(fd, bytes, size, flags); });
}

ssize_t read(int fd, void* bytes, size_t size) {
  iovec part = {bytes, size};
  return receive_at_once({fd, &part, 1, size, 0, nullptr, nullptr, nullptr}, [=] { return real.read(fd, bytes, size); });
}

ssize_t readv(int fd, const iovec* parts, int count) {
  return receive_at_once({fd, parts, count, length_of(parts, count), 0, nullptr, nullptr, nullptr},
                         [=] { return real.readv(fd, parts, count); });
}

ssize_t preadv2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  if (offset != -1) return real.preadv2(fd, parts, count, offset, flags);  // a socket answers ESPIPE
  int message_flags = flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
  return receive_at_once({fd, parts, count, length_of(parts, count), message_flags, nullptr, nullptr, nullptr},
                         [=] { return real.preadv2(fd, parts, count, offset, flags); });
}
ssize_t preadv64v2(int fd, const iovec* parts, int count, off_t offset, int flags) { return slow::preadv2(fd, parts, count, offset, flags); }

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  if (!message) return real.recvmsg(fd, message, flags);
  int count = static_cast<int>(message->msg_iovlen);
  return receive_at_once({fd, message->msg_iov, count, length_of(message->msg_iov, count), flags, message, nullptr, nullptr},
                         [=] { return real.recvmsg(fd, message, flags); });
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  bool in_force;
  {
    Guard guard(fd);
    Socket* socket = guard && active() ? socket_of(fd) : nullptr;
    in_force = socket && (faulted(fd, socket, nullptr, 0) || socket->resolver);
  }
  if (!in_force) {
    const int got = real.recvmmsg(fd, messages, count, flags, timeout);
    count_straight(fd, Direction::Downlink, flags & MSG_PEEK ? 0 : bytes_of(messages, got));
    return got;
  }
  u64 due = timeout ? now_ns() + static_cast<u64>(timeout->tv_sec) * kSecond + static_cast<u64>(timeout->tv_nsec) : 0;
  int kept = errno;
  unsigned got = 0;
  for (; got < count && got < IOV_MAX; got++) {
    int one = flags & ~MSG_WAITFORONE;
    if (got && (flags & MSG_WAITFORONE)) one |= MSG_DONTWAIT;
    ssize_t n = slow::recvmsg(fd, &messages[got].msg_hdr, one);
    if (n < 0) {
      if (got) errno = kept;
      return got ? static_cast<int>(got) : -1;
    }
    messages[got].msg_len = static_cast<unsigned>(n);
    if (due && now_ns() >= due) return static_cast<int>(got + 1);
  }
  return static_cast<int>(got);
}

ssize_t __read_chk(int fd, void* bytes, size_t size, size_t room) {
  return size > room ? real.__read_chk(fd, bytes, size, room) : slow::read(fd, bytes, size);
}
ssize_t __recv_chk(int fd, void* bytes, size_t size, size_t room, int flags) {
  return size > room ? real.__recv_chk(fd, bytes, size, room, flags) : slow::recv(fd, bytes, size, flags);
}
ssize_t __recvfrom_chk(int fd, void* bytes, size_t size, size_t room, int flags, sockaddr* from, socklen_t* length) {
  return size > room ? real.__recvfrom_chk(fd, bytes, size, room, flags, from, length) : slow::recvfrom(fd, bytes, size, flags, from, length);
}

}  // namespace slow
}  // namespace mishap
