// Stops what the process would bring along or use up: memory without end (RLIMIT_DATA, which array buffers and threads' stacks
// count for too), core dumps, the caller's descriptors, root's capabilities, and a life longer than the caller's, of itself and of
// the programs that it starts.
//
// setrlimit(2), close_range(2), capabilities(7), prctl(2), pidfd_open(2)
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail.h"

namespace mishap::jail {

namespace {

constexpr rlim_t kDescriptors = 4096;  // Node itself opens about 20

struct Limit {
  int resource;
  rlim_t most;
};

}  // namespace

// Hard limits: they are never raised again, because no capability is left to do so.
bool limit_resources(const Order& order) {
  const Limit limits[] = {
      {RLIMIT_CORE, 0},
      {RLIMIT_MSGQUEUE, 0},
      {RLIMIT_MEMLOCK, 64 << 10},
      {RLIMIT_RTPRIO, 0},
      {RLIMIT_NICE, 0},
      {RLIMIT_NOFILE, kDescriptors},
      {RLIMIT_DATA, order.memory_bytes ? order.memory_bytes : RLIM_INFINITY},
  };
  for (const Limit& limit : limits) {
    rlimit now;
    if (getrlimit(static_cast<__rlimit_resource_t>(limit.resource), &now) != 0) return fail("a resource limit cannot be read");
    if (limit.most < now.rlim_max) now.rlim_max = limit.most;
    if (now.rlim_cur > now.rlim_max) now.rlim_cur = now.rlim_max;
    if (limit.resource == RLIMIT_DATA) now.rlim_cur = now.rlim_max;
    if (setrlimit(static_cast<__rlimit_resource_t>(limit.resource), &now) != 0) return fail("a resource limit cannot be set");
  }
  return true;
}

bool close_descriptors(const Order& order) {
  for (size_t n = 0; n < order.keep_fd_count; n++)
    if (fcntl(order.keep_fds[n], F_GETFD) < 0) return fail("--keep-fd %d is not open", order.keep_fds[n]);
  for (int fd = 0; fd < 3; fd++)  // else the first file that is opened would be the standard output
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return fail("/dev/null cannot be opened");
  for (unsigned first = 3;;) {
    unsigned kept = ~0u;
    for (size_t n = 0; n < order.keep_fd_count; n++) {
      const unsigned fd = static_cast<unsigned>(order.keep_fds[n]);
      if (fd >= first && fd < kept) kept = fd;
    }
    const unsigned last = kept == ~0u ? kept : kept - 1;
    if (first <= last && syscall(SYS_close_range, first, last, 0) != 0) return fail("descriptors cannot be closed");
    if (kept == ~0u) return true;
    first = kept + 1;
  }
}

// What the kernel binds to the caller's death is this process alone. With children there is one more beside it, outside the jail,
// which waits until it is gone and then ends the group, itself too. The output that it keeps open until then tells the caller
// when that was.
bool bind_children(const Order& order) {
  if (!order.processes) return true;
  const pid_t self = getpid();
  if (getpgrp() != self && setpgid(0, 0) != 0) return fail("a process group cannot be made");
  const int gone = static_cast<int>(syscall(SYS_pidfd_open, self, 0));
  if (gone < 0) return fail("children cannot be bound to this process");
  const pid_t watch = fork();
  if (watch < 0) return fail("children cannot be bound to this process");
  if (watch > 0) {
    close(gone);
    return true;
  }
  const int kept = dup2(gone, 3);
  syscall(SYS_close_range, kept + 1, ~0u, 0);
  pollfd wait = {kept, POLLIN, 0};
  while (poll(&wait, 1, -1) <= 0) {
  }
  kill(0, SIGKILL);
  _exit(0);
}

bool drop_privileges() {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return fail("the caller's death cannot be bound to");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail("no_new_privs cannot be set");
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // The bounding set is what exec would give root again. Where it cannot be emptied, for want of CAP_SETPCAP, no_new_privs keeps
  // exec from giving it.
  for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++) {
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capset, &header, none) != 0) return fail("capabilities cannot be dropped");
  return true;
}

}  // namespace mishap::jail
