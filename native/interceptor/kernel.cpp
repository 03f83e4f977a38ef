// The kernel's side, as this process sees it (contract/kernel.h): the table of sockets that the kernel's programs write is
// mapped here, read-only, so that whose a socket is and when its bytes arrived is known by the kernel's word; and the kernel
// is told which flows are carried here, and when a program sent what leaves later. Without it everything works as before.
//
//   mishap-loader ──SEGMENT.kernel: hello + the map──▶ meet_kernel(), once an image ──▶ rows, read without locks
//
// A row may change while it is read: what is copied out of it counts only if its cookie is the same before and behind.
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"

namespace mishap {
namespace {

constexpr timeval kPatience = {2, 0};  // the loader answers at once, unless it was stopped
constexpr u32 kTornRetries = 4;

struct Table {
  const KernelSocket* rows;
  u32 count;  // a power of two
};
Table table = {nullptr, 0};

// The one descriptor that came with a message; -1: none, or more.
int descriptor_with(msghdr* message) {
  int found = -1, extra = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
      if (found < 0) found = fd;
      else real.syscall(SYS_close, fd, 0, 0, 0, 0, 0), extra++;
    }
  }
  if (found < 0 || (extra == 0 && !(message->msg_flags & (MSG_CTRUNC | MSG_TRUNC)))) return found;
  real.syscall(SYS_close, found, 0, 0, 0, 0, 0);
  return -1;
}

// Whoever serves the map has to be this user, or root.
bool is_trusted(int connection) {
  ucred peer;
  socklen_t length = sizeof(peer);
  if (real.getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == geteuid();
}

// Connects and receives the hello; the descriptor of the map, or -1.
int ask_for_map(const char* path, KernelHello* hello) {
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof(to.sun_path)) return -1;
  memcpy(to.sun_path, path, strlen(path));
  const int connection = real.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connection < 0) return -1;
  real.setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));  // of the connect
  real.setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  int map = -1;
  if (real.connect(connection, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 && is_trusted(connection)) {
    alignas(cmsghdr) u8 control[CMSG_SPACE(4 * sizeof(int))] = {};
    iovec part = {hello, sizeof(*hello)};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    ssize_t n;
    do n = real.recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n >= 0) map = descriptor_with(&message);
    if (map >= 0 && n != sizeof(*hello)) {
      real.syscall(SYS_close, map, 0, 0, 0, 0, 0);
      map = -1;
    }
  }
  real.syscall(SYS_close, connection, 0, 0, 0, 0, 0);
  return map;
}

bool is_sound(const KernelHello& hello) {
  const bool power_of_two = (hello.rows & (hello.rows - 1)) == 0;
  return hello.magic == kMagic && hello.row_bytes == sizeof(KernelSocket) && power_of_two && hello.rows >= MISHAP_KERNEL_WINDOW &&
         hello.rows <= MISHAP_KERNEL_SOCKETS;
}

// Maps the rows. A map of the kernel's refuses a length that it does not have; a file would end us with SIGBUS instead.
Table map_table(int fd, const KernelHello& hello) {
  const u64 size = static_cast<u64>(hello.rows) * hello.row_bytes;
  struct stat about;
  if (real.syscall(SYS_fstat, fd, reinterpret_cast<long>(&about), 0, 0, 0, 0) != 0) return {};
  if (S_ISREG(about.st_mode) && static_cast<u64>(about.st_size) < size) return {};
  void* rows = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  return rows == MAP_FAILED ? Table{} : Table{static_cast<const KernelSocket*>(rows), hello.rows};
}

// Copies whole words, each by itself: the kernel writes at the same moment.
template <class T>
void copy_out(T* to, const T* from) {
  static_assert(sizeof(T) % sizeof(u64) == 0);
  for (u32 i = 0; i < sizeof(T) / sizeof(u64); i++) {
    const u64 word = load(reinterpret_cast<const u64*>(from) + i);
    memcpy(reinterpret_cast<u8*>(to) + i * sizeof(u64), &word, sizeof(word));
  }
}

// Copies part of a socket's row: false when the row was given to another meanwhile.
template <class T>
bool copy_while(const KernelSocket* row, u64 cookie, T* to, const T* from) {
  if (load_acquire(&row->owner.cookie) != cookie) return false;
  copy_out(to, from);
  fence_acquire();
  return load(&row->owner.cookie) == cookie;
}

}  // namespace

