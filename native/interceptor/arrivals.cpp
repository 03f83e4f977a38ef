// Arrivals: when what lies in a delayed flow's receive buffer may be seen. The bytes stay in the kernel; each run of them that
// a look finds new is dated by the kernel's own time stamp and gets a due time from the engine, in a small ledger. Receives
// and readiness both ask the ledger, so a program learns of bytes when they are due and not before, however it waits.
//
//   wire ─▶ kernel buffer ── look(): dated, due = arrival + delay ── due ─▶ readable, receivable
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "interceptor.h"

namespace mishap {
namespace {

constexpr u64 kSecond = 1000000000;
constexpr u64 kSliceNs = 200000000;  // how long the owner's death may go unnoticed in a wait
constexpr int kWindowBytes = 4 << 20;
constexpr short kOver = POLLRDHUP | POLLHUP | POLLERR;

struct Run {
  u64 end;      // of the stream, counted from the link's start; datagrams: 1 for each
  u64 at_ns;    // arrival
  u64 due_ns;
  bool withheld;  // the program looked for it and was told that nothing is there
  u64 seen_ns;    // when it then first could see it; 0 not yet
};
constexpr u32 kRuns = 128;
constexpr u64 kPieces = 16, kSegment = 1448;

}  // namespace

struct Arrivals {
  u32 busy;        // guards the rest
  u32 first, count;  // of `runs`, a ring
  u64 taken;       // received by the program
  u64 dated;       // end of the last run
  u64 visible;     // end of what is due
  u64 ripened;     // units held for reordering whose turn came
  u64 rate_clock_ns;  // of the line, as foretold for what is dated
  u64 over_due_ns, error_due_ns;  // when the peer's end, and an error, may be seen; 0: there is none
  bool over_seen, error_seen;
  i32 error;       // one that a wait of ours took from the socket, for the program's next call
  Run runs[kRuns];
};

namespace {

class Locked {
 public:
  explicit Locked(Arrivals* arrivals) : arrivals_(arrivals) {
    for (u32 tries = 0; __atomic_exchange_n(&arrivals->busy, 1u, __ATOMIC_ACQUIRE); tries++)
      if (tries > 100) real.syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
  }
  ~Locked() { __atomic_store_n(&arrivals_->busy, 0u, __ATOMIC_RELEASE); }
  Locked(const Locked&) = delete;

