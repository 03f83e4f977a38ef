// What the boundaries of the jail have in common: the order that main.cpp read from the command line, and one function a
// boundary. Each answers whether it holds, and says in one sentence on stderr why not.
#pragma once

#include <stddef.h>
#include <sys/resource.h>

namespace mishap::jail {

// Paths of the command line, as many as it gave.
struct Paths {
  const char** data;
  size_t count;
  const char** begin() const { return data; }
  const char** end() const { return data + count; }
};

struct Order {
  Paths read, write, run;
  const int* keep_fds;
  size_t keep_fd_count;
  rlim_t memory_bytes;  // 0: not limited
  bool proc;            // may read what /proc and /sys say of the process and the machine
  bool processes;       // may have children
  bool accept;          // may accept at listening sockets that were handed in
  bool unsafe;          // goes on where the kernel has no Landlock
  char** command;       // ends with nullptr, as argv does
};

// limits.cpp
bool limit_resources(const Order& order);
bool close_descriptors(const Order& order);
bool bind_children(const Order& order);
bool drop_privileges();

// landlock.cpp
struct Landlock {
  int abi;  // 0: the kernel has none
  bool scopes_signals() const { return abi >= 6; }
};
Landlock look_for_landlock();
bool restrict_files(const Order& order, Landlock landlock);

// filter.cpp
bool filter_syscalls(const Order& order, Landlock landlock);

// "mishap-jail: …: why errno says so"; answers false.
[[gnu::format(printf, 1, 2)]] bool fail(const char* format, ...);

}  // namespace mishap::jail
