// mishap-courier SEGMENT [BYTES]: holds what a run's programs sent until it is due, then sends it. One a run, beside the
// programs, so that what they sent outlives their close, exec and death as bytes in a kernel's socket buffer do.
//
//   program ──parcel + its socket──▶ intake, here ──▶ the flow's delay line ──due──▶ real send, outlets.cpp
//
// It holds a copy of a socket only while that flow has something queued: with the last byte the copy closes, so that the
// program's own close is what ends the connection. On its standard output it says "ready", or in one sentence why not. At
// the end of its standard input it takes no more, sends what is left when due (at once when faults have ended) and leaves;
// "blocked" then says that all that is left waits for peers who do not read. BYTES bounds what it holds (512 MiB); past
// it, senders wait.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "outlets.h"

using namespace mishap;
using namespace mishap::courier;
using link::kParcelBytes;
using link::Parcel;
using link::ParcelKind;

namespace {

constexpr u64 kQueueBytes = u64{512} << 20, kFewestBytes = 300000;
constexpr int kLookMs = 100;                 // how long the end of the faults may go unnoticed
constexpr u64 kBlockedNs = kSecond;          // without progress, after which the run no longer waits for what is left
constexpr u64 kOverNs = 100 * kMillisecond;  // as much when faults have ended
constexpr u64 kAbandonNs = 60 * kSecond;     // and after which it is given up, as a kernel gives up orphaned sockets
constexpr u64 kFarFuture = u64{1} << 62;
constexpr i64 kLongestPart = i64{1} << 58;
constexpr u64 kParcelsATurn = 16;            // read from one sender before others, and before what is due
constexpr u64 kSpareFds = 64;
constexpr u64 kWakingNs = 50000;             // what waking takes: the timer rings that much before something is due

void say(const char* text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) return;  // nobody listens any more
}

// One message of a sender, as it is received.
struct Message {
  Parcel parcel;
  u8 data[kParcelBytes];
  alignas(cmsghdr) u8 control[CMSG_SPACE(sizeof(int))];
};

// Whether a message is a parcel: everything that is used as a size, an index or an enum, and nothing that could overflow.
bool is_sound(const Parcel& p, size_t length) {
  if (length < sizeof(Parcel) || p.magic != link::kParcelMagic) return false;
  const u8* raw = reinterpret_cast<const u8*>(&p);  // a bool or an enum out of range must not be read as one
  if (raw[offsetof(Parcel, kind)] > static_cast<u8>(ParcelKind::Outbox) || raw[offsetof(Parcel, stream)] > 1) return false;
  if (p.loss_fault >= kFaults || p.due_ns > kFarFuture || p.address_length > sizeof(p.address)) return false;
  if (p.block && (p.block > link::kBlocks || p.block_bytes > kParcelBytes)) return false;
  if (p.kind == ParcelKind::Connect && p.address_length < sizeof(sa_family_t)) return false;
  for (i64 part : p.part_ns)
    if (part < -kLongestPart || part > kLongestPart) return false;
  return true;
}

// The socket that came with a message; -1 none. Any more are closed.
int socket_with(msghdr* message) {
  int kept = -1;
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t n = 0; n < count; n++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + n * sizeof(int), sizeof(fd));
      if (kept < 0) kept = fd;
      else close(fd);
    }
  }
  return kept;
}

