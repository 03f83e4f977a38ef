// The loop; see loop.h.
#include "loop.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

#include "address.h"

namespace mishap::relay {
namespace {

constexpr int kControlFd = 3, kRowsFd = 4, kConnectsFd = 5, kSocketsFd = 6, kPoolFd = 7, kSourcesFd = 8, kListeningFd = 9, kInboundFd = 10;  // main.cpp
constexpr u64 kBeatNs = 100 * kMillisecond;
constexpr u64 kBlockedNs = kSecond;          // without progress, after which the run no longer waits for what is left
constexpr u64 kOverNs = 100 * kMillisecond;  // as much when faults have ended
constexpr u64 kWakingNs = 50000;             // what waking takes: the timer rings that much before something is due
constexpr u64 kJustNowNs = 20 * kMillisecond;
constexpr int kServedATurn = 64;             // connections, before the epoll set is looked at again
constexpr u64 kPorts = 65536;

u32 early_key(const u8 address[16], u16 port) { return is_ipv4(address) ? port : 0x10000u + port; }

// A map of the kernel's, or a file of a test; nullptr with errno. A map refuses a length that it does not have, where a file
// would end us with SIGBUS.
void* map_rows(int fd, u64 size, int access) {
  struct stat about;
  if (fstat(fd, &about) != 0) return nullptr;
  if (S_ISREG(about.st_mode) && static_cast<u64>(about.st_size) < size) {
    errno = EINVAL;
    return nullptr;
  }
  void* rows = mmap(nullptr, size, access, MAP_SHARED, fd, 0);
  return rows == MAP_FAILED ? nullptr : rows;
}

}  // namespace

Relay::~Relay() {
  ring_buffer__free(ring_);
  connections_.clear();
  for (int fd : {shared_.epoll, timer_})
    if (fd >= 0) close(fd);
}

const char* Relay::map_shared() {
  control_ = static_cast<RelayControl*>(map_rows(kControlFd, sizeof(RelayControl), PROT_READ | PROT_WRITE));
  shared_.rows = static_cast<RelayRow*>(map_rows(kRowsFd, sizeof(RelayRow) * MISHAP_KERNEL_SOCKETS, PROT_READ | PROT_WRITE));
  shared_.sockets = static_cast<const KernelSocket*>(map_rows(kSocketsFd, sizeof(KernelSocket) * MISHAP_KERNEL_SOCKETS, PROT_READ));
  return control_ && shared_.rows && shared_.sockets ? nullptr : "what the kernel's programs share cannot be mapped";
}

const char* Relay::open_connects() {
  struct stat about;
  if (fstat(kConnectsFd, &about) != 0) return "there is nowhere to learn of connects from";
  if (!S_ISSOCK(about.st_mode)) {
    libbpf_set_print([](libbpf_print_level, const char*, va_list) { return 0; });
    auto taken = [](void* relay, void* data, size_t size) {
      static_cast<Relay*>(relay)->take(data, size);
      return 0;
    };
    ring_ = ring_buffer__new(kConnectsFd, taken, this, nullptr);
    if (!ring_) return "the kernel's ring of connects cannot be read";
  }
  return watch(kConnectsFd, EPOLLIN, kConnects) ? nullptr : "connects cannot be waited for";
}

bool Relay::open_raw() {
  const bool raw = shared_.raw.open();
  unheard_ = listeners_.open();  // its mark takes one too
  return raw;
}

const char* Relay::open_pool() {
  auto* pool = static_cast<RelayPool*>(map_rows(kPoolFd, sizeof(RelayPool), PROT_READ | PROT_WRITE));
  if (!pool) return "the kernel's table of destinations cannot be mapped";
  datagrams_.open(pool);
  return nullptr;
}

// Where the kernel has no part in it, programs accept for themselves.
void Relay::open_inbound() {
  auto* sources = static_cast<RelaySource*>(map_rows(kSourcesFd, sizeof(RelaySource) * MISHAP_RELAY_SOURCES, PROT_READ | PROT_WRITE));
  const auto* listening = static_cast<const u64*>(map_rows(kListeningFd, sizeof(u64) * kPorts, PROT_READ));
  if (!sources || !listening) return;
  shared_.sources.open(sources, listening);
  if (!inbound_.open(kInboundFd)) return;
  for (u32 i = 0; i < 2; i++) {
    if (const int fd = inbound_.listeners()[i]; fd >= 0) watch(fd, EPOLLIN | EPOLLET, kIncoming);
    store(&control_->early_ports[i], inbound_.port(i));
  }
}

const char* Relay::open() {
  shared_.epoll = epoll_create1(EPOLL_CLOEXEC);
  timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  shared_.counted = load(&shared_.segment.header->flags) & kHeaderKernel;
  if (shared_.epoll < 0 || timer_ < 0) return "no descriptors are to be had";
  if (void* rows = calloc(1, engine::kept_rows_bytes())) engine::keep_rows(rows);
  if (const char* problem = map_shared()) return problem;
  if (unheard_) return unheard_;
  if (const char* problem = open_connects()) return problem;
  if (const char* problem = open_pool()) return problem;
  open_inbound();
  // The timer by its edges: it is armed anew rather than read.
  if (!watch(timer_, EPOLLIN | EPOLLET, kTimer)) return "its timer cannot be watched";
  if (!watch(STDIN_FILENO, EPOLLIN, kInput)) finish();  // a file: at its end from the start
  shared_.port = listeners_.port();
  shared_.spares.open(shared_.port);
  store(&control_->netns, listeners_.netns());
  store(&control_->port, listeners_.port());
  beat();
  return nullptr;
}

bool Relay::watch(int fd, u32 events, u64 data) const {
  epoll_event event = {events, {.u64 = data}};
  return epoll_ctl(shared_.epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void Relay::run() {
  for (;;) {
    beat();
    const u64 next_ns = deliver();
    if (finishing_ns_ && settled()) break;
    wait(next_ns);
    take_incoming();
    read();
  }
  take_connects();  // handed over before connections went direct
  for (const auto& [id, connection] : connections_) connection->give_up();
}

// From the loop itself, so that one that hangs is not taken for one that carries.
void Relay::beat() {
  const u64 now = now_ns();
  shared_.in_force = lease_holds(shared_.segment, now);
  if (now - beat_ns_ < kBeatNs) return;
  beat_ns_ = now;
  keep_timed();
  incoming_ = true;  // those that there was no descriptor for, say
  store_release(finishing_ns_ ? &control_->drain_ns : &control_->beat_ns, now);
  for (const auto& [id, connection] : connections_) {
    connection->notice_leaving();
    settle(connection.get());  // those that waited for memory, too
  }
  datagrams_.keep_up();
}

// Whether some policy ends connects that take too long: then the kernel has to, and times them (bpf/redirect.bpf.c).
void Relay::keep_timed() {
  const u32 generation = load(&shared_.segment.header->generation);
  if (generation == generation_) return;
  generation_ = generation;
  bool timed = false;
  Row row;
  for (u32 i = 0; i < shared_.segment.count.policies && !timed; i++)
    timed = copy_row(shared_.segment, &shared_.segment.rows[i], &row) && (row.connect_timeout_ns || row.budget_action == static_cast<u8>(BudgetAction::Timeout));
  store(&control_->timed, static_cast<u8>(timed));
}

// Does some of what is due; everything is when faults have ended. When there is more: 0 at once, or kNever.
u64 Relay::deliver() {
  u64 now = now_ns();
  for (int i = 0; i < kServedATurn && !agenda_.empty(); i++, now = now_ns()) {
    const auto [due_ns, id] = *agenda_.begin();
    if (due_ns > now + kSendingNs && shared_.in_force) break;
    Connection* connection = connections_.at(id).get();
    connection->advance(now);
    progress_ns_ = now;
    settle(connection);
  }
  const u64 next_ns = agenda_.empty() ? kNever : shared_.in_force ? agenda_.begin()->first : 0;
  return std::min(next_ns, datagrams_.deliver());
}

// Puts a connection where it belongs on the agenda and among those to be read; one that is over goes.
void Relay::settle(Connection* connection) {
  const u64 turn_ns = connection->over() ? kNever : connection->next_ns();
  if (connection->turn_ns != turn_ns) {
    if (connection->turn_ns != kNever) agenda_.erase({connection->turn_ns, connection->id});
    if (turn_ns != kNever) agenda_.emplace(turn_ns, connection->id);
    connection->turn_ns = turn_ns;
  }
  if (connection->over() || connection->in_line || !connection->hungry()) return;
  connection->in_line = true;
  hungry_.push_back(connection->id);
}

// Sleeps until something is due or happens, and sees to the latter.
void Relay::wait(u64 next_ns) {
  const u64 now = now_ns(), wake_ns = next_ns > kWakingNs && next_ns != kNever ? next_ns - kWakingNs : next_ns;
  const bool at_once = wake_ns <= now || !hungry_.empty() || incoming_;
  if (!at_once && wake_ns != kNever && wake_ns != armed_ns_) {
    itimerspec when = {{0, 0}, {static_cast<time_t>(wake_ns / kSecond), static_cast<long>(wake_ns % kSecond)}};
    timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
    armed_ns_ = wake_ns;
  }
  const u64 beat_in_ns = beat_ns_ + kBeatNs > now ? beat_ns_ + kBeatNs - now : 0;
  epoll_event events[256];
  if (!at_once) shared_.spares.refill();
  const int count = epoll_wait(shared_.epoll, events, 256, at_once ? 0 : static_cast<int>((beat_in_ns + kMillisecond - 1) / kMillisecond));
  for (int i = 0; i < count; i++) {
    const u64 data = events[i].data.u64;
    if (data == kInput) {
      char ignored[64];
      const ssize_t n = ::read(STDIN_FILENO, ignored, sizeof(ignored));
      if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) finish();
    } else if (data == kConnects) {
      take_connects();
    } else if (data == kIncoming) {
      incoming_ = true;
    } else if (data & Datagrams::kMark) {
      datagrams_.happened(data & ~Datagrams::kMark, events[i].events, buffer_.get());
    } else if (data != kTimer) {
      auto found = connections_.find(data >> 1);
      if (found == connections_.end()) continue;
      found->second->happened(static_cast<Connection::Side>(data & 1), events[i].events);
      settle(found->second.get());
    }
  }
}

// Everybody who has something is read from once; who is over goes.
void Relay::read() {
  std::vector<u64> turn;
  turn.swap(hungry_);
  for (u64 id : turn) {
    auto found = connections_.find(id);
    if (found == connections_.end()) continue;
    found->second->in_line = false;
    if (finishing_ns_ && !found->second->drains()) continue;
    found->second->read(buffer_.get());
    progress_ns_ = now_ns();
    settle(found->second.get());
  }
  std::erase_if(connections_, [&](const auto& entry) {
    const Connection& connection = *entry.second;
    if (!connection.over()) return false;
    if (auto newest = by_cookie_.find(connection.cookie()); newest != by_cookie_.end() && newest->second == connection.id) by_cookie_.erase(newest);
    return true;
  });
}

void Relay::take_connects() {
  if (ring_) {
    ring_buffer__consume(ring_);
    return;
  }
  RelayConnect connect;
  for (ssize_t n; (n = recv(kConnectsFd, &connect, sizeof(connect), MSG_DONTWAIT)) > 0;) take(&connect, static_cast<size_t>(n));
}

void Relay::take(const void* data, size_t size) {
  RelayConnect connect;
  if (size < sizeof(connect)) return;
  memcpy(&connect, data, sizeof(connect));
  if (connect.protocol == static_cast<u8>(Protocol::Udp)) return datagrams_.told(connect);
  if (connect.early) early_[early_key(connect.source, connect.source_port)] = connect;
  else begin(connect, -1);
}

void Relay::begin(const RelayConnect& connect, int program) {
  auto [newest, first] = by_cookie_.try_emplace(connect.cookie, next_id_);
  if (!first) connections_.at(newest->second)->leave_flow();
  newest->second = next_id_;
  Connection* connection = add(connect);
  connection->begin(program);
  settle(connection);
}

// The kernel told of it before its SYN, unless somebody else found the port.
void Relay::begin_early(int program, const sockaddr_storage& from) {
  take_connects();
  u8 address[16];
  const u16 port = endpoint_into(from, address);
  if (auto told = early_.extract(early_key(address, port))) begin(told.mapped(), program);
  else close(program);
}

// Some of the clients that wait, and of the programs that connect early.
void Relay::take_incoming() {
  for (int i = 0; incoming_ && i < kServedATurn; i++) {
    Journey journey;
    const int client = finishing_ns_ ? -1 : inbound_.accept_one(shared_.sources, &journey);
    incoming_ = client >= 0;
    if (!incoming_) return;
    if (journey.kind == MISHAP_SOURCE_OUTGOING) {
      begin_early(client, journey.client);
      continue;
    }
    Connection* connection = add({});
    connection->enter(client, journey);
    settle(connection);
  }
}

Connection* Relay::add(const RelayConnect& from) {
  const u64 id = next_id_++;
  return connections_.emplace(id, new Connection(&shared_, id, from)).first->second.get();
}

// The run ends: from now on connections go direct.
void Relay::finish() {
  if (finishing_ns_) return;
  finishing_ns_ = now_ns();
  store_release(&control_->drain_ns, finishing_ns_);
  store_release(&control_->beat_ns, u64{0});
  epoll_ctl(shared_.epoll, EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
}

// At the end of the run: whether nothing is left on the lines, or nothing that gets on.
bool Relay::settled() {
  bool left = false, moving = false;
  for (const auto& [id, connection] : connections_) {
    if (!connection->queued() && !connection->drains() && !connection->fails_by(finishing_ns_ + kJustNowNs)) continue;
    left = true;
    moving |= connection->next_ns() != kNever;
  }
  moving |= datagrams_.moves();
  left |= datagrams_.queued();
  if (!left) return true;
  if (moving && shared_.in_force) return false;
  const u64 now = now_ns();
  if (now - std::max(progress_ns_, finishing_ns_) < (shared_.in_force ? kBlockedNs : kOverNs)) return false;
  u64 unsent = 0;  // a peer that reads slowly makes room now and then only
  for (const auto& [id, connection] : connections_) unsent += connection->unsent();
  if (unsent == unsent_ || !shared_.in_force) return true;
  unsent_ = unsent;
  progress_ns_ = now;
  return false;
}

}  // namespace mishap::relay
