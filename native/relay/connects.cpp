// What a program's connect comes to: the SYN's way, the real attempt, the answer's way, and what may end it instead. The
// program's kernel waits meanwhile, its SYNs dropped; it gets an answer when there is one. Where there is none (loss, a
// timeout), it gives up by itself.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "address.h"
#include "connection.h"
#include "listeners.h"

namespace mishap::relay {
namespace {

constexpr u64 kSynRetries = 6;
constexpr u64 kLeastPatienceNs = kSecond;  // of TCP_USER_TIMEOUT: a first SYN's timer rings no earlier

u64 read_sysctl(const char* path, u64 otherwise) {
  u64 value;
  return std::ifstream(path) >> value ? value : otherwise;
}

// Whether there is no way to a peer, which a connect meets before any packet leaves.
bool no_way_to(const RelayConnect& from) {
  sockaddr_storage to, source;
  const socklen_t length = address_of(from.peer, from.peer_port, 0, &to);
  return !source_towards(to, length, &source) && errno != EACCES && errno != EMFILE && errno != ENFILE;  // EACCES: a broadcast's
}

// Whether an address is this host's, as the source that a connection to it would have shows.
bool is_own(const u8 address[16], const sockaddr_storage& source) {
  const bool loopback = is_ipv4(address) && address[12] == 127;
  return memcmp(address, endpoint_of(source).address, 16) == 0 || loopback;
}

// Of a socket that epoll says something of.
int error_of(int fd, u32 events) {
  if (!(events & (EPOLLERR | EPOLLHUP))) return 0;
  int error = 0;
  socklen_t length = sizeof(error);
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

int errno_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Refused: return ECONNREFUSED;
    case ErrorKind::Unreachable: return EHOSTUNREACH;
    default: return ECONNRESET;
  }
}

// When the program's connect ends by itself where nobody answers.
u64 own_patience_ns(const RelayRow& row) {
  const u64 patience_ns = engine::syn_patience_ns(load(&row.syn_retries), read_sysctl("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", 0));
  const u64 user_ns = load(&row.user_timeout_ms) * kMillisecond;
  return user_ns ? std::min(patience_ns, std::max(user_ns, kLeastPatienceNs)) : patience_ns;
}

}  // namespace

void Connection::begin(int program) {
  program_.fd = program;
  since_ns_ = due_ns_ = now_ns();
  Naming* thread = shared_->threads.of(shared_->segment, from_);
  flow_ = open_flow_for(shared_->segment, shared_->sockets, from_, Role::Connector, from_.peer_port, shared_->names.of(from_.peer), thread, since_ns_);
  keep_policy();
  if (const RelayRow* told = row(); told && load(&told->timed)) allow(own_patience_ns(*told));
  engine::Call call;
  const bool decides = policy_ >= 0 && shared_->in_force &&
                       engine::begin(&call, shared_->segment, flow_, OpKind::Connect, Direction::Uplink, since_ns_) == engine::Begun::Ready;
  if (!decides) return attempt();
  call.syn_retries = kSynRetries;
  engine::Step step = engine::next_step(&call, 1);
  if (step.decision.part_ns[static_cast<u32>(engine::Part::Loss)] || step.decision.outcome != Verdict::Continue) {
    call.syn_retries = read_sysctl("/proc/sys/net/ipv4/tcp_syn_retries", kSynRetries);
    call.syn_linear = read_sysctl("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", 0);
    step = engine::next_step(&call, 1);
  }
  engine::commit(&call, step, 1);
  engine::finish(&call);
  const engine::Decision& d = step.decision;
  if (d.untouched() || (d.outcome == Verdict::Continue && no_way_to(from_))) return attempt();

  way_ = d;
  const u64 both_ways = static_cast<u64>(way_.delay_ns()) + way_.answer_ns;
  u64 lasts_ns = static_cast<u64>(way_.delay_ns());
  if (way_.outcome == Verdict::Error) {
    error_ = errno_of(way_.error);
    lasts_ns = both_ways;
  } else if (way_.outcome != Verdict::Continue) {
    error_ = ETIMEDOUT;
    lasts_ns = way_.outcome == Verdict::Timeout ? way_.timeout_ns : engine::syn_patience_ns(call.syn_retries, call.syn_linear);
  }
  if (way_.limit_ns && (error_ ? lasts_ns > way_.limit_ns : both_ways >= way_.limit_ns)) {  // the program's patience ends first
    error_ = ETIMEDOUT;
    way_.fault = Fault::ConnectTimeout;
    lasts_ns = way_.limit_ns;
  }
  if (error_ == ETIMEDOUT) allow(lasts_ns);
  else if (way_.limit_ns) allow(way_.limit_ns);
  silence_ns_ = lasts_ns;
  due_ns_ = since_ns_ + lasts_ns;
  if (lasts_ns == 0) end_leaving(since_ns_);
}