// An outbox that a program gave; nullptr where it is not one, or could be made smaller under our eyes.
std::shared_ptr<link::Outbox> map_outbox(int fd) {
  struct stat about;
  if (fstat(fd, &about) != 0 || about.st_size != sizeof(link::Outbox) || !(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK)) return nullptr;
  void* memory = mmap(nullptr, sizeof(link::Outbox), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return nullptr;
  return {static_cast<link::Outbox*>(memory), [](link::Outbox* outbox) { munmap(outbox, sizeof(link::Outbox)); }};
}

class Courier {
 public:
  Courier(const Segment& segment, std::string path, u64 queue_bytes)
      : segment_(segment), path_(std::move(path)), outlets_(segment_, epoll_, queue_bytes) {}
  // Why it cannot work; nullptr: it listens.
  const char* open();
  void run();

 private:
  void wait(u64 next_ns);
  void finish();
  bool settled();
  bool watch(int fd, u32 events) const;
  void listen_while_there_is_room();
  u64 room() const;
  void welcome();
  void read_from(int sender);

  Segment segment_;
  const std::string path_;
  const int epoll_ = epoll_create1(EPOLL_CLOEXEC);  // everything it waits for
  const int timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  const int listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  Outlets outlets_;
  std::unordered_map<int, std::shared_ptr<link::Outbox>> connections_;  // each with its outbox, if it has one
  const std::unique_ptr<Message[]> messages_{new Message[kParcelsATurn]};
  u64 fd_limit_ = 1024, armed_ns_ = 0;
  u64 finishing_ns_ = 0;  // since when; 0 not yet
  bool listening_ = true, said_blocked_ = false;
};

const char* Courier::open() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    fd_limit_ = limit.rlim_max;
  }
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  setpriority(PRIO_PROCESS, 0, -20);  // where it may: it takes little, and always now
  // Short turns on the processor, and in return early ones (Linux 6.12): what is due does not wait for who computes.
  struct { u32 size, policy; u64 flags; i32 nice; u32 priority; u64 runtime_ns, deadline_ns, period_ns; } turn = {};
  turn.size = sizeof(turn);
  turn.runtime_ns = kMillisecond / 10;
  syscall(SYS_sched_setattr, 0, &turn, 0);
  if (epoll_ < 0 || timer_ < 0 || listener_ < 0) return "no descriptors are to be had";

  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof(address.sun_path)) return "the segment's path is too long for a socket beside it";
  memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  unlink(path_.c_str());
  umask(0177);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(listener_, SOMAXCONN) != 0)
    return "no socket could be made beside the segment";
  // The timer by its edges: it is armed anew rather than read.
  if (!watch(listener_, EPOLLIN) || !watch(timer_, EPOLLIN | EPOLLET)) return "its sockets cannot be watched";
  if (!watch(STDIN_FILENO, EPOLLIN)) finish();  // a file: at its end from the start
  store(&segment_.header->courier_pid, i32{getpid()});
  return nullptr;
}

void Courier::run() {
  for (;;) {
    const u64 next_ns = outlets_.deliver();
    if (finishing_ns_ && settled()) break;
    wait(next_ns);
  }
  outlets_.give_up();
  store(&segment_.header->courier_pid, 0);
}

// Sleeps until something is due, a sender has something or a peer has room again, and sees to the latter two.
void Courier::wait(u64 next_ns) {
  listen_while_there_is_room();
  const u64 wake_ns = next_ns > kWakingNs && next_ns != kNever ? next_ns - kWakingNs : next_ns;
  const bool at_once = wake_ns <= now_ns();
  if (!at_once && wake_ns != kNever && wake_ns != armed_ns_) {
    itimerspec when = {{0, 0}, {static_cast<time_t>(wake_ns / kSecond), static_cast<long>(wake_ns % kSecond)}};
    timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
    armed_ns_ = wake_ns;
  }
  const bool idle = outlets_.count() == 0 && !finishing_ns_;
  epoll_event events[64];
  const int count = epoll_wait(epoll_, events, 64, at_once ? 0 : idle ? -1 : kLookMs);
  for (int i = 0; i < count; i++) {
    const u64 which = events[i].data.u64;
    const int fd = static_cast<int>(which);
    if (which & Outlets::kBlocked) {
      outlets_.unblock(which & ~Outlets::kBlocked);
    } else if (fd == STDIN_FILENO) {
      char ignored[64];
      const ssize_t n = read(STDIN_FILENO, ignored, sizeof(ignored));
      if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) finish();
    } else if (fd == listener_) {
      welcome();
    } else if (fd != timer_) {
      read_from(fd);
    }
  }
}

// The run ends. What was sent so far is taken in and delivered; who sends from now on gets EPIPE, and sends by himself
// once his flow's line_bytes have gone down to 0.
void Courier::finish() {
  finishing_ns_ = now_ns();
  unlink(path_.c_str());
  watch(STDIN_FILENO, 0);
  shutdown(listener_, SHUT_RDWR);  // nobody connects from here on; who did is still in line
  welcome();
  watch(listener_, 0);
  for (const auto& [sender, outbox] : connections_) shutdown(sender, SHUT_RD);  // what they sent stays readable, then comes the end
}

// At the end of the run: whether there is nothing left to do, or nothing left that would ever get done.
bool Courier::settled() {
  if (connections_.empty() && outlets_.count() == 0) return true;
  const u64 now = now_ns(), idle_ns = now - std::max(outlets_.progress_ns(), finishing_ns_);
  if (!outlets_.stuck() || idle_ns < (lease_holds(segment_, now) ? kBlockedNs : kOverNs)) return false;
  if (!said_blocked_) say("blocked\n");
  said_blocked_ = true;
  return idle_ns >= kAbandonNs;
}

// Watches a descriptor for these events; for none: no longer.
bool Courier::watch(int fd, u32 events) const {
  epoll_event event = {events, {.u64 = static_cast<u32>(fd)}};
  return epoll_ctl(epoll_, events ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event) == 0;
}

