// Treating connections where they are; see established.h.
#include "established.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "cgroup.h"
#include "flows.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

namespace mishap::loader {
namespace {

constexpr u8 kTcpEstablished = 1, kTcpCloseWait = 8;

// Calls `use` with a copy of each of a process's descriptors that is a socket; an errno where they cannot be had.
int each_socket(i32 pid, int handle, const std::function<void(int)>& use) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd";
  DIR* folder = opendir(path.c_str());
  if (!folder) return errno;
  int problem = 0;
  while (const dirent* entry = readdir(folder)) {
    char link[64];
    const ssize_t n = readlinkat(dirfd(folder), entry->d_name, link, sizeof(link));
    if (n < 8 || memcmp(link, "socket:[", 8) != 0) continue;
    const int fd = static_cast<int>(syscall(SYS_pidfd_getfd, handle, atoi(entry->d_name), 0));
    if (fd >= 0) {
      use(fd);
      close(fd);
    } else if (errno != EBADF) {  // closed just now
      problem = errno;
    }
  }
  closedir(folder);
  return problem;
}

template <class T>
bool option(int fd, int level, int name, T* value) {
  socklen_t length = sizeof(*value);
  return getsockopt(fd, level, name, value, &length) == 0 && length == sizeof(*value);
}

u64 cookie_of(int fd) {
  u64 cookie = 0;
  return option(fd, SOL_SOCKET, SO_COOKIE, &cookie) ? cookie : 0;
}

bool set_pace(int fd, u64 bytes_per_s) { return setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_s, sizeof(bytes_per_s)) == 0; }

}  // namespace

void Established::treat_one(i32 pid, int fd, const Treatment& treatment) {
  int protocol = 0;
  tcp_info info = {};
  socklen_t length = sizeof(info);
  if (!option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) || protocol != IPPROTO_TCP) return;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || (info.tcpi_state != kTcpEstablished && info.tcpi_state != kTcpCloseWait)) return;
  const u64 cookie = cookie_of(fd);
  if (!cookie || std::find(seen_.begin(), seen_.end(), cookie) != seen_.end()) return;
  seen_.push_back(cookie);
  if (treatment.reset) {
    // To connect to nothing is to let go of a connection: its peer gets a RST, and whoever uses it ECONNRESET.
    const sockaddr nowhere = {AF_UNSPEC, {}};
    if (connect(fd, &nowhere, sizeof(nowhere)) == 0) reset_++;
    else problem_ = strerror(errno);
    return;
  }
  if (treatment.silent && info.tcpi_bytes_acked + info.tcpi_bytes_received >= treatment.silent_after) {
    if (bpf_map_update_elem(kernel_.silent_fd(), &cookie, &treatment.silent, BPF_ANY) == 0) silenced_++;
    else problem_ = strerror(errno);
  }
  if (treatment.pace) {
    u64 before = 0;
    if (option(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &before) && set_pace(fd, treatment.pace)) paced_.push_back({pid, cookie, before});
    else problem_ = strerror(errno);
  }
}

std::string Established::treat(const Treatment& treatment) {
  auto treat_process = [&](i32 pid, int handle) {
    if (const int error = each_socket(pid, handle, [&](int fd) { treat_one(pid, fd, treatment); })) problem_ = strerror(error);
  };
  if (subject_.handle >= 0 && cgroup_.empty()) treat_process(subject_.pid, subject_.handle);
  for (const i32 pid : cgroup_.empty() ? std::vector<i32>() : processes_in(cgroup_)) {
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (handle < 0) continue;  // it is gone
    treat_process(pid, handle);
    close(handle);
  }
  if (!paced_.empty() && keeper_ < 0) start_keeper();
  std::string cookies;
  for (const u64 cookie : seen_) cookies += (cookies.empty() ? "\"" : ",\"") + std::to_string(cookie) + "\"";
  const std::string counts = "{\"found\":[" + cookies + "],\"reset\":" + std::to_string(reset_) +
                             ",\"silenced\":" + std::to_string(silenced_) + ",\"paced\":" + std::to_string(paced_.size());
  return counts + (problem_.empty() ? "" : ",\"problem\":" + quoted(problem_)) + "}";
}

// What is silent ends with the kernel's programs; a pace has to be given back, also when we are killed.
void Established::start_keeper() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  keeper_ = fork();
  if (keeper_ == 0) {
    setsid();
    prctl(PR_SET_NAME, "mishap-keeper", 0, 0, 0);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) signal(number, SIG_IGN);
    dup2(ends[0], 3);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    for (int fd = 0; fd < 3; fd++) close(fd);
    char nothing;
    while (read(3, &nothing, 1) < 0 && errno == EINTR) {
    }
    while (!paced_.empty()) {
      const i32 pid = paced_.back().pid;
      const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
      if (handle >= 0) each_socket(pid, handle, [&](int fd) {
        const u64 cookie = cookie_of(fd);
        for (const Paced& paced : paced_)
          if (paced.cookie == cookie) set_pace(fd, paced.before);
      });
      if (handle >= 0) close(handle);
      std::erase_if(paced_, [pid](const Paced& paced) { return paced.pid == pid; });
    }
    _exit(0);
  }
  close(ends[0]);
  keeping_ = ends[1];
}

Established::~Established() {
  if (keeping_ >= 0) close(keeping_);
  if (keeper_ > 0) waitpid(keeper_, nullptr, 0);
}

}  // namespace mishap::loader