// The SYN has arrived where the attempt begins, or what was decided instead is due.
void Connection::end_leaving(u64 now) {
  const u64 took_ns = now - since_ns_, way_ns = static_cast<u64>(way_.delay_ns());
  const engine::Call call = evidence(Direction::Uplink);
  if (!error_) {
    if (way_ns) engine::delivered(call, way_, took_ns);
    return attempt();
  }
  if (error_ == ETIMEDOUT) return leave_unanswered(now);
  if (silence_ns_ && way_ns) engine::delivered(call, way_, took_ns * way_ns / silence_ns_);
  if (silence_ns_ && way_.answer_ns) record_time(shared_->segment, policy_, Fault::Latency, Direction::Downlink, took_ns * way_.answer_ns / silence_ns_, way_.answer_ns);
  engine::applied(call, way_.fault, 1);
  if (error_ == ECONNRESET) complete();
  else fail(error_);
}

// A connect whose time is up: the program's kernel gives up just now. Where it was not told to, before there was such a policy,
// only lost SYNs end when they would.
void Connection::leave_unanswered(u64 now) {
  const RelayRow* told = row();
  if ((told && load(&told->timed)) || way_.outcome == Verdict::Drop || way_.stage == Stage::ChaosBase) engine::applied_wait(evidence(Direction::Uplink), way_.fault, now - since_ns_, silence_ns_);
  else count_fallback(shared_->segment, Fallback::Unsupported);
  close_all(false);
}

// What the kernel knows of the program's socket; nullptr: it is another's by now.
RelayRow* Connection::row() const {
  if (from_.row >= MISHAP_KERNEL_SOCKETS) return nullptr;
  RelayRow* row = &shared_->rows[from_.row];
  return load(&row->cookie) == from_.cookie ? row : nullptr;
}

// When the program's connect is to end by itself.
void Connection::allow(u64 patience_ns) const {
  const u64 patience_ms = (patience_ns + kMillisecond - 1) / kMillisecond + 1;  // the kernel counts from a millisecond already begun
  if (RelayRow* told = row()) store(&told->patience_ms, static_cast<u32>(std::clamp<u64>(patience_ms, 1, ~u32{0} / 2)));
}

void Connection::attempt() {
  sockaddr_storage to;
  const socklen_t length = address_of(from_.peer, from_.peer_port, 0, &to);
  phase_ = Phase::Connecting;
  attempt_ns_ = now_ns();
  due_ns_ = way_.limit_ns ? since_ns_ + way_.limit_ns : kNever;
  Journey journey = {{}, to, {}, MISHAP_SOURCE_OUTGOING};
  const bool within = shared_->sources.is_listened(from_.peer_port) && source_towards(to, length, &journey.source) && is_own(from_.peer, journey.source);
  if (within && from_.bound) address_of(from_.source, 0, 0, &journey.source);
  if (within) onward_.fd = shared_->sources.connect_from(journey, &source_port_, [this](int fd) { own_socket(shared_->segment, from_, Role::Connector, fd, attempt_ns_); });  // to the run itself
  const bool begun = onward_.fd >= 0;
  if (!begun) onward_.fd = shared_->spares.take(to.ss_family, Towards::Anybody);
  if (onward_.fd < 0) return answered(errno);
  if (!begun) own_socket(shared_->segment, from_, Role::Connector, onward_.fd, attempt_ns_);
  const bool under_way = begun || ((!from_.bound || bind_as_program(to.ss_family)) &&
                                   (connect(onward_.fd, reinterpret_cast<const sockaddr*>(&to), length) == 0 || errno == EINPROGRESS));
  if (!under_way || !watch(onward_, Onward)) return answered(errno);
  pollfd now = {onward_.fd, POLLIN | POLLOUT | POLLRDHUP, 0};  // on this host it is made by now
  if (poll(&now, 1, 0) > 0) happened(Onward, static_cast<u32>(now.revents));
}

// What the kernel saw of the program's socket; nullptr: it is closed.
const KernelSocket* Connection::program_socket() const {
  if (from_.row >= MISHAP_KERNEL_SOCKETS) return nullptr;
  const KernelSocket* socket = &shared_->sockets[from_.row];
  return load(&socket->owner.cookie) == from_.cookie ? socket : nullptr;
}

void Connection::notice_leaving() {
  if (phase_ != Phase::Connecting && phase_ != Phase::Answering) return;
  const KernelSocket* socket = program_socket();
  if (!socket || load(&socket->tcp_state) == TCP_CLOSE) close_all(false);
}

