// What leaves: bytes when they are due and the socket has room, the end of a stream behind them, and resets.
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "connection.h"

namespace mishap::relay {

using link::Parcel;
using link::ParcelKind;

namespace {

constexpr int kUnitsATurn = 64;  // sent of one way before others

// Whether closing ends the connection as TCP does, or resets it, as the death of the relay is to do until an end was passed on.
void set_orderly(End* end, bool orderly) {
  const linger how = {!orderly, 0};
  if (end->orderly != orderly) setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how));
  end->orderly = orderly;
}

}  // namespace

u64 now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * kSecond + static_cast<u64>(now.tv_nsec);
}

void file_delay(const Segment& segment, Direction direction, const Parcel& parcel, u64 left_ns) {
  engine::Decision decision;
  memcpy(decision.part_ns, parcel.part_ns, sizeof(decision.part_ns));
  if (decision.delay_ns() <= 0 || !is_policy(segment, parcel.policy)) return;
  decision.loss_fault = static_cast<Fault>(parcel.loss_fault);
  engine::Call call;
  call.segment = &segment;
  call.policy = parcel.policy;
  call.direction = direction;
  engine::delivered(call, decision, left_ns > parcel.sent_ns ? left_ns - parcel.sent_ns : 0);
}

void Shared::account(i32 policy, Direction direction, Account reason, u64 bytes) const {
  Stats* stats = counted && bytes ? stats_of(segment, policy) : nullptr;
  if (stats) add(&stats->accounts[static_cast<u32>(reason) * kDirections + static_cast<u32>(direction)], bytes);
}

Connection::Connection(Shared* shared, u64 id, const RelayConnect& from)
    : id(id),
      shared_(shared),
      from_(from),
      up_(Direction::Uplink, &program_, &onward_, &shared->budget),
      down_(Direction::Downlink, &onward_, &program_, &shared->budget),
      generation_(load(&shared->segment.header->generation) - 1) {}

// All that a program left behind may be with the kernel by now, which sees to it without us.
Connection::~Connection() { close_all(up_.passed && program_left()); }

// Edge-triggered: what is told once is kept in the End.
bool Connection::watch(const End& end, Side side) const {
  epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.u64 = id << 1 | side}};
  return epoll_ctl(shared_->epoll, EPOLL_CTL_ADD, end.fd, &event) == 0;
}

// Evidence is filed for a policy and a direction; that is all a call means there.
engine::Call Connection::evidence(Direction direction) const {
  engine::Call call;
  call.segment = &shared_->segment;
  call.policy = policy_;
  call.direction = direction;
  return call;
}

// ---- onto the line ----------------------------------------------------------------------------------------------------

void Connection::put(Way* way, const u8* bytes, u64 size, u64 at_ns, const engine::Decision& d) {
  u64 delay_ns = d.delay_ns() > 0 ? static_cast<u64>(d.delay_ns()) : 0;
#ifdef MISHAP_TEST_WAIT_HALF
  delay_ns /= 2;  // evidence must show half
#endif
  if (delay_ns == 0 && d.copies == 0 && way->line.empty() && !way->piped && way->to->writable) {
    const ssize_t n = send_to(way, bytes, size);
    if (n < 0) return;
    bytes += n;
    size -= static_cast<u64>(n);
  }
  if (size == 0) return;
  Parcel parcel = {};
  parcel.kind = ParcelKind::Data;
  parcel.policy = policy_;
  parcel.sent_ns = at_ns;
  parcel.due_ns = at_ns + delay_ns;
  static_assert(link::kParcelParts == engine::kParts);
  memcpy(parcel.part_ns, d.part_ns, sizeof(parcel.part_ns));
  parcel.loss_fault = static_cast<u8>(d.loss_fault);
  parcel.copies = d.copies;
  line_up(way, parcel, bytes, size);
}

// What happens to the stream behind its bytes, as late as they are: its end (Shutdown), or its reset (Close).
void Connection::put_end(Way* way, ParcelKind kind, u64 at_ns, u64 due_ns) {
  Parcel parcel = {};
  parcel.kind = kind;
  parcel.policy = -1;
  parcel.sent_ns = at_ns;
  parcel.due_ns = due_ns;
  line_up(way, parcel, nullptr, 0);
}

void Connection::line_up(Way* way, const Parcel& parcel, const u8* bytes, u64 size) {
  if (phase_ == Phase::Over || way->line.push(parcel, bytes, static_cast<u32>(size), 0)) return;
  count_lost(*way, Account::Cut, size);
  reset();  // no memory for it: an error, where a hole in the stream would be a lie
}

// ---- off the line -----------------------------------------------------------------------------------------------------

u64 Connection::next_ns() const {
  u64 next = phase_ == Phase::Carrying || phase_ == Phase::Swallowing ? kNever : due_ns_;
  for (const Way* way : {&up_, &down_}) {
    const link::Unit* head = way->line.head();
    if (way->piped && way->to->writable) next = 0;
    if (head && (way->to->writable || head->parcel.kind != ParcelKind::Data)) next = std::min(next, head->parcel.due_ns);
    next = std::min(next, way->held.next_ns());
  }
  return next;
}

