// Who is attached to, or watched: a process that runs already, with what tells it from all others, whose it is and where its
// network is.
#pragma once

#include <string>

#include "contract/types.h"

namespace mishap::loader {

struct Subject {
  Subject() = default;
  ~Subject();
  Subject(const Subject&) = delete;

  // A process; why it cannot be had, in words, or empty.
  std::string find(i32 pid);
  // The first process of a cgroup; false: nobody is in it.
  bool find_in(const std::string& cgroup);

  // Whether it belongs to a run of mishap, which has its own faults for it.
  bool intercepted() const;

  i32 pid = 0;            // as we number it
  i32 inner_pid = 0;      // as its own pid namespace does, which with
  u32 pid_namespace = 0;  // that namespace's number names it for as long as it runs
  i32 uid = -1, gid = -1;
  int handle = -1;        // a pidfd: readable once it has ended
  int netns = -1;         // its network namespace; -1: it is ours, or
  bool reachable = true;  // it cannot be had

 private:
  void forget();
};

}  // namespace mishap::loader