bool meet_kernel(const char* path) {
  KernelHello hello = {};
  const int fd = ask_for_map(path, &hello);
  if (fd < 0) return false;
  if (is_sound(hello)) table = map_table(fd, hello);
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  return table.rows != nullptr;
}

// Rows are freed where they are, so the window may have gaps.
const KernelSocket* kernel_socket(u64 cookie) {
  if (!table.rows || cookie == 0) return nullptr;
  for (u32 i = 0; i < MISHAP_KERNEL_WINDOW; i++) {
    const KernelSocket* row = &table.rows[(MISHAP_KERNEL_ROW(cookie) + i) & (table.count - 1)];
    if (load_acquire(&row->owner.cookie) == cookie) return row;
  }
  return nullptr;
}

bool carried_by_relay(u64 cookie) {
  const KernelSocket* row = kernel_socket(cookie);
  return row && (load(&row->flags) & (MISHAP_SOCKET_RELAYED | MISHAP_SOCKET_CLAIMED)) == MISHAP_SOCKET_RELAYED;
}

bool kernel_owner(u64 cookie, Owner* out) {
  const KernelSocket* row = kernel_socket(cookie);
  return row && copy_while(row, cookie, out, &row->owner);
}

// The slot that the next arrival goes to may be half written, so one fewer is read than are kept.
u32 kernel_arrivals(u64 cookie, KernelArrival out[kKernelArrivals]) {
  const KernelSocket* row = kernel_socket(cookie);
  for (u32 attempt = 0; row && attempt < kTornRetries; attempt++) {
    if (load_acquire(&row->owner.cookie) != cookie) return 0;
    const u64 count = load_acquire(&row->arrivals_count);
    KernelArrival ring[MISHAP_KERNEL_ARRIVALS];
    for (u32 i = 0; i < MISHAP_KERNEL_ARRIVALS; i++)
      if (!copy_while(row, cookie, &ring[i], &row->arrivals[i])) return 0;
    if (load(&row->arrivals_count) != count) continue;
    const u32 found = count < kKernelArrivals ? static_cast<u32>(count) : kKernelArrivals;
    for (u32 i = 0; i < found; i++) {
      out[i] = ring[(count - found + i) % MISHAP_KERNEL_ARRIVALS];
      if (i && (out[i].end < out[i - 1].end || out[i].at_ns < out[i - 1].at_ns)) return 0;
    }
    return found;
  }
  return 0;
}

bool stream_received(int fd, u64* bytes) {
  tcp_info info = {};
  socklen_t length = sizeof(info);
  if (real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return false;
  if (length < offsetof(tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received)) return false;
  constexpr u32 kFinReceived = 1u << 6 | 1u << 8 | 1u << 9 | 1u << 11;  // TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING
  *bytes = info.tcpi_bytes_received - (info.tcpi_bytes_received && (kFinReceived >> info.tcpi_state & 1));
  return true;
}

// A flow whose other end carries the faults meets none of its policy here.
void claim_flow(int fd, Socket* socket) {
  if (!table.rows) return;
  const KernelClaim claim = {load(&socket->flow->carried_by_peer) ? -1 : socket->policy, 0};
  if (socket->claimed == claim.policy + 2) return;
  const int kept = errno;
  socket->claimed = claim.policy + 2;
  real.setsockopt(fd, MISHAP_KERNEL_LEVEL, MISHAP_KERNEL_CLAIM, &claim, sizeof(claim));
  socket->watched = kernel_socket(socket->cookie) != nullptr;
  errno = kept;
}

void claim_listener(int fd) {
  if (!table.rows) return;
  const int kept = errno;
  const KernelClaim claim = {-1, 0};
  real.setsockopt(fd, MISHAP_KERNEL_LEVEL, MISHAP_KERNEL_CLAIM, &claim, sizeof(claim));
  errno = kept;
}

void tell_call(int fd) {
  if (!table.rows) return;
  const int kept = errno;
  real.setsockopt(fd, MISHAP_KERNEL_LEVEL, MISHAP_KERNEL_CALL, nullptr, 0);
  errno = kept;
}

}  // namespace mishap