 private:
  Arrivals* arrivals_;
};

Arrivals* arrivals_of(Socket* socket) {
  if (Arrivals* known = load_acquire(&socket->arrivals)) return known;
  Arrivals* fresh = reinterpret_cast<Arrivals*>(map_buffer(sizeof(Arrivals)));
  if (!fresh || swap_if(&socket->arrivals, static_cast<Arrivals*>(nullptr), fresh)) return fresh;
  unmap_buffer(reinterpret_cast<u8*>(fresh), sizeof(Arrivals));
  return load_acquire(&socket->arrivals);
}

// The kernel's stamp of the newest of the next `bytes` queued bytes, or of the next datagram; `now` where there is none. A
// peek that truncates copies nothing. *from: the datagram's sender.
u64 stamp_of(int fd, u64 bytes, u64 now, sockaddr_storage* from, socklen_t* from_length, bool* there) {
  alignas(cmsghdr) u8 control[256];
  u8 nothing;
  iovec part = {&nothing, bytes};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  message.msg_name = from;
  message.msg_namelen = from ? sizeof(*from) : 0;
  ssize_t n = real.recvmsg(fd, &message, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
  *there = n >= 0;
  if (from_length) *from_length = message.msg_namelen;
  if (n < 0) return now;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec stamp;
    memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
    return monotonic_of(stamp);
  }
  return now;
}

Run* last_run(Arrivals* a) { return a->count ? &a->runs[(a->first + a->count - 1) % kRuns] : nullptr; }

// Enters a run that ends at `end`. A full ledger lets the last run grow: it is then later than it need be, never earlier.
void enter(Arrivals* a, u64 end, u64 at_ns, u64 due_ns) {
#ifdef MISHAP_TEST_WAIT_HALF
  due_ns = at_ns + (due_ns - at_ns) / 2;  // evidence must show half of what was asked
#endif
  Run* last = last_run(a);
  if (last && last->due_ns > due_ns) due_ns = last->due_ns;  // nothing overtakes on a stream
  if (a->count == kRuns) {
    last->end = end;
    last->at_ns = at_ns;
    last->due_ns = due_ns;
  } else {
    a->runs[(a->first + a->count++) % kRuns] = {end, at_ns, due_ns, false, 0};
  }
  a->dated = end;
}

// How late the next `bytes` behind those dated will be.
u64 foretell(Socket* socket, Arrivals* a, u64 bytes, u64 at_ns) {
  const u64 ahead = socket->stream ? a->dated - a->taken : 0;
  if (self.scripted) ask_about_op(socket, OpKind::Recv, Direction::Downlink, ahead, bytes);
  return engine::foretell_ns(self.segment, socket->flow, Direction::Downlink, ahead, bytes, at_ns, &a->rate_clock_ns);
}

// What a look at the kernel's side found.
struct View {
  short kernel;
  u64 now_ns, next_due_ns;  // 0: nothing is withheld
};

// Enters what lies behind the last run, up to `end`, as arrived at `at_ns`. A line with a rate lets bytes trickle: so many
// pieces of a lump are due one after the other.
void enter_lump(Socket* socket, Arrivals* a, u64 end, u64 at_ns) {
  const u64 lump = end - a->dated, piece = socket->wants.rated ? (lump / kPieces > kSegment ? lump / kPieces : kSegment) : lump;
  while (a->dated < end) {
    const u64 bytes = end - a->dated < piece ? end - a->dated : piece;
    enter(a, a->dated + bytes, at_ns, at_ns + foretell(socket, a, bytes, at_ns));
  }
}

// Dates what the kernel's side saw arrive, each arrival truly, up to `end`. It counts the stream from its first byte: where
// the queue ends there is asked behind the queue's length, so that what comes in between makes arrivals later, never earlier.
void date_by_kernel(int fd, Socket* socket, Arrivals* a, u64 end, u64 now) {
  KernelArrival seen[kKernelArrivals];
  u64 received;
  const u32 count = kernel_arrivals(socket->cookie, seen);
  if (count == 0 || !stream_received(fd, &received) || received < end) return;
  const u64 before = received - end;  // bytes of the stream from before the ledger's first
  for (u32 i = 0; i < count && a->dated < end; i++) {
    const u64 until = seen[i].end > before ? seen[i].end - before : 0;
    if (until > a->dated) enter_lump(socket, a, until < end ? until : end, seen[i].at_ns < now ? seen[i].at_ns : now);
  }
}

// Dates what is new on a stream. What came while nobody looked is dated by the kernel's side, where it watches; else all of
// it carries the newest one's stamp.
void date_stream(int fd, Socket* socket, Arrivals* a, const View& s) {
  int queued = 0;
  const bool any = (s.kernel & POLLIN) || socket->low_water > 1;
  if (any && (real.ioctl(fd, FIONREAD, &queued) != 0 || queued < 0)) return;
  u64 end = a->taken + static_cast<u64>(queued);
  if (end < a->dated) {  // some were received behind our back
    a->taken = a->dated - static_cast<u64>(queued);
    return;
  }
  if (end == a->dated) return;
  date_by_kernel(fd, socket, a, end, s.now_ns);
  if (end == a->dated) return;
  bool there;
  u64 at = load(&socket->flow->dated) ? stamp_of(fd, static_cast<u64>(queued), s.now_ns, nullptr, nullptr, &there) : s.now_ns;
  enter_lump(socket, a, end, at);
}

// A datagram is dated when it is the next: the kernel shows no other.
void date_datagram(int fd, Socket* socket, Arrivals* a, u64 now) {
  if (a->dated > a->taken) return;
  sockaddr_storage from;
  socklen_t length = 0;
  bool there;
  u64 at = stamp_of(fd, 1, now, &from, &length, &there);
  if (!there) return;
  bool inside = !socket->wants.downlink_only && sender_inside(fd, socket, reinterpret_cast<sockaddr*>(&from), length);
  a->count = 0;
  enter(a, a->taken + 1, at, inside ? at : at + foretell(socket, a, 1, at));
}

// Moves `visible` on to what is due. A program that waits sees it now, by the clock; one that was busy elsewhere could have
// seen it since it was due.
void reveal(Arrivals* a, u64 now, bool waiting, bool everything) {
  for (u32 i = 0; i < a->count; i++) {
    Run& run = a->runs[(a->first + i) % kRuns];
    if (run.due_ns > now && !everything) return;
    if (run.end <= a->visible) continue;
    a->visible = run.end;
    if (run.withheld) run.seen_ns = waiting || everything ? now : run.due_ns;
  }
}

// When the peer was last heard of, for an end that nobody waited for: the kernel counts in jiffies and rounds, so as late as
// it may have been.
u64 last_heard_ns(int fd, u64 now) {
  constexpr u64 kRounded = 20000000;
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return now;
  const u64 age = info.tcpi_last_ack_recv * u64{1000000};
  return age > kRounded ? now - age + kRounded : now;
}

// The ledger, brought up to this moment. Holds the lock.
View update(int fd, Socket* socket, Arrivals* a, bool waiting) {
  View s = {kernel_events(fd), now_ns(), 0};
  const bool lifted = !active();  // faults have ended: nothing is withheld any more
  if (socket->stream) date_stream(fd, socket, a, s);
  else if (s.kernel & POLLIN) date_datagram(fd, socket, a, s.now_ns);
  else a->taken = a->dated;
  u64 behind = 0;  // where the data ends, in time
  if (const Run* last = last_run(a)) behind = last->due_ns;
  auto date_end = [&](u64* due) {
    const u64 at = waiting ? s.now_ns : last_heard_ns(fd, s.now_ns);
    u64 due_ns = at + foretell(socket, a, 1, at);
    *due = due_ns > behind ? due_ns : behind;
  };
  if (socket->stream && (s.kernel & kOver) && !a->over_due_ns) date_end(&a->over_due_ns);
  if (socket->stream && (s.kernel & POLLERR) && !a->error_due_ns) date_end(&a->error_due_ns);
  reveal(a, s.now_ns, waiting, lifted);
  a->over_seen = a->over_due_ns && (lifted || a->over_due_ns <= s.now_ns);
  a->error_seen = a->error_due_ns && (lifted || a->error_due_ns <= s.now_ns);
  auto consider = [&](u64 due) {
    if (due && (s.next_due_ns == 0 || due < s.next_due_ns)) s.next_due_ns = due;
  };
  if (a->visible < a->dated)
    for (u32 i = 0; i < a->count; i++) {
      Run& run = a->runs[(a->first + i) % kRuns];
      if (run.end <= a->visible) continue;
      run.withheld = true;
      consider(run.due_ns);
    }
  if (!a->over_seen) consider(a->over_due_ns);
  if (!a->error_seen) consider(a->error_due_ns);
  return s;
}

// Sleeps as a blocking receive does: a signal ends it with EINTR unless its handler restarts calls, which a timer's read obeys.
bool sleep_until(u64 due_ns) {
  bool slept = true;
  for (u64 now = now_ns(); slept && now < due_ns && active(); now = now_ns()) {
    const int timer = borrow_timer(due_ns - now > kSliceNs ? now + kSliceNs : due_ns);
    if (timer < 0) {
      wait_until(due_ns);
      break;
    }
    u64 times;
    slept = real.syscall(SYS_read, timer, reinterpret_cast<long>(&times), sizeof(times), 0, 0, 0) >= 0;
    int kept = errno;
    return_timer(timer);
    errno = kept;
  }
  return slept;
}

// When SO_RCVTIMEO ends a receive that begins now; 0 never.
u64 patience_ends(int fd) {
  timeval patience = {};
  socklen_t length = sizeof(patience);
  if (real.getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, &length) != 0) return 0;
  u64 ns = static_cast<u64>(patience.tv_sec) * kSecond + static_cast<u64>(patience.tv_usec) * 1000;
  return ns ? now_ns() + ns : 0;
}

}  // namespace