// ---- taking in --------------------------------------------------------------------------------------------------------

// How many parcels can be taken, each with a socket.
u64 Courier::room() const {
  return connections_.size() + outlets_.count() + kSpareFds < fd_limit_ ? std::min(outlets_.room(), kParcelsATurn) : 0;
}

void Courier::listen_while_there_is_room() {
  const bool wanted = room() > 0;
  if (wanted == listening_) return;
  listening_ = wanted;
  for (const auto& [sender, outbox] : connections_) watch(sender, wanted ? u32{EPOLLIN} : 0);
  if (!finishing_ns_) watch(listener_, wanted ? u32{EPOLLIN} : 0);
}

void Courier::welcome() {
  for (int sender; (sender = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    ucred peer = {0, ~0u, ~0u};
    socklen_t length = sizeof(peer);
    getsockopt(sender, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    if (peer.uid == geteuid() && (!listening_ || watch(sender, EPOLLIN))) connections_.try_emplace(sender);
    else close(sender);
  }
}

void Courier::read_from(int sender) {
  mmsghdr headers[kParcelsATurn] = {};
  iovec parts[kParcelsATurn];
  const u64 most = room();
  if (most == 0) return;
  for (u64 i = 0; i < most; i++) {
    parts[i] = {&messages_[i], offsetof(Message, control)};
    headers[i].msg_hdr.msg_iov = &parts[i];
    headers[i].msg_hdr.msg_iovlen = 1;
    headers[i].msg_hdr.msg_control = messages_[i].control;
    headers[i].msg_hdr.msg_controllen = sizeof(messages_[i].control);
  }
  const int count = recvmmsg(sender, headers, static_cast<unsigned>(most), MSG_DONTWAIT | MSG_CMSG_CLOEXEC, nullptr);
  bool ended = count < 0 && errno != EAGAIN && errno != EINTR;
  for (int i = 0; i < count; i++) {
    Parcel& parcel = messages_[i].parcel;
    const size_t length = headers[i].msg_len;
    const int fd = socket_with(&headers[i].msg_hdr);
    ended |= length == 0;
    if (ended || (headers[i].msg_hdr.msg_flags & MSG_TRUNC) || !is_sound(parcel, length)) {
      if (fd >= 0) close(fd);
      continue;
    }
#ifdef MISHAP_TEST_WAIT_HALF
    if (parcel.due_ns > parcel.sent_ns) parcel.due_ns -= (parcel.due_ns - parcel.sent_ns) / 2;  // evidence must show half
#endif
    std::shared_ptr<link::Outbox>& outbox = connections_[sender];
    if (parcel.kind == ParcelKind::Outbox) {
      if (!outbox) outbox = map_outbox(fd);
      close(fd);
    } else if (!parcel.block) {
      outlets_.take(parcel, messages_[i].data, static_cast<u32>(length - sizeof(Parcel)), static_cast<u64>(sender), nullptr, fd);
    } else if (outbox) {
      outlets_.take(parcel, outbox->blocks[parcel.block - 1], parcel.block_bytes, static_cast<u64>(sender), outbox, fd);
    } else if (fd >= 0) {
      close(fd);
    }
  }
  if (!ended) return;
  connections_.erase(sender);
  close(sender);  // the only descriptor of this connection, so epoll forgets it too
}

}  // namespace

int main(int argc, char** argv) {
  const u64 queue_bytes = argc == 3 ? strtoull(argv[2], nullptr, 10) : kQueueBytes;
  if (argc < 2 || argc > 3 || argv[1][0] != '/' || queue_bytes < kFewestBytes) {
    fputs("usage: mishap-courier SEGMENT [BYTES], with SEGMENT as an absolute path and BYTES of at least 300000\n", stderr);
    return 2;
  }
  const std::string path = argv[1];

  // Like the janitor it lives apart from the run's terminal; of the caller's it keeps the two pipes that tie it to the run.
  setsid();
  for (int signal_number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) signal(signal_number, SIG_IGN);
  if (chdir("/") != 0) return 1;
  syscall(SYS_close_range, 3u, ~0u, 0u);

  Segment segment;
  const AttachError error = attach(path.c_str(), &segment);
  if (error != AttachError::None) {
    say((std::string("the segment cannot be used: ") + describe(error) + "\n").c_str());
    return 1;
  }
  Courier courier(segment, path + ".courier", queue_bytes);
  if (const char* problem = courier.open()) {
    say((std::string(problem) + ": " + strerror(errno) + "\n").c_str());
    return 1;
  }
  say("ready\n");
  courier.run();
  return 0;
}
