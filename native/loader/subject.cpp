// Finding a process; see subject.h.
#include "subject.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "cgroup.h"

namespace mishap::loader {
namespace {

constexpr u64 kKernelThread = 0x00200000;  // PF_KTHREAD of the kernel: field 9 of /proc/PID/stat

u64 inode_of(const std::string& path) {
  struct stat about;
  return stat(path.c_str(), &about) == 0 ? about.st_ino : 0;
}

u64 flags_of(const std::string& folder) {
  std::ifstream file(folder + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');  // the name in parentheses may hold anything
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 9; i++) fields >> field;
  return strtoull(field.c_str(), nullptr, 10);
}

bool has_ended(int handle) {
  pollfd ended = {handle, POLLIN, 0};
  return poll(&ended, 1, 0) != 0;
}

}  // namespace

Subject::~Subject() { forget(); }

void Subject::forget() {
  for (int* fd : {&handle, &netns}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

std::string Subject::find(i32 wanted) {
  forget();
  const std::string folder = "/proc/" + std::to_string(wanted);
  handle = static_cast<int>(syscall(SYS_pidfd_open, wanted, 0));
  if (handle < 0 && errno == ENOSYS) return "this kernel has no pidfds (Linux 5.3)";
  if (handle < 0 && errno != ESRCH && access(folder.c_str(), F_OK) == 0) return "it is a thread; its process is to be given";
  if (handle < 0) return "there is no such process";
  std::ifstream status(folder + "/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line.substr(line.find(':') + 1));
    i32 real = 0;
    if (line.rfind("Uid:", 0) == 0) words >> real >> uid;
    if (line.rfind("Gid:", 0) == 0) words >> real >> gid;
    if (line.rfind("NSpid:", 0) == 0)
      while (words >> real) inner_pid = real;  // the last one is its own namespace's
  }
  if (flags_of(folder) & kKernelThread) return "it is a thread of the kernel, which has no sockets of its own";
  char program[4096];
  const ssize_t n = readlink((folder + "/exe").c_str(), program, sizeof(program));
  const std::string path(program, n > 0 ? static_cast<size_t>(n) : 0);
  if (path.compare(path.rfind('/') + 1, 7, "mishap-") == 0) return "it is a part of mishap";
  pid_namespace = static_cast<u32>(inode_of(folder + "/ns/pid"));
  if (!pid_namespace) pid_namespace = static_cast<u32>(inode_of("/proc/self/ns/pid"));  // without the right to look
  if (inode_of(folder + "/ns/net") != inode_of("/proc/self/ns/net")) {
    netns = open((folder + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
    reachable = netns >= 0;
  }
  // All of this was its own, and not of a later process with its number, when it still runs.
  if (has_ended(handle)) return "there is no such process";
  if (uid < 0 || gid < 0 || inner_pid <= 0) return "/proc does not say whose it is";
  pid = wanted;
  return {};
}

bool Subject::find_in(const std::string& cgroup) {
  const std::vector<i32> processes = processes_in(cgroup);
  return std::any_of(processes.begin(), processes.end(), [this](i32 each) { return each > 0 && find(each).empty(); });
}

bool Subject::intercepted() const {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("/libmishap-interceptor.so") != std::string::npos) return true;
  return cgroup_of(pid).find("/mishap-") != std::string::npos;
}

}  // namespace mishap::loader
