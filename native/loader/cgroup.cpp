#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <vector>

namespace mishap::loader {
namespace {

constexpr int kRemovalTries = 200;
constexpr useconds_t kRemovalPauseUs = 5000;

// Cgroups whose loader was killed together with its keeper: mishap-<loader's pid>-<random>.
void sweep(const std::string& parent) {
  DIR* folder = opendir(parent.c_str());
  if (!folder) return;
  while (const dirent* entry = readdir(folder)) {
    int pid = 0;
    if (sscanf(entry->d_name, "mishap-%d-", &pid) == 1 && pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
      remove_cgroup(parent + "/" + entry->d_name, parent);
  }
  closedir(folder);
}

std::vector<std::string> folders_in(const std::string& path) {
  std::vector<std::string> found;
  DIR* folder = opendir(path.c_str());
  if (!folder) return found;
  while (const dirent* entry = readdir(folder))
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.') found.push_back(path + "/" + entry->d_name);
  closedir(folder);
  return found;
}

}  // namespace

std::string cgroup_root() {
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device, path, type;
    words >> device >> path >> type;
    if (type == "cgroup2") return path;
  }
  return {};
}

std::string cgroup_of(i32 pid) {
  const std::string root = cgroup_root();
  if (root.empty()) return {};
  std::ifstream lines("/proc/" + std::to_string(pid) + "/cgroup");
  for (std::string line; std::getline(lines, line);)
    if (line.rfind("0::", 0) == 0) return root + (line == "0::/" ? "" : line.substr(3));
  return {};
}

bool holds(const std::string& cgroup, const std::string& other) {
  const std::string folder = cgroup.substr(0, cgroup.find_last_not_of('/') + 1) + "/";
  return (other + "/").rfind(folder, 0) == 0;
}

std::vector<i32> processes_in(const std::string& cgroup) {
  std::vector<i32> found;
  std::ifstream processes(cgroup + "/cgroup.procs");
  for (i32 pid; processes >> pid;) found.push_back(pid);
  for (const std::string& child : folders_in(cgroup))
    for (const i32 pid : processes_in(child)) found.push_back(pid);
  return found;
}

int move_process(i32 pid, const std::string& cgroup) {
  const int fd = open((cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const std::string text = std::to_string(pid);
  const int error = write(fd, text.data(), text.size()) < 0 ? errno : 0;
  close(fd);
  return error;
}

RunCgroup::RunCgroup(i32 run, std::string* error) {
  parent_ = cgroup_of(run);
  if (parent_.empty()) {
    *error = "cgroup2 is not mounted here, so the run's sockets cannot be told from others";
    return;
  }
  sweep(parent_);
  u32 random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) random = static_cast<u32>(run);
  char name[64];
  snprintf(name, sizeof(name), "/mishap-%d-%08x", getpid(), random);
  if (mkdir((parent_ + name).c_str(), 0755) != 0) *error = "no cgroup can be made in " + parent_ + ": " + strerror(errno);
  else path_ = parent_ + name;
}

bool remove_cgroup(const std::string& path, const std::string& parent) {
  for (int tries = 0; tries < kRemovalTries; tries++) {
    for (const std::string& child : folders_in(path)) remove_cgroup(child, parent);
    if (rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
    std::ifstream processes(path + "/cgroup.procs");
    for (i32 pid; processes >> pid;) move_process(pid, parent);
    if (tries > 1) usleep(kRemovalPauseUs);  // somebody forks faster than we move, or a dead one has not left yet
  }
  return false;
}

}  // namespace mishap::loader
