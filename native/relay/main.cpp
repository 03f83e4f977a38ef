// mishap-relay SEGMENT [UID GID]: carries the connections that the kernel's redirection hands over (contract/relay.h), under the same
// policies and by the same engine as the interceptor. The loader starts it, as the run's user, and hands it what it shares
// with the kernel's programs; once it has the segment it becomes the user that is given, whose program it is:
//
//   3 RelayControl, 1 row   4 RelayRow, 65536 rows   5 connects, a ring buffer of RelayConnect   6 KernelSocket, read-only
//   7 RelayPool, 1 row
//   8 RelaySource, 65536 rows   9 the run's listeners by port, read-only   10 a map of sockets, for the relay's own listeners
//
// Without the last three what programs accept is left alone.
// On its standard output it says "ready" once it listens and beats, or in one sentence why not. At the end of its standard
// input it beats no more, so that new connections go direct; what programs sent that are gone leaves when due, and what is
// connected then still ends in a reset.
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "loop.h"

using namespace mishap;
using namespace mishap::relay;

namespace {

constexpr int kLastSharedFd = 10;

void say(const char* text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0) return;  // nobody listens any more
}

// Due times are met, and there are as many descriptors as may be.
void claim_machine() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  setpriority(PRIO_PROCESS, 0, -20);  // where it may: it takes little, and always now
  // Short turns on the processor, and in return early ones (Linux 6.12): what is due does not wait for who computes.
  struct { u32 size, policy; u64 flags; i32 nice; u32 priority; u64 runtime_ns, deadline_ns, period_ns; } turn = {};
  turn.size = sizeof(turn);
  turn.nice = getpriority(PRIO_PROCESS, 0);
  turn.runtime_ns = kMillisecond / 10;
  syscall(SYS_sched_setattr, 0, &turn, 0);
}

// The user whose connections it makes; the right to raw sockets stays.
bool become(uid_t uid, gid_t gid) {
  prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  if (setgroups(0, nullptr) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) return false;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);  // the change of users has undone it
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct kept[2] = {};
  kept[0].effective = kept[0].permitted = 1u << CAP_NET_RAW;
  return syscall(SYS_capset, &header, kept) == 0;
}

// From here on nothing that needs a right is done. A raw socket is one itself: the run's programs are this user's too, and must
// not get at it (ptrace(2), pidfd_getfd(2)).
void drop_rights(bool keeps_raw_sockets) {
  if (keeps_raw_sockets) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  syscall(SYS_capset, &header, none);
}

}  // namespace

int main(int argc, char** argv) {
  if ((argc != 2 && argc != 4) || argv[1][0] != '/') {
    fputs("usage: mishap-relay SEGMENT [UID GID], with SEGMENT as an absolute path; mishap's loader starts it\n", stderr);
    return 2;
  }
  // Like the courier it lives apart from the run's terminal; of the loader's it keeps the two pipes and what is shared.
  setsid();
  for (int signal_number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) signal(signal_number, SIG_IGN);
  if (chdir("/") != 0) return 1;
  syscall(SYS_close_range, kLastSharedFd + 1, ~0u, 0u);

  Segment segment;
  const AttachError error = attach(argv[1], &segment);
  if (error != AttachError::None) {
    say((std::string("the segment cannot be used: ") + describe(error) + "\n").c_str());
    return 1;
  }
  Relay relay(segment);
  claim_machine();
  if (argc == 4 && !become(static_cast<uid_t>(atoi(argv[2])), static_cast<gid_t>(atoi(argv[3])))) {
    say((std::string("the program's user cannot be had: ") + strerror(errno) + "\n").c_str());
    return 1;
  }
  drop_rights(relay.open_raw());
  if (const char* problem = relay.open()) {
    say((std::string(problem) + ": " + strerror(errno) + "\n").c_str());
    return 1;
  }
  say("ready\n");
  relay.run();
  return 0;
}
