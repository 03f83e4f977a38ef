// Sending what is due; see outlets.h.
#include "outlets.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <thread>

#include "engine/engine.h"

namespace mishap::courier {

using link::Parcel;
using link::ParcelKind;

namespace {

constexpr int kUnitsATurn = 16;  // sent on one flow before others
constexpr int kFlowsATurn = 64;  // served before the epoll set is looked at again
constexpr u64 kSendingNs = 10000;  // what a send takes until its bytes are out: it begins that much before they are due
constexpr int kLaterFlags = MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE;  // of the program's, what still means something

// Where a connection broke: there the kernel keeps an error, which the next send would take from the program.
bool broke(int fd) {
  pollfd look = {fd, POLLOUT, 0};
  if (poll(&look, 1, 0) < 1 || !(look.revents & POLLERR)) return false;
  tcp_info info;
  socklen_t length = sizeof(info);
  // POLLERR also tells of time stamps and zero-copy notices; then the connection still stands.
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || info.tcpi_state == TCP_CLOSE;
}

// Closes the copy, which may be the last. With SO_LINGER Linux lets that close() wait for the peer, whether or not the socket
// is non-blocking and whatever else is due: hence the one other thread there is.
void let_go(int fd) {
  linger wait = {};
  socklen_t length = sizeof(wait);
  getsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, &length);
  if (wait.l_onoff && wait.l_linger > 0) std::thread([fd] { close(fd); }).detach();
  else close(fd);
}

bool is_socket(int fd, u64 cookie) {
  u64 found = 0;
  socklen_t length = sizeof(found);
  return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_COOKIE, &found, &length) == 0 && found == cookie;
}

// A connect does not wait. Whether a socket blocks is shared with the program: changed for this one call, if it has to be.
int connect_later(int fd, const Parcel& parcel) {
  const int status = fcntl(fd, F_GETFL);
  if (!(status & O_NONBLOCK)) fcntl(fd, F_SETFL, status | O_NONBLOCK);
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&parcel.address), parcel.address_length);
  const int error = errno;
  if (!(status & O_NONBLOCK)) fcntl(fd, F_SETFL, status);
  return result == 0 || error == EINPROGRESS ? 0 : error;
}

}  // namespace

u64 now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * kSecond + static_cast<u64>(now.tv_nsec);
}

u64 Outlets::room() const {
  if (budget_.used_bytes > budget_.limit_bytes) return 0;
  return (budget_.limit_bytes - budget_.used_bytes) / link::DelayLine::cost(link::kParcelBytes);
}

void Outlets::take(const Parcel& parcel, const u8* data, u32 bytes, u64 sender, const std::shared_ptr<link::Outbox>& outbox, int fd) {
  Flow* flow = flow_of(parcel.flow, parcel.cookie);
  auto found = outlets_.find(parcel.cookie);
  if (flow && found == outlets_.end() && is_socket(fd, parcel.cookie)) {
    auto* outlet = new Outlet{parcel.cookie, parcel.flow, fd, parcel.stream, {parcel.stream, &budget_}};
    found = outlets_.emplace(parcel.cookie, outlet).first;
    fd = -1;
  }
  if (fd >= 0) close(fd);
  if (!flow || found == outlets_.end()) {  // there is no way out for them
    if (outbox) link::give_back_block(outbox.get(), parcel.block);
    if (parcel.kind == ParcelKind::Data) count_cut(flow, (u64{1} + parcel.copies) * bytes);
    return account(flow, bytes, 0);
  }
  Outlet* outlet = found->second.get();
  // Without memory the courier ends, and programs find their connections cut: honest, which a hole in a stream is not.
  if (parcel.kind == ParcelKind::Close && parcel.value) outlet->cut_ns = parcel.due_ns;
  if (!outlet->line.push(parcel, data, bytes, sender, outbox)) _exit(1);
  schedule(outlet);
  account(flow, 0, outlet->line.next_due_ns());
}

