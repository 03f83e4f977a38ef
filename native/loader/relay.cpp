// Starting the relay; see relay.h.
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vector>

#include "segment/atomic.h"

namespace mishap::loader {
namespace {

constexpr int kBeginsWithinMs = 5000;
constexpr int kEndsWithinMs = 2000;
constexpr u64 kSuspectNs = 400'000'000, kDoubtNs = 50'000'000;  // not heard of for so long, and for how long it is suspected
constexpr int kFirstKept = 3;  // native/relay/main.cpp has the order

// The program beside ours, opened while everything may be opened.
int open_program() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (n <= 0) return -1;
  const std::string folder(path, static_cast<size_t>(n));
  return open((folder.substr(0, folder.rfind('/') + 1) + "mishap-relay").c_str(), O_PATH | O_CLOEXEC);
}

// From here on the process is that user's, with the one right, and those that it takes to become another user: they survive
// the change of users and the program's start.
bool become(i32 uid, i32 gid, bool moves_on) {
  u32 rights = 1u << CAP_NET_RAW;
  if (moves_on) rights |= 1u << CAP_SETUID | 1u << CAP_SETGID;
  for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
    if (capability >= 32 || !(rights >> capability & 1)) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  const gid_t group = static_cast<gid_t>(gid);
  if (setgroups(0, nullptr) != 0 || setresgid(group, group, group) != 0) return false;
  const uid_t user = static_cast<uid_t>(uid);
  if (setresuid(user, user, user) != 0) return false;
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct kept[2] = {};
  kept[0].effective = kept[0].permitted = kept[0].inheritable = rights;
  if (syscall(SYS_capset, &header, kept) != 0) return false;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  for (u32 capability = 0; capability < 32; capability++)
    if ((rights >> capability & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0) return false;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

[[noreturn]] void wait_and_run(int program, const std::string& segment, const Subject* becomes) {
  char go;
  if (read(STDIN_FILENO, &go, 1) != 1) _exit(0);  // the loader is gone, or wants none
  char name[] = "mishap-relay";
  std::string path = segment, uid, gid;
  if (becomes) uid = std::to_string(becomes->uid), gid = std::to_string(becomes->gid);
  char* arguments[] = {name, path.data(), becomes ? uid.data() : nullptr, becomes ? gid.data() : nullptr, nullptr};
  char* environment[] = {nullptr};
  syscall(SYS_execveat, program, "", arguments, environment, AT_EMPTY_PATH);
  _exit(127);
}

}  // namespace

int RelayProcess::make(const Kernel& kernel, const std::string& segment, i32 uid, i32 gid, const Subject& subject) {
  int in[2], out[2];
  void* control = mmap(nullptr, sizeof(RelayControl), PROT_READ | PROT_WRITE, MAP_SHARED, kernel.control_fd(), 0);
  if (control == MAP_FAILED) return errno;
  control_ = static_cast<RelayControl*>(control);
  void* relayed = mmap(nullptr, sizeof(RelayRow) * MISHAP_KERNEL_SOCKETS, PROT_READ, MAP_SHARED, kernel.relayed_fd(), 0);
  if (relayed == MAP_FAILED) return errno;
  relayed_ = static_cast<const RelayRow*>(relayed);
  sockets_ = kernel.rows();
  raw_.open();
  const int program = open_program();
  if (program < 0) return errno;
  if (pipe2(in, O_CLOEXEC) != 0) return errno;
  if (pipe2(out, O_CLOEXEC) != 0) return errno;
  pid_ = fork();
  if (pid_ == 0) {
    setsid();
    for (const int number : {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP}) signal(number, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    setpriority(PRIO_PROCESS, 0, -20);  // it takes little, and always now: what is due does not wait for who computes
    // First out of the way of the numbers that they are to have.
    std::vector<int> wanted = {in[0], out[1], kernel.control_fd(), kernel.relayed_fd(), kernel.connects_fd(), kernel.rows_fd(), kernel.pool_fd()};
    if (kernel.takes_inbound()) wanted.insert(wanted.end(), {kernel.sources_fd(), kernel.listening_fd(), kernel.inbound_fd()});
    wanted.push_back(program);
    for (int& fd : wanted) fd = fcntl(fd, F_DUPFD, 64);
    dup2(wanted[0], STDIN_FILENO);
    dup2(wanted[1], STDOUT_FILENO);
    for (size_t i = 2; i < wanted.size(); i++) dup2(wanted[i], kFirstKept + static_cast<int>(i) - 2);
    const int kept = kFirstKept + static_cast<int>(wanted.size()) - 3;
    fcntl(kept, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, static_cast<unsigned>(kept + 1), ~0u, 0u);
    const bool moves_on = subject.uid >= 0 && (subject.uid != uid || subject.gid != gid);
    if (!become(uid, gid, moves_on)) _exit(126);
    wait_and_run(kept, segment, moves_on ? &subject : nullptr);
  }
  close(program);
  close(in[0]);
  close(out[1]);
  to_ = in[1];
  from_ = out[0];
  if (pid_ > 0) {
    handle_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
    state_ = State::There;
  }
  return pid_ < 0 ? errno : 0;
}

std::string RelayProcess::begin() {
  if (state_ != State::There) return missing_;
  if (write(to_, "g", 1) != 1) return strerror(errno);
  std::string said;
  pollfd wait = {from_, POLLIN, 0};
  while (said.find('\n') == std::string::npos) {
    char text[256];
    if (poll(&wait, 1, kBeginsWithinMs) <= 0) return "it did not begin";
    const ssize_t n = read(from_, text, sizeof(text));
    if (n <= 0) return said.empty() ? "it ended at once" : said;
    said.append(text, static_cast<size_t>(n));
  }
  said.resize(said.find('\n'));
  return said == "ready" ? "" : said;
}

void RelayProcess::finish() {
  if (state_ != State::There) return;
  close(to_);
  to_ = -1;
  state_ = State::Finishing;
}

bool RelayProcess::hangs() {
  if (end() < 0) return false;
  const u64 beat = __atomic_load_n(&control_->beat_ns, __ATOMIC_ACQUIRE), drain = __atomic_load_n(&control_->drain_ns, __ATOMIC_ACQUIRE);
  if (!beat && !drain) return false;  // it has not begun
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  const u64 now = static_cast<u64>(time.tv_sec) * 1'000'000'000 + static_cast<u64>(time.tv_nsec), last = beat > drain ? beat : drain;
  const u64 since = now > last ? now - last : 0;
  if (since <= kSuspectNs) suspected_ns_ = 0;
  else if (!suspected_ns_) suspected_ns_ = now;
  return since > MISHAP_RELAY_PATIENCE_NS && now - suspected_ns_ >= kDoubtNs;
}

void RelayProcess::ended(bool in_time) {
  lost_ = !in_time;
  state_ = State::Gone;
  if (!lost_) return;
  __atomic_store_n(&control_->beat_ns, u64{0}, __ATOMIC_RELEASE);
  kill(pid_, SIGKILL);
  gone_within(kEndsWithinMs);  // and with it its listeners: from then on the kernel itself refuses
  refuse_connects();
}

// Their SYNs were dropped in silence, and are sent again only after a second.
void RelayProcess::refuse_connects() const {
  for (u32 i = 0; i < MISHAP_KERNEL_SOCKETS; i++) {
    const KernelSocket& socket = sockets_[i];
    const RelayRow& row = relayed_[i];
    if (!(load(&socket.flags) & MISHAP_SOCKET_RELAYED) || load(&socket.tcp_state) != TCP_SYN_SENT || load(&row.cookie) != load(&socket.owner.cookie)) continue;
    RelayConnect connect = {};
    connect.family = static_cast<u8>(load(&socket.family));
    connect.isn = load(&row.isn);
    connect.source_port = load(&row.source_port);
    memcpy(connect.source, row.source, sizeof(connect.source));
    memcpy(connect.peer, row.peer, sizeof(connect.peer));
    raw_.refuse(connect, load(&control_->port));
  }
}

bool RelayProcess::gone_within(int patience_ms) const {
  pollfd gone = {handle_, POLLIN, 0};
  return handle_ < 0 || poll(&gone, 1, patience_ms) > 0;
}

RelayProcess::~RelayProcess() {
  if (to_ >= 0) close(to_);
  if (pid_ > 0) {
    if (!gone_within(kEndsWithinMs)) kill(pid_, SIGKILL);
    if (handle_ >= 0) close(handle_);
    waitpid(pid_, nullptr, WNOHANG);
  }
  if (from_ >= 0) close(from_);
  if (control_) munmap(control_, sizeof(RelayControl));
  if (relayed_) munmap(const_cast<RelayRow*>(relayed_), sizeof(RelayRow) * MISHAP_KERNEL_SOCKETS);
}

}  // namespace mishap::loader
