// The line out: bytes that leave later go to the courier as parcels (native/link/parcel.h), each with a copy of the socket it
// leaves through, so nothing has to happen in this process when they are due, and nothing is lost when it ends. One
// connection a process, made before the program can give up its rights to make one and shared with the children that fork.
// What the courier still holds for a flow is counted in the Flow, which is how a full line makes a program wait.
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"
#include "link/outbox.h"

namespace mishap {
namespace {

constexpr u64 kLineBytes = 16 << 20;   // what a flow's line holds, unless the program set SO_SNDBUF
constexpr u64 kOverdueNs = 200000000;
constexpr u64 kSliceNs = 50000000;     // how long faults' end may go unnoticed in a wait for room
constexpr int kParts = 64;

struct Courier {
  int fd;       // -1 none
  u64 cookie;   // of the connection: the number may mean something else by now
  u32 failed;   // 1: there is no courier to be had
  u32 busy;
  link::Outbox* outbox;
};
Courier courier = {-1, 0, 0, 0, nullptr};

// One parcel: true once the courier has it.
bool send_parcel_on(int connection, int fd, const link::Parcel& parcel, const iovec* parts, int count) {
  iovec all[kParts + 1] = {{const_cast<link::Parcel*>(&parcel), sizeof(parcel)}};
  memcpy(all + 1, parts, static_cast<size_t>(count) * sizeof(iovec));
  alignas(cmsghdr) u8 control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = all;
  message.msg_iovlen = static_cast<size_t>(count) + 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  for (;;) {
    if (real.sendmsg(connection, &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno != ETOOMANYREFS && errno != ENOBUFS && errno != ENOMEM) return false;
    timespec moment = {0, 1000000};  // the courier has descriptors of ours to take first
    real.syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, reinterpret_cast<long>(&moment), 0, 0, 0);
  }
}

// Memory to share with the courier; nullptr: large parcels carry their bytes like small ones.
link::Outbox* make_outbox(int connection) {
  rlimit limit;  // a file made larger than this ends the program
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < sizeof(link::Outbox)) return nullptr;
  int fd = static_cast<int>(real.syscall(SYS_memfd_create, reinterpret_cast<long>("mishap-outbox"), MFD_CLOEXEC | MFD_ALLOW_SEALING, 0, 0, 0, 0));
  if (fd < 0) return nullptr;
  void* memory = MAP_FAILED;
  if (ftruncate(fd, sizeof(link::Outbox)) == 0 && real.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
    memory = mmap(nullptr, sizeof(link::Outbox), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  link::Parcel parcel = {};
  parcel.magic = link::kParcelMagic;
  parcel.kind = link::ParcelKind::Outbox;
  bool sent = memory != MAP_FAILED && send_parcel_on(connection, fd, parcel, nullptr, 0);
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  if (memory != MAP_FAILED && !sent) munmap(memory, sizeof(link::Outbox));
  return sent ? static_cast<link::Outbox*>(memory) : nullptr;
}

int connect_courier() {
  int fd = real.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  memcpy(to.sun_path, self.courier_path, sizeof(to.sun_path));
  ucred peer;
  socklen_t length = sizeof(peer);
  int large = 4 << 20;
  bool there = real.connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 &&
               real.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid == load(&self.segment.header->courier_pid);
  if (!there) {
    real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    return -1;
  }
  real.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &large, sizeof(large));
  return make_private(fd);
}

// The connection to the courier, or -1. Made once; made again when the program closed it behind our back.
int courier_connection() {
  int fd = load(&courier.fd);
  if (is_private(fd) && cookie_of(fd) == load(&courier.cookie)) return fd;
  if (load(&courier.failed)) return -1;
  if (!swap_if(&courier.busy, 0u, 1u)) return -1;  // another thread is at it, or the one we interrupted
  fd = connect_courier();
  if (fd >= 0) {
    store(&courier.outbox, make_outbox(fd));
    store(&courier.cookie, cookie_of(fd));
    store(&courier.fd, fd);
  } else {
    store(&courier.failed, 1u);
  }
  store_release(&courier.busy, 0u);
  return fd;
}

bool send_parcel(int connection, int fd, const link::Parcel& parcel, const iovec* parts, int count) {
  if (connection < 0) return false;
  if (send_parcel_on(connection, fd, parcel, parts, count)) return true;
  if (errno == EPIPE || errno == ECONNRESET) {  // it is gone: from now on delays are waited for
    store(&courier.failed, 1u);
    if (swap_if(&courier.fd, connection, -1)) close_private(connection);
  }
  return false;
}

link::Parcel parcel_of(link::ParcelKind kind, const Socket& socket, u64 now, u64 due) {
  link::Parcel parcel = {};
  parcel.magic = link::kParcelMagic;
  parcel.kind = kind;
  parcel.stream = socket.stream;
  parcel.cookie = socket.cookie;
  parcel.flow = static_cast<u32>(socket.flow - self.segment.flows);
  parcel.policy = socket.policy;
  parcel.sent_ns = now;
  parcel.due_ns = due;
  return parcel;
}

u64 capacity_of(const Socket& socket) { return socket.send_buffer ? socket.send_buffer : kLineBytes; }

// Nothing sent later on a stream leaves before: moves the tail on and says when these bytes leave.
u64 behind_the_rest(Socket* socket, u64 due) {
  if (!socket->stream) return due;
  u64* tail = &socket->flow->line_tail_due_ns;
  for (u64 seen = load(tail);; seen = load(tail)) {
    if (seen >= due) return seen;
    if (swap_if(tail, seen, due)) return due;
  }
}

}  // namespace

void meet_courier() {
  for (u32 i = 0; active() && i < self.segment.count.policies; i++)
    if (engine::wants(self.segment, static_cast<i32>(i)).delays) {
      courier_connection();
      return;
    }
}

bool line_busy(const Socket& socket) { return socket.flow && load(&socket.flow->line_bytes) != 0; }

// As a kernel's send buffer: writable again once a third of it is free.
bool line_has_room(const Socket& socket) {
  return !socket.flow || load(&socket.flow->line_bytes) * 3 <= capacity_of(socket) * 2;
}

u64 room_on_line(const Socket& socket) {
  u64 used = load(&socket.flow->line_bytes), capacity = capacity_of(socket);
  return used < capacity ? capacity - used : 0;
}

bool can_line(const Outgoing& out, const Socket& socket) {
  if (out.control_length || (out.flags & (MSG_OOB | MSG_ZEROCOPY | MSG_FASTOPEN)) || out.to_length > sizeof(sockaddr_storage)) return false;
  if (!socket.stream && out.total > link::kParcelBytes) return false;
  if (is_private(load(&courier.fd)) || courier_connection() >= 0) return true;
  count(Fallback::NoCourier);
  return false;
}

bool no_way_to(int fd, int family, const sockaddr* to, socklen_t length) {
  int probe = real.socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);  // to connect it sends nothing
  if (probe < 0) return false;
  sockaddr_storage from = {};
  socklen_t size = sizeof(from);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&from), &size) == 0) {
    reinterpret_cast<sockaddr_in*>(&from)->sin_port = 0;  // where it is in IPv6 addresses too
    bind(probe, reinterpret_cast<sockaddr*>(&from), size);
  }
  int broadcasts = 0;
  size = sizeof(broadcasts);
  bool fails = real.connect(probe, to, length) != 0;
  if (fails && errno == EACCES && real.getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &broadcasts, &size) == 0) fails = !broadcasts;
  real.syscall(SYS_close, probe, 0, 0, 0, 0, 0);
  return fails;
}

