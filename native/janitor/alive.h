// Is that process still there? A pid alone does not say, since numbers are reused: the start time of proc(5), stat
// field 22, does. Shared by the janitor and by the sweep that a start of mishap makes.
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segment/segment.h"

namespace mishap {

// Clock ticks since boot at which the process started; 0 when it is gone or a zombie.
inline u64 start_time(i32 pid) {
  char path[32], text[1024];
  snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (length <= 0) return 0;
  text[length] = 0;
  const char* at = strrchr(text, ')');  // the name in parentheses may hold anything
  if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X') return 0;
  at++;
  for (int field = 3; field <= 22 && at; field++) {
    at = strchr(at, ' ');
    if (at) at++;
  }
  return at ? strtoull(at, nullptr, 10) : 0;
}

inline bool alive(i32 pid, u64 start) { return pid > 0 && start != 0 && start_time(pid) == start; }

// The next process from slot `from` on that carries the interceptor and lives; nullptr when there is none.
inline const Process* living_process(const Segment& segment, u32 from) {
  for (u32 i = from; i < segment.count.processes; i++) {
    const Process* process = &segment.processes[i];
    u32 state = load_acquire(&process->state);
    if (state == static_cast<u32>(ProcessState::Free) || state == static_cast<u32>(ProcessState::Gone)) continue;
    if (alive(load(&process->pid), load(&process->start))) return process;
  }
  return nullptr;
}

}  // namespace mishap