// The address that the program chose, for the peer to see; with any port, as its own is taken.
bool Connection::bind_as_program(int family) const {
  const int on = 1;
  sockaddr_storage source;
  const socklen_t length = address_of(from_.source, 0, 0, &source);
  if (source.ss_family != family) return true;  // it cannot be: the kernel takes but one family for both ends
  setsockopt(onward_.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  return bind(onward_.fd, reinterpret_cast<const sockaddr*>(&source), length) == 0;
}

// The program's patience ends before an answer is there.
void Connection::come_too_late() {
  phase_ = Phase::Leaving;
  error_ = ETIMEDOUT;
  way_.fault = Fault::ConnectTimeout;
  silence_ns_ = way_.limit_ns;
  due_ns_ = since_ns_ + way_.limit_ns;
}

// Whether the attempt succeeded is known here; the program learns it when the answer's way is over.
void Connection::answered(int error) {
  answered_ns_ = now_ns();
  if (way_.limit_ns && answered_ns_ + way_.answer_ns >= since_ns_ + way_.limit_ns) return come_too_late();
  error_ = error;
  if (!error && flow_) store(&flow_->rtt_ns, answered_ns_ - attempt_ns_);
  phase_ = Phase::Answering;
  due_ns_ = answered_ns_ + way_.answer_ns;
  if (way_.answer_ns == 0) advance(answered_ns_);
}

// Where getsockname() of the program looks (bpf/redirect.bpf.c), before its connect is completed. The port is there first,
// because the address says that both are.
void Connection::publish_local() const {
  RelayRow* told = row();
  sockaddr_storage local = {};
  socklen_t length = sizeof(local);
  if (!told || getsockname(onward_.fd, reinterpret_cast<sockaddr*>(&local), &length) != 0) return;
  u64 words[2] = {};
  store(&told->local_port, endpoint_into(local, reinterpret_cast<u8*>(words)));
  store(reinterpret_cast<u64*>(told->local), words[0]);
  store_release(reinterpret_cast<u64*>(told->local) + 1, words[1]);
}

// Both ends connect to one another: the program's SYN waits for ours (RFC 9293, simultaneous open).
void Connection::complete() {
  const int family = over_ipv4(from_) ? AF_INET : AF_INET6;
  sockaddr_storage to;
  const socklen_t length = address_of(from_.source, from_.source_port, 0, &to);
  if (onward_.fd >= 0) publish_local();
  due_ns_ = kNever;
  if (from_.early) {
    phase_ = Phase::Carrying;
    if (error_ || !watch(program_, Program)) reset();
    return;
  }
  phase_ = Phase::Completing;
  program_.fd = shared_->spares.take(family, Towards::Program);
  const bool begun = program_.fd >= 0 && to.ss_family == family && (connect(program_.fd, reinterpret_cast<sockaddr*>(&to), length) == 0 || errno == EINPROGRESS);
  if (!begun || !watch(program_, Program)) fail(ECONNREFUSED);
}

void Connection::fail(int error) {
  error_ = error;
  if (from_.early) return reset();  // connected long since, it can learn nothing else
  switch (error) {
    case ETIMEDOUT: break;  // as without us: the program's kernel has heard nothing either, and gives up in its own time
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EINVAL:
    case EACCES:
    case EPERM: return tell_unreachable(now_ns());
    default: shared_->raw.refuse(from_, shared_->port);
  }
  close_all(false);
}

void Connection::give_up() {
  if (phase_ == Phase::Leaving || phase_ == Phase::Connecting || phase_ == Phase::Answering || phase_ == Phase::Telling) fail(ECONNREFUSED);
}

// A kernel drops the ICMP that meets the program's thread at work on the socket, which a connect that has just sent its SYN
// may be. So it is told until it is seen to have heard, or for as long as it takes to send another SYN.
void Connection::tell_unreachable(u64 now) {
  const bool ipv4 = over_ipv4(from_);
  const KernelSocket* socket = program_socket();
  const bool listens = socket && load(&socket->tcp_state) == TCP_SYN_SENT;
  if (phase_ != Phase::Telling) told_ns_ = now;
  else if (!listens || now - told_ns_ > kSecond) return close_all(false);
  phase_ = Phase::Telling;
  const bool prohibits = error_ == EACCES || error_ == EPERM;
  shared_->raw.unreachable(from_, shared_->port, prohibits ? prohibited(ipv4) : error_ == EHOSTUNREACH ? no_host(ipv4) : no_network(ipv4));
  due_ns_ = now + std::max(kMillisecond, now - told_ns_);
}

void Connection::happened(Side side, u32 events) {
  End& end = side == Program ? program_ : onward_;
  const bool ended = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
  if ((events & EPOLLIN) || ended) {
    if (!end.readable_ns) end.readable_ns = now_ns();
    end.readable = true;
    end.closing |= ended;
  }
  if ((events & EPOLLOUT) || ended) {
    if (!end.writable) (side == Program ? down_ : up_).room_ns = now_ns();
    end.writable = true;
  }
  if (phase_ == Phase::Entering && side == Program && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
    entered(error_of(program_.fd, events));
  } else if (phase_ == Phase::Connecting && side == Onward && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
    answered(error_of(onward_.fd, events));
  } else if (phase_ == Phase::Completing && side == Program && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
    if (error_of(program_.fd, events) != 0 || error_ == ECONNRESET) return reset();  // the program is gone, or is to find its connection broken
    phase_ = Phase::Carrying;
  }
}

}  // namespace mishap::relay