short kernel_events(int fd) {
  pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
  return real.syscall(SYS_poll, reinterpret_cast<long>(&p), 1, 0, 0, 0, 0) > 0 ? p.revents : 0;
}

// The kernel's stamp is wall-clock time: carried over to the monotonic clock by the difference at this moment. That clock is
// read last: a moment lost in between makes the arrival later, never earlier.
u64 monotonic_of(const timespec& stamp) {
  timespec wall;
  clock_gettime(CLOCK_REALTIME, &wall);
  const u64 now = now_ns();
  i64 age = (static_cast<i64>(wall.tv_sec) - stamp.tv_sec) * static_cast<i64>(kSecond) + (wall.tv_nsec - stamp.tv_nsec);
  return age > 0 && static_cast<u64>(age) < now ? now - static_cast<u64>(age) : now;
}

Socket* find_linked(int fd) {
  Socket* socket = noted_socket(fd);
  if (!socket || socket->listening || !socket->flow) return nullptr;
  if (socket->generation != load(&self.segment.header->generation) && active()) faulted(fd, socket, nullptr, 0);
  return socket->linked ? socket : nullptr;
}

// What is withheld lies in the receive buffer, as it would on the wire: room for it is added, as far as rmem_max allows.
void widen(int fd, Socket* socket) {
  if (socket->family == AF_UNIX || !socket->wants.dated) return;
  int shown = 0, kept = errno;
  socklen_t length = sizeof(shown);
  real.getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &shown, &length);
  if (shown < 2 * kWindowBytes) {
    real.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kWindowBytes, sizeof(kWindowBytes));
    socket->receive_buffer = shown;
  }
  errno = kept;
}