u64 Outlets::deliver() {
  u64 now = now_ns();
  const bool in_force = lease_holds(segment_, now);
  for (int i = 0; i < kFlowsATurn && !agenda_.empty(); i++, now = now_ns()) {
    auto [due_ns, outlet] = *agenda_.begin();
    if (in_force && due_ns > now + kSendingNs) break;
    serve(outlet, in_force ? now + kSendingNs : kNever);
  }
  return agenda_.empty() ? kNever : in_force ? agenda_.begin()->first : 0;
}

// Sends what a flow has due by then, some of it at least.
void Outlets::serve(Outlet* outlet, u64 until_ns) {
  link::DelayLine& line = outlet->line;
  const u64 before = line.bytes();
  if (outlet->stream && broke(outlet->fd)) cut(outlet);  // the program meets the error by itself
  if (outlet->blocked) cut(outlet);  // a close that leaves bytes unread drops what is unsent, and resets the connection
  for (int i = 0; i < kUnitsATurn && !line.empty() && line.next_due_ns() <= until_ns; i++) {
    const ssize_t n = attempt(*outlet);
    if (n == -EAGAIN) {
      block(outlet);
      break;
    }
    progress_ns_ = now_ns();
    if (n < 0) {
      if (n != -EPIPE) fail(*outlet, static_cast<int>(-n));  // which the next send meets by itself
      if (outlet->stream) {
        cut(outlet);
      } else {
        count_cut(flow_of(outlet->flow, outlet->cookie), link::DelayLine::unsent(*line.head()));
        line.drop_head();
      }
    } else if (line.left(static_cast<u32>(n))) {
      file_evidence(*outlet, line.head()->parcel);
      line.drop_head();
    }
  }
  settle(outlet, before - line.bytes());
}

// Does what the head of the line is due to do: how many bytes left, or the negative errno.
ssize_t Outlets::attempt(const Outlet& outlet) {
  const link::Unit& unit = *outlet.line.head();
  const Parcel& parcel = unit.parcel;
  if (parcel.kind == ParcelKind::Shutdown) shutdown(outlet.fd, SHUT_WR);
  if (parcel.kind == ParcelKind::Cork) setsockopt(outlet.fd, IPPROTO_TCP, TCP_CORK, &parcel.value, sizeof(parcel.value));
  if (parcel.kind == ParcelKind::Connect)
    if (int error = connect_later(outlet.fd, parcel)) return -error;
  if (parcel.kind != ParcelKind::Data || (outlet.stream && unit.bytes == 0)) return unit.bytes;

  iovec part = {const_cast<u8*>(unit.data) + unit.gone, unit.bytes - unit.gone};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (parcel.address_length) message.msg_name = const_cast<sockaddr_storage*>(&parcel.address);
  message.msg_namelen = parcel.address_length;
  const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (static_cast<int>(parcel.send_flags) & kLaterFlags);
  ssize_t n = sendmsg(outlet.fd, &message, flags);
  if (n < 0 && errno != EAGAIN && !outlet.stream) {  // what fails a datagram may be the answer to an earlier one
    fail(outlet, errno);
    n = sendmsg(outlet.fd, &message, flags);
  }
  return n < 0 ? -errno : n;
}

// Until its peer has room. Edge-triggered: errors and hang-ups, which nobody clears here, are told once.
void Outlets::block(Outlet* outlet) {
  outlet->blocked = true;
  if (outlet->watched) return;
  epoll_event event = {EPOLLOUT | EPOLLET, {.u64 = kBlocked | outlet->cookie}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, outlet->fd, &event) != 0) _exit(1);  // no memory, as above
  outlet->watched = true;
}

void Outlets::unblock(u64 cookie) {
  auto found = outlets_.find(cookie);
  if (found == outlets_.end()) return;
  found->second->blocked = false;
  found->second->unblocked_ns = now_ns();
  schedule(found->second.get());
}

void Outlets::give_up() {
  const sockaddr nowhere = {AF_UNSPEC, {}};
  while (!outlets_.empty()) {
    Outlet* outlet = outlets_.begin()->second.get();
    const u64 left_bytes = outlet->line.bytes();
    if (outlet->stream) connect(outlet->fd, &nowhere, sizeof(nowhere));
    fail(*outlet, ETIMEDOUT);
    cut(outlet);
    settle(outlet, left_bytes);
  }
}

