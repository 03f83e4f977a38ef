// What the loader is asked to do, from its command line.
#pragma once

#include <string>

#include "established.h"
#include "kernel.h"

namespace mishap::loader {

extern const char kUsage[];

struct Order {
  std::string mode;  // run, attach, observe or probe
  std::string segment, cgroup;
  i32 uid = -1, gid = -1, run = 0;
  Watch watch;
  Treatment treatment;  // of connections that were there before an attach
};

// False: it is none.
bool read_order(int argc, char** argv, Order* order);

}  // namespace mishap::loader