void begin_link(int fd, Socket* socket) {
  if (!socket->stamped) stamp_arrivals(fd, socket);
  widen(fd, socket);
  if (Arrivals* a = load_acquire(&socket->arrivals)) {  // linked before: the ledger starts over with what is queued
    Locked locked(a);
    a->first = a->count = 0;
    a->dated = a->visible = a->taken;
    a->over_due_ns = a->error_due_ns = 0;
  }
  socket->linked = true;
  store(&self.linked, u32{1});
  relink(socket);
}

void end_link(Socket* socket) {
  socket->linked = false;
  relink(socket);
}

void free_link(Socket* socket) {
  if (socket->arrivals) unmap_buffer(reinterpret_cast<u8*>(socket->arrivals), sizeof(Arrivals));
  socket->arrivals = nullptr;
}

namespace {

// Units held for reordering: on the way in they show once they have been overtaken or their time has come.
void look_at_held(Socket* socket, Arrivals* a, u64 now, Sight* sight) {
  if (!socket->held[0] && !socket->held[1]) return;
  Lists lists(socket);
  for (u32 d = 0; d < kDirections; d++)
    for (Held* held = socket->held[d]; held; held = held->next) {
      const bool ripe = held->window == 0 || (held->due_ns && held->due_ns <= now);
      if (!ripe && held->due_ns) sight->due_ns = sight->due_ns && sight->due_ns < held->due_ns ? sight->due_ns : held->due_ns;
      if (!ripe || d == static_cast<u32>(Direction::Uplink)) continue;
      sight->events |= POLLIN;
      if (!held->ripe) a->ripened++;
      held->ripe = true;
    }
}

// As many bytes must there be for a stream to be readable.
u64 low_water(const Socket& socket) { return socket.stream && socket.low_water ? socket.low_water : 1; }

}  // namespace

Sight look(int fd, Socket* socket, bool waiting) {
  int kept = errno;
  Sight sight = {};
  if (socket->connecting.under_way) {
    sight = look_at_connect(fd, socket, kernel_events(fd), waiting, now_ns());
    errno = kept;
    return sight;
  }
  Arrivals* a = arrivals_of(socket);
  if (!a) {
    sight.events = kernel_events(fd);
    sight.ask = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
    errno = kept;
    return sight;
  }
  if (socket->held[0]) release_held(fd, socket, false);
  cut_if_lost(fd, socket);
  Locked locked(a);
  View s = update(fd, socket, a, waiting);
  sight.events = s.kernel & POLLPRI;
  // While a line is in use its room is the program's, and the kernel's the courier's.
  if (line_busy(*socket) ? line_has_room(*socket) : (s.kernel & POLLOUT) != 0) sight.events |= POLLOUT;
  if (a->visible - a->taken >= low_water(*socket) || a->over_seen || a->error_seen) sight.events |= POLLIN;
  if (!socket->stream) sight.events |= s.kernel & (POLLERR | POLLHUP);
  if (a->over_seen) sight.events |= s.kernel & (POLLRDHUP | POLLHUP);
  if (a->error_seen) sight.events |= a->error ? POLLERR : s.kernel & POLLERR;
  if (socket->connecting.error) sight.events |= POLLIN | POLLOUT | POLLERR | POLLHUP;  // of a connect, until it is asked for
  if (!(s.kernel & kOver)) sight.ask = POLLOUT;
  if (s.next_due_ns == 0) sight.ask = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
  sight.due_ns = s.next_due_ns;
  if (!line_has_room(*socket)) {  // the courier makes room when the first bytes are due, or soon after
    sight.ask &= ~POLLOUT;
    u64 head = load(&socket->flow->line_head_due_ns), soon = s.now_ns + 1000000;
    if (head < soon) head = soon;
    if (sight.due_ns == 0 || head < sight.due_ns) sight.due_ns = head;
  }
  look_at_held(socket, a, s.now_ns, &sight);
  sight.in_mark = a->visible + a->ripened + a->over_seen + a->error_seen;
  errno = kept;
  return sight;
}

