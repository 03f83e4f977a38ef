// The run's cgroup: a child of the caller's, made for one run and removed with it. Its sockets are what the kernel's programs
// look at; whoever is still in it at the end goes back to where the run came from.
#pragma once

#include <string>
#include <vector>

#include "contract/types.h"

namespace mishap::loader {

// Where cgroup2 is mounted; empty: nowhere.
std::string cgroup_root();
// The cgroup2 folder of a process; empty: it has none.
std::string cgroup_of(i32 pid);
// Whether a cgroup is another one or lies within it.
bool holds(const std::string& cgroup, const std::string& other);
// Everybody in a cgroup and those within it.
std::vector<i32> processes_in(const std::string& cgroup);
// Moves a process; 0 or an errno.
int move_process(i32 pid, const std::string& cgroup);

class RunCgroup {
 public:
  // Makes the child. `error` gets a sentence where that fails, and path() is then empty.
  RunCgroup(i32 run, std::string* error);
  const std::string& path() const { return path_; }
  const std::string& parent() const { return parent_; }

 private:
  std::string parent_, path_;
};

// Moves everybody out to the parent and removes the cgroup, those that the run's programs made in it first. True: it is gone.
bool remove_cgroup(const std::string& path, const std::string& parent);

}  // namespace mishap::loader
