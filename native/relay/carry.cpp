// The bytes of an established connection: what is read from one end is one op of the program's, a send or a receive; the
// engine cuts it into steps, and each is sent on, put on the line, held back, lost, or the connection's end.
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "connection.h"
#include "wire/client_hello.h"

namespace mishap::relay {
namespace {

constexpr u64 kRatedBytes = 16384;       // of a stream under a rate leave together
constexpr u64 kRoomToRead = 512 * 1024;  // of all lines' memory: what a read may take, cut into single units
constexpr u64 kSpliceBytes = 1 << 20;
constexpr u64 kHelloBytes = 4096;  // of a TLS client's first ones, as much as is looked at

bool make_pipe(int pipe[2]) {
  if (pipe2(pipe, O_NONBLOCK | O_CLOEXEC) != 0) return false;
  fcntl(pipe[1], F_SETPIPE_SZ, static_cast<int>(kSpliceBytes));  // as much as there may be: its own size is a sixteenth
  return true;
}

void count_op(FlowDirection* side) { store(&side->ops, load(&side->ops) + 1); }

}  // namespace

// Which policy holds, looked up again whenever something changed.
void Connection::keep_policy() {
  const u32 generation = load(&shared_->segment.header->generation);
  if (!flow_ || generation == generation_) return;
  generation_ = generation;
  const engine::Resolution found = resolve_flow(shared_->segment, flow_, {shared_->names.of(from_.peer), sni_.c_str(), ""}, {from_.process, from_.tid}, &wants_);
  wants_sni_ = found.wants_sni && !knows_sni_;
  policy_ = found.policy;
}

// A TLS client names whom it means in what it sends first.
void Connection::learn_sni(const u8* bytes, u64 size) {
  hello_.insert(hello_.end(), bytes, bytes + std::min(size, kHelloBytes - hello_.size()));
  char name[256];
  const wire::SniResult found = wire::find_sni(hello_.data(), hello_.size(), name, sizeof(name));
  if (found == wire::SniResult::NeedMore && hello_.size() < kHelloBytes) return;
  if (found == wire::SniResult::Found) sni_ = name;
  hello_ = {};
  knows_sni_ = true;
  generation_--;
  keep_policy();
}

u64 Connection::foretell_ns(const Way& way, u64 at_ns) const {
  u64 rate_clock_ns = 0;
  if (!shared_->in_force || policy_ < 0) return 0;
  return engine::foretell_ns(shared_->segment, flow_, way.direction, 0, 1, at_ns, &rate_clock_ns);
}

// Where there is no room at the other end, nor on the line, the source waits as it would for a peer that does not read.
bool Connection::may_read(const Way& way) const {
  if (!way.from->readable || way.finished) return false;
  if (phase_ == Phase::Swallowing) return true;
  if (phase_ != Phase::Carrying || way.piped || way.line.bytes() > kLineBytes) return false;
  if (!way.to->writable && !way.line.empty()) return false;
  return shared_->budget.used_bytes + kRoomToRead < shared_->budget.limit_bytes;
}

bool Connection::read(u8* buffer) {
  for (Way* way : {&up_, &down_})
    if (may_read(*way) && !take_in(way, buffer)) way->from->readable = false;
  return hungry();
}

// One read. False: there is nothing more for now.
bool Connection::take_in(Way* way, u8* buffer) {
  keep_policy();
  End* from = way->from;
  const bool calm = !wants_sni_ && (policy_ < 0 || !wants_.anything || !shared_->in_force) && way->line.empty() && way->held.empty() && phase_ == Phase::Carrying;
  const bool spliced = calm && way->bulk && (way->pipe[0] >= 0 || make_pipe(way->pipe));
  const ssize_t n = spliced ? splice_in(way) : recv(from->fd, buffer, kReadBytes, 0);
  const int error = errno;
  if (n < 0 && error == EINTR) return true;
  way->bulk = n > 0 && (spliced || n == static_cast<ssize_t>(kReadBytes));
  if (n < 0 && error == EAGAIN) return false;
  const u64 at_ns = from->readable_ns ? from->readable_ns : now_ns();
  from->readable_ns = 0;
  if (phase_ == Phase::Swallowing) {
    if (n > 0) {
      if (shared_->counted && way->direction == Direction::Uplink) add(&flow_->up.called, static_cast<u64>(n));
      count_lost(*way, Account::Cut, static_cast<u64>(n));
      return true;
    }
    if (from == &program_) reset();
    else way->finished = true;
    return false;
  }
  if (n < 0) {
    broke(from, at_ns);
    return false;
  }
  if (n == 0) {
    overtake(way, 0, true);  // nothing can overtake what was held any more
    way->finished = true;
    put_end(way, link::ParcelKind::Shutdown, at_ns, at_ns + foretell_ns(*way, at_ns));
    return false;
  }
  const u64 bytes = static_cast<u64>(n);
  if (shared_->counted && flow_ && way->direction == Direction::Uplink) add(&flow_->up.called, bytes);
  if (calm && shared_->counted && flow_) count_op(side_of(flow_, way->direction));
  if (wants_sni_ && way->direction == Direction::Uplink) learn_sni(buffer, bytes);
  if (spliced) flush_pipe(way);
  else if (calm) put(way, buffer, bytes, at_ns, {});
  else carry(way, buffer, bytes, at_ns);
  return spliced || n == static_cast<ssize_t>(kReadBytes) || from->closing;
}

// Bytes that nothing can touch go from socket to socket without being looked at.
ssize_t Connection::splice_in(Way* way) {
  const ssize_t n = splice(way->from->fd, nullptr, way->pipe[1], nullptr, kSpliceBytes, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  if (n > 0) way->piped += static_cast<u64>(n);
  return n;
}

// One op. `bytes` has room for what a mutation adds.
void Connection::carry(Way* way, u8* bytes, u64 size, u64 at_ns) {
  engine::Call call;
  const engine::Begun begun = policy_ < 0 || !shared_->in_force ? engine::Begun::NoRow
                                                                 : engine::begin(&call, shared_->segment, flow_, way->kind, way->direction, at_ns);
  if (begun != engine::Begun::Ready) {
    if (begun == engine::Begun::Gated) engine::count_gated(shared_->segment, flow_, way->direction, size);
    overtake(way, 1, false);
    return put(way, bytes, size, at_ns, {});
  }
  const engine::Mutation mutation = engine::plan_mutation(call, size);
  u64 total = size;
  if (mutation.type != MutationType::None) {
    total = engine::mutate(mutation, bytes, size, size + engine::kMaxGrowth);
    if (!mutation.dry_run) engine::applied(call, Fault::PayloadMutation, 1);
    engine::commit_mutation(&call, mutation);
    count_lost(*way, total > size ? Account::Injected : Account::Cut, total > size ? total - size : size - total);
  }
  if (total == 0) engine::commit(&call, {}, 0);
  for (u64 done = 0; done < total && phase_ == Phase::Carrying && !way->finished;) {
    const u64 left = total - done;
    engine::Step step = engine::next_step(&call, wants_.rated && left > kRatedBytes ? kRatedBytes : left, !way->held.empty());
    if (!decide(way, &call, &step, bytes + done)) count_lost(*way, Account::Cut, left);
    done += step.bytes;
  }
  engine::finish(&call);
}

// Carries a step out. False: with it the conversation ends.
bool Connection::decide(Way* way, engine::Call* call, engine::Step* step, const u8* bytes) {
  const engine::Decision& d = step->decision;
  if (d.outcome == Verdict::Continue || (d.outcome == Verdict::Drop && way->direction == Direction::Downlink)) engine::book_rate(call, step);
  if (d.outcome == Verdict::Continue) {
    if (!d.hold || !way->held.hold(bytes, step->bytes, {}, d, now_ns())) {
      put(way, bytes, step->bytes, call->now_ns, d);
      if (d.copies) {
        engine::applied(*call, Fault::PacketDuplicate, d.copies);
        count_lost(*way, Account::Duplicated, d.copies * step->bytes);
      }
      overtake(way, 1 + d.copies, false);
    }
    engine::commit(call, *step, step->bytes);
    return true;
  }
  if (d.outcome == Verdict::Drop) {
    if (!d.continued) engine::applied(*call, d.fault, 1);
    count_lost(*way, Account::Dropped, step->bytes);
    engine::commit(call, *step, step->bytes);
    return true;
  }
  engine::commit(call, *step, 0);
  if (d.outcome == Verdict::Timeout) {
    fall_silent(way->direction, d);
    return false;
  }
  engine::applied(*call, d.fault, 1);
  if (d.fault == Fault::HalfOpen) {
    phase_ = Phase::Swallowing;
  } else if (way->direction == Direction::Uplink) {  // the program's own call fails, and takes what is under way with it
    reset();
  } else {
    way->finished = true;
    put_end(way, link::ParcelKind::Close, call->now_ns, call->now_ns);
  }
  return false;
}

void Connection::fall_silent(Direction direction, const engine::Decision& d) {
  phase_ = Phase::Silent;
  since_ns_ = now_ns();
  silence_ns_ = d.timeout_ns;
  silent_direction_ = direction;
  silent_fault_ = d.fault;
  due_ns_ = since_ns_ + d.timeout_ns;
}

// `passed` units went by: held ones whose turn it is follow.
void Connection::overtake(Way* way, u32 passed, bool all) {
  if (way->held.empty()) return;
  const u64 now = now_ns();
  way->held.pass(passed);
  while (const std::optional<Held> unit = way->held.take(now, all)) {
    put(way, unit->bytes.data(), unit->bytes.size(), now, unit->decision());
    unit->file(shared_->segment, policy_, way->direction, now);
    count_lost(*way, Account::Duplicated, unit->copies * unit->bytes.size());
  }
}

}  // namespace mishap::relay