bool fails_at_once(const Outgoing& out, Socket* socket) {
  constexpr u64 kLongest = 65507;
  if (socket->stream || socket->family == AF_UNIX) return false;
  if (out.total > kLongest || (kernel_events(out.fd) & POLLERR)) return true;
  if (!out.to) {
    sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    return getpeername(out.fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0;
  }
  Endpoint to;
  if (!endpoint_of(static_cast<const sockaddr*>(out.to), out.to_length, &to) || to.port == 0) return true;
  u64 destination = 14695981039346656037u;  // FNV-1a
  for (u8 byte : to.address) destination = (destination ^ byte) * 1099511628211u;
  if (load(&socket->routed) == destination) return false;
  if (no_way_to(out.fd, socket->family, static_cast<const sockaddr*>(out.to), out.to_length)) return true;
  store(&socket->routed, destination);
  return false;
}

u64 put_on_line(const Outgoing& out, Socket* socket, u64 skip, u64 bytes, const engine::Decision& d, u64 now) {
  const u64 due = behind_the_rest(socket, now + static_cast<u64>(d.delay_ns()));
  link::Parcel parcel = parcel_of(link::ParcelKind::Data, *socket, now, due);
  static_assert(link::kParcelParts == engine::kParts);
  memcpy(parcel.part_ns, d.part_ns, sizeof(parcel.part_ns));
  parcel.loss_fault = static_cast<u8>(d.loss_fault);
  parcel.copies = d.copies;
  parcel.send_flags = static_cast<u32>(out.flags);
  parcel.address_length = out.to ? out.to_length : 0;
  if (out.to) memcpy(&parcel.address, out.to, out.to_length);
  const int connection = courier_connection();
  u64 done = 0;
  do {
    iovec parts[kParts];
    u64 part = bytes - done;
    if (part > link::kParcelBytes) part = link::kParcelBytes;
    link::Outbox* outbox = part >= link::kWorthABlock ? load(&courier.outbox) : nullptr;
    parcel.block = outbox ? link::take_block(outbox) : 0;
    parcel.block_bytes = static_cast<u32>(part);
    int count = 0;
    if (parcel.block) gather(out.parts, out.count, skip + done, outbox->blocks[parcel.block - 1], part);
    else count = cut_parts(out.parts, out.count, skip + done, &part, parts, kParts);
    if (done + part < bytes && !socket->stream) return 0;  // a datagram in more pieces than one parcel takes
    add(&socket->flow->line_bytes, part);
    if (!send_parcel(connection, out.fd, parcel, parts, count)) {
      add(&socket->flow->line_bytes, u64{0} - part);
      if (parcel.block) link::give_back_block(outbox, parcel.block);
      break;
    }
    done += part;
    account_for(socket, Direction::Uplink, Account::Duplicated, d.copies * part);
    memset(parcel.part_ns, 0, sizeof(parcel.part_ns));  // the first pieces' wait stands for the whole step
  } while (done < bytes);
  return done;
}

// A connect that leaves later. Its one byte makes the line busy until the courier has begun it.
bool connect_on_line(int fd, Socket* socket, const sockaddr* to, socklen_t length, const engine::Decision& d, u64 now) {
  link::Parcel parcel = parcel_of(link::ParcelKind::Connect, *socket, now, behind_the_rest(socket, now + static_cast<u64>(d.delay_ns())));
  if (length > sizeof(parcel.address)) return false;
  memcpy(parcel.part_ns, d.part_ns, sizeof(parcel.part_ns));
  parcel.loss_fault = static_cast<u8>(d.loss_fault);
  parcel.address_length = length;
  memcpy(&parcel.address, to, length);
  u8 nothing = 0;
  iovec byte = {&nothing, 1};
  add(&socket->flow->line_bytes, u64{1});
  if (send_parcel(courier_connection(), fd, parcel, &byte, 1)) return true;
  add(&socket->flow->line_bytes, ~u64{0});
  return false;
}

// What happens to the stream behind its bytes, as late as they are: its end (Shutdown, Close), or an option that says when
// segments leave (Cork).
bool mark_on_line(int fd, Socket* socket, link::ParcelKind kind, u32 value) {
  if (!socket->flow || !socket->stream || socket->policy < 0 || !active()) return false;
  u64 now = now_ns();
  u64 clock_ns = 0, way = engine::foretell_ns(self.segment, socket->flow, Direction::Uplink, 0, 1, now, &clock_ns);
  if ((way < kShortestNs && !line_busy(*socket)) || load(&socket->flow->state) == static_cast<u8>(FlowState::Reset)) return false;
  link::Parcel parcel = parcel_of(kind, *socket, now, behind_the_rest(socket, now + way));
  parcel.value = value;
  return send_parcel(courier_connection(), fd, parcel, nullptr, 0);
}

// Lets a blocking send wait for room on its line; false with errno: a signal, SO_SNDTIMEO, or the connection broke.
bool await_room(int fd, Socket* socket, u64 bytes) {
  timeval patience = {};
  socklen_t length = sizeof(patience);
  real.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, &length);
  u64 most = static_cast<u64>(patience.tv_sec) * 1000000000 + static_cast<u64>(patience.tv_usec) * 1000, start = now_ns();
  Flow* flow = socket->flow;
  while (room_on_line(*socket) < bytes && line_busy(*socket)) {
    u32 seen = load_acquire(&flow->line_room);
    if (room_on_line(*socket) >= bytes) break;
    timespec slice = {0, static_cast<long>(kSliceNs)};
    long n = real.syscall(SYS_futex, reinterpret_cast<long>(&flow->line_room), FUTEX_WAIT, static_cast<long>(seen), reinterpret_cast<long>(&slice), 0, 0);
    if (n < 0 && errno == EINTR) return false;
    if (most && now_ns() - start >= most) {
      errno = EAGAIN;
      return false;
    }
    if (courier_lost(socket)) {
      errno = ECONNRESET;
      return false;
    }
  }
  return true;
}