// Puts an outlet where it belongs on the agenda, or off it while it can do nothing.
void Outlets::schedule(Outlet* outlet) {
  const u64 turn_ns = outlet->line.empty() ? kNever : outlet->blocked ? outlet->cut_ns : outlet->line.next_due_ns();
  if (outlet->turn_ns == turn_ns) return;
  if (outlet->turn_ns != kNever) agenda_.erase({outlet->turn_ns, outlet});
  if (turn_ns != kNever) agenda_.emplace(turn_ns, outlet);
  outlet->turn_ns = turn_ns;
}

// After bytes left: an empty outlet goes, its socket first, so that who sees the line empty may close for good.
void Outlets::settle(Outlet* outlet, u64 left_bytes) {
  Flow* flow = flow_of(outlet->flow, outlet->cookie);
  const u64 head_due_ns = outlet->line.next_due_ns();
  schedule(outlet);
  if (outlet->line.empty()) {
    if (outlet->watched) epoll_ctl(epoll_, EPOLL_CTL_DEL, outlet->fd, nullptr);  // the program's copy would keep it there
    let_go(outlet->fd);
    outlets_.erase(outlet->cookie);
  }
  account(flow, left_bytes, head_due_ns);
}

// ---- what programs and evidence see of it -----------------------------------------------------------------------------

// What the delay of a parcel came to, by the clock. Where it found the flow's peer without room, the link let it go when
// due, and the rest of the wait was the peer's.
void Outlets::file_evidence(const Outlet& outlet, const Parcel& parcel) const {
  engine::Decision decision;
  static_assert(link::kParcelParts == engine::kParts);
  memcpy(decision.part_ns, parcel.part_ns, sizeof(decision.part_ns));
  if (decision.delay_ns() <= 0 || !is_policy(segment_, parcel.policy)) return;
  decision.loss_fault = static_cast<Fault>(parcel.loss_fault);
  engine::Call call;
  call.segment = &segment_;
  call.policy = parcel.policy;
  const u64 left_ns = outlet.unblocked_ns > parcel.due_ns ? parcel.due_ns : now_ns();
  engine::delivered(call, decision, left_ns > parcel.sent_ns ? left_ns - parcel.sent_ns : 0);
}

void Outlets::fail(const Outlet& outlet, int error) const {
  if (Flow* flow = flow_of(outlet.flow, outlet.cookie)) swap_if(&flow->line_error, 0, i32{error});
}

// Tells the flow what its line holds now, and those who wait for room in it.
void Outlets::account(Flow* flow, u64 left_bytes, u64 head_due_ns) const {
  if (!flow) return;
  store(&flow->line_head_due_ns, head_due_ns);
  if (left_bytes == 0) return;
  u64 held = load(&flow->line_bytes);
  while (!swap_if(&flow->line_bytes, held, held > left_bytes ? held - left_bytes : 0)) held = load(&flow->line_bytes);
  add(&flow->line_room, 1u);
  syscall(SYS_futex, &flow->line_room, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Where the kernel watches, bytes that never leave are accounted for.
void Outlets::count_cut(Flow* flow, u64 bytes) const {
  if (flow && (load(&segment_.header->flags) & kHeaderKernel)) mishap::account(segment_, flow, Direction::Uplink, Account::Cut, bytes);
}

// What is on the line will not leave any more.
void Outlets::cut(Outlet* outlet) const {
  count_cut(flow_of(outlet->flow, outlet->cookie), outlet->line.unsent_bytes());
  outlet->line.clear();
}

// The flow's row, while it still is this socket's.
Flow* Outlets::flow_of(u32 row, u64 cookie) const {
  if (row >= segment_.count.flows || cookie == 0) return nullptr;
  Flow* flow = &segment_.flows[row];
  return load_acquire(&flow->cookie) == cookie ? flow : nullptr;
}

}  // namespace mishap::courier