void Connection::advance(u64 now) {
  const bool lifted = !shared_->in_force;
  if (due_ns_ <= now + kSendingNs || lifted) {
    now = std::max(now, std::min(due_ns_, now + kSendingNs));
    if (phase_ == Phase::Leaving) {
      end_leaving(now);
    } else if (phase_ == Phase::Connecting) {
      if (lifted && due_ns_ > now) due_ns_ = kNever;
      else if (due_ns_ != kNever) come_too_late(), end_leaving(now);
    } else if (phase_ == Phase::Answering) {
      if (way_.answer_ns) record_time(shared_->segment, policy_, Fault::Latency, Direction::Downlink, now - answered_ns_, way_.answer_ns);
      if (error_) fail(error_);
      else complete();
    } else if (phase_ == Phase::Entering) {
      if (due_ns_ <= now) meet(now);
    } else if (phase_ == Phase::Telling) {
      if (due_ns_ <= now) tell_unreachable(now);
    } else if (phase_ == Phase::Silent) {
      engine::applied_wait(evidence(silent_direction_), silent_fault_, now - since_ns_, silence_ns_);
      reset();
    }
  }
  for (Way* way : {&up_, &down_}) {
    if (way->piped) flush_pipe(way);
    overtake(way, 0, lifted);
    leave(way, lifted ? kNever : now + kSendingNs);
  }
}

void Connection::leave(Way* way, u64 until_ns) {
  for (int i = 0; i < kUnitsATurn && !way->line.empty() && way->line.next_due_ns() <= until_ns; i++) {
    const link::Unit& unit = *way->line.head();
    if (unit.parcel.kind == ParcelKind::Close) return reset();
    if (unit.parcel.kind == ParcelKind::Shutdown) {
      way->line.drop_head();
      return pass_end(way);
    }
    if (!way->to->writable) return;
    const ssize_t n = send_to(way, unit.data + unit.gone, unit.bytes - unit.gone);
    if (n < 0) return;
    if (way->line.left(static_cast<u32>(n))) {
      file_evidence(*way, unit.parcel);
      way->line.drop_head();
    }
  }
}

u64 Connection::unsent() const {
  int queued = 0;
  if (onward_.fd >= 0) ioctl(onward_.fd, SIOCOUTQ, &queued);
  return up_.line.unsent_bytes() + up_.piped + static_cast<u64>(queued);
}

// How many bytes the socket took, 0 when it has no room; -1: it broke, and the way is cut.
ssize_t Connection::send_to(Way* way, const u8* bytes, u64 size) {
  const ssize_t n = send(way->to->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    broke(way->to, now_ns());
    return -1;
  }
  if (n < static_cast<ssize_t>(size)) way->to->writable = n < 0 && errno == EINTR;
  if (n > 0 && shared_->counted && flow_ && way->direction == Direction::Downlink) add(&flow_->down.called, static_cast<u64>(n));
  return n > 0 ? n : 0;
}

void Connection::flush_pipe(Way* way) {
  while (way->piped && way->to->writable) {
    const ssize_t n = splice(way->pipe[0], nullptr, way->to->fd, nullptr, way->piped, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) way->to->writable = false;
    if (n < 0 && errno != EAGAIN) return broke(way->to, now_ns());
    if (n > 0) way->piped -= static_cast<u64>(n);
    if (n > 0 && shared_->counted && flow_ && way->direction == Direction::Downlink) add(&flow_->down.called, static_cast<u64>(n));
  }
}

// What the delay of a parcel came to, by the clock. Where it found the other end without room, the link let it go when due,
// and the rest of the wait was that end's.
void Connection::file_evidence(const Way& way, const Parcel& parcel) const {
  file_delay(shared_->segment, way.direction, parcel, way.room_ns > parcel.due_ns ? parcel.due_ns : now_ns());
}

// ---- ends -------------------------------------------------------------------------------------------------------------

void Connection::pass_end(Way* way) {
  way->passed = true;
  set_orderly(way->to, true);
  if (up_.passed && down_.passed) close_all(true);
  else shutdown(way->to->fd, SHUT_WR);
}

// One end broke. What goes there is lost; the other end learns it as late as, and behind, the bytes that came before.
void Connection::broke(End* end, u64 at_ns) {
  Way* from = up_.from == end ? &up_ : &down_;
  Way* to = from == &up_ ? &down_ : &up_;
  to->finished = true;
  cut(to);
  overtake(from, 0, true);
  from->finished = true;
  put_end(from, ParcelKind::Close, at_ns, at_ns + foretell_ns(*from, at_ns));
}

void Connection::cut(Way* way) const {
  count_lost(*way, Account::Cut, way->line.unsent_bytes() + way->piped + way->held.bytes());
  way->line.clear();
  way->held.clear();
  way->piped = 0;
}

void Connection::close_all(bool orderly) {
  if (phase_ == Phase::Over) return;
  phase_ = Phase::Over;
  for (End* end : {&program_, &onward_}) {
    if (end->fd < 0) continue;
    if (!orderly) set_orderly(end, false);
    close(end->fd);
    end->fd = -1;
  }
  shared_->sources.give_back(source_port_);
  for (Way* way : {&up_, &down_}) {
    cut(way);
    way->finished = true;
    for (int& fd : way->pipe) {
      if (fd >= 0) close(fd);
      fd = -1;
    }
  }
  if (flow_ && load(&flow_->cookie) == from_.cookie) store(&flow_->state, static_cast<u8>(FlowState::Idle));
}

}  // namespace mishap::relay