// The courier died with bytes of this stream: they cannot be put back, so the connection ends as one that was cut.
bool courier_lost(Socket* socket) {
  const i32 pid = load(&self.segment.header->courier_pid);
  if (!line_busy(*socket) || (pid > 0 && (real.syscall(SYS_kill, pid, 0, 0, 0, 0, 0) == 0 || errno == EPERM))) return false;
  const u64 bytes = __atomic_exchange_n(&socket->flow->line_bytes, u64{0}, __ATOMIC_RELAXED);
  if (Stats* stats = stats_of(self.segment, socket->policy)) add(&stats->lost_held_bytes, bytes);
  account_for(socket, Direction::Uplink, Account::Cut, bytes);
  return true;
}

void cut_if_lost(int fd, Socket* socket) {
  // While its first bytes are not overdue there is no cause to ask.
  if (line_busy(*socket) && now_ns() > load(&socket->flow->line_head_due_ns) + kOverdueNs && courier_lost(socket)) break_connection(fd, socket, ErrorKind::Reset);
}

// Before bytes go straight to the kernel: those on the line go first. Faults have ended, so the courier sends them at once.
void drain_line(Socket* socket) {
  if (!socket->stream || !line_busy(*socket)) return;
  int kept = errno;
  while (line_busy(*socket) && !courier_lost(socket)) {
    u32 seen = load_acquire(&socket->flow->line_room);
    timespec slice = {0, static_cast<long>(kSliceNs)};
    if (!line_busy(*socket)) break;
    real.syscall(SYS_futex, reinterpret_cast<long>(&socket->flow->line_room), FUTEX_WAIT, static_cast<long>(seen), reinterpret_cast<long>(&slice), 0, 0);
  }
  errno = kept;
}

i32 take_line_error(Socket* socket) { return socket->flow ? __atomic_exchange_n(&socket->flow->line_error, 0, __ATOMIC_RELAXED) : 0; }

}  // namespace mishap