u64 visible_bytes(int fd, Socket* socket) {
  Arrivals* a = arrivals_of(socket);
  int queued = 0;
  real.ioctl(fd, FIONREAD, &queued);
  if (!a) return static_cast<u64>(queued);
  Locked locked(a);
  update(fd, socket, a, false);
  u64 visible = a->visible - a->taken;
  return socket->stream ? visible : visible ? static_cast<u64>(queued) : 0;
}

bool await_arrival(const Incoming& in, Socket* socket, u64* bytes) {
  *bytes = ~u64{0};
  Arrivals* a = arrivals_of(socket);
  if (!a || in.total == 0) return true;
  if (i32 error = take_connect_error(socket)) {
    errno = error;
    return false;
  }
  if (!socket->connecting.under_way) {  // the usual case, in few calls: readiness has shown some already
    Locked locked(a);
    if (a->visible - a->taken >= low_water(*socket)) {
      const View s = {POLLIN, now_ns(), 0};
      if (socket->stream) date_stream(in.fd, socket, a, s);
      reveal(a, s.now_ns, false, false);
      if (socket->stream) *bytes = a->visible - a->taken;
      return true;
    }
  }
  const bool nonblocking = is_nonblocking(in.fd, in.flags);
  const u64 enough = nonblocking || in.total < low_water(*socket) ? 1 : low_water(*socket);
  u64 patience = nonblocking ? 0 : patience_ends(in.fd);
  bool waiting = false;
  for (;;) {
    if (socket->connecting.under_way && !look(in.fd, socket, waiting).events && nonblocking) {
      errno = EAGAIN;
      return false;
    }
    View s;
    {
      Locked locked(a);
      s = update(in.fd, socket, a, waiting);
      waiting = true;
      u64 there = a->visible - a->taken;
      if (a->error && a->error_seen && !there) {
        errno = a->error;
        a->error = 0;
        a->error_due_ns = 0;
        return false;
      }
      if (!socket->stream && (s.kernel & POLLERR)) return true;  // the kernel has an earlier datagram's error to tell
      if (there >= enough || a->error_seen || a->over_seen || !active()) {
        if (there && socket->stream && a->visible < a->dated) *bytes = there;
        return true;
      }
    }
    if (nonblocking) {
      errno = EAGAIN;
      return false;
    }
    if (s.next_due_ns) {
      bool ends = patience && patience < s.next_due_ns;
      if (!sleep_until(ends ? patience : s.next_due_ns)) return false;
      if (ends) {
        errno = EAGAIN;
        return false;
      }
    } else {
      u8 byte;
      cut_if_lost(in.fd, socket);
      if (real.recv(in.fd, &byte, 1, MSG_PEEK) >= 0) continue;
      if (errno == EINTR || errno == EAGAIN || !socket->stream) return false;
      Locked locked(a);  // the peek took the connection's error: it waits its turn here
      u64 now = now_ns();
      a->error = errno;
      a->error_due_ns = now + foretell(socket, a, 1, now);
    }
  }
}

void end_arrivals(Socket* socket) {
  Arrivals* a = load_acquire(&socket->arrivals);
  if (!a) return;
  Locked locked(a);
  if (!a->over_due_ns) a->over_due_ns = 1;
}

bool error_withheld(int fd, Socket* socket) {
  if (!socket->linked) return false;
  Arrivals* a = arrivals_of(socket);
  if (!a) return false;
  Locked locked(a);
  View s = update(fd, socket, a, false);
  return (s.kernel & POLLERR) && !a->error_seen;
}

void note_taken(Socket* socket, u64 bytes, u64* at_ns, u64* seen_ns) {
  Arrivals* a = load_acquire(&socket->arrivals);
  if (!a) return;
  Locked locked(a);
  a->taken += socket->stream ? bytes : 1;
  *seen_ns = 0;
  while (a->count) {
    const Run& run = a->runs[a->first];
    if (run.seen_ns) *seen_ns = run.seen_ns;
    *at_ns = run.at_ns;
    if (run.end > a->taken) break;
    a->first = (a->first + 1) % kRuns;
    a->count--;
    if (run.end == a->taken) break;
  }
  if (a->dated < a->taken) a->dated = a->taken;
  if (a->visible < a->taken) a->visible = a->taken;
}

}  // namespace mishap
