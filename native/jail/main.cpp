// mishap-jail: makes a jail of itself and becomes COMMAND in it.
//
//   mishap-jail [--read PATH]… [--write PATH]… [--run PATH]… [--proc] [--keep-fd N]… [--memory BYTES] [--processes]
//               [--accept] [--unsafe-no-jail] -- COMMAND [ARG]…
//
//   --read PATH       may be read; a directory means all beneath
//   --write PATH      may be written, and beneath a directory made, renamed and removed; does not imply --read
//   --run PATH        may be executed, which implies --processes
//   --proc            what /proc and /sys say of the process itself and of the machine may be read
//   --keep-fd N       stays open besides 0 to 2
//   --memory BYTES    private writable memory of a process (RLIMIT_DATA): heaps, array buffers, stacks
//   --processes       may have children, which are in the same jail and end with it
//   --accept          may take connections at listening sockets that come in from outside
//   --unsafe-no-jail  goes on, and says so, where the kernel has no Landlock
//
// What nobody granted is refused, by these boundaries in this order:
//
//   limits.cpp    resources, inherited descriptors, capabilities    rlimits, close_range(2), capabilities(7)
//   landlock.cpp  files, programs, signals, abstract sockets        landlock(7)
//   filter.cpp    everything else that the kernel offers            seccomp(2)
//
// The filter is last, because what comes before needs what it refuses. All of them outlive exec, reach every thread and child,
// and cannot be undone from inside. The environment is the caller's: it gives a clean one. COMMAND is a path. Exit status: the
// command's; 125 where the jail cannot be made, 126 where the command cannot be executed, each with a sentence on stderr.
#include "jail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <initializer_list>

namespace mishap::jail {

bool fail(const char* format, ...) {
  const int why = errno;
  va_list values;
  va_start(values, format);
  fputs("mishap-jail: ", stderr);
  vfprintf(stderr, format, values);
  va_end(values);
  if (why) fprintf(stderr, ": %s", strerror(why));
  fputc('\n', stderr);
  return false;
}

}  // namespace mishap::jail

using namespace mishap::jail;

namespace {

constexpr int kNoJail = 125, kNoCommand = 126;

// A whole number in decimal; false: it is none.
bool number(const char* text, unsigned long long* value) {
  char* end;
  errno = 0;
  *value = strtoull(text, &end, 10);
  return *text >= '0' && *text <= '9' && !*end && !errno;
}

bool misused(const char* what) {
  errno = 0;
  return fail("%s; usage: mishap-jail [--read PATH]... [--write PATH]... [--run PATH]... [--proc] [--keep-fd N]... "
              "[--memory BYTES] [--processes] [--accept] [--unsafe-no-jail] -- COMMAND [ARG]...", what);
}

// Lists are as long as the command line at most.
bool read_arguments(int argc, char** argv, Order* order) {
  const size_t most = static_cast<size_t>(argc);
  for (Paths* paths : {&order->read, &order->write, &order->run}) {
    paths->data = static_cast<const char**>(calloc(most, sizeof(char*)));
    if (!paths->data) return fail("no memory");
  }
  int* fds = static_cast<int*>(calloc(most, sizeof(int)));
  if (!fds) return fail("no memory");
  order->keep_fds = fds;

  for (int n = 1; n < argc; n++) {
    const char* name = argv[n];
    if (!strcmp(name, "--")) {
      order->command = argv + n + 1;
      break;
    }
    if (!strcmp(name, "--proc")) {
      order->proc = true;
      continue;
    }
    if (!strcmp(name, "--processes")) {
      order->processes = true;
      continue;
    }
    if (!strcmp(name, "--accept")) {
      order->accept = true;
      continue;
    }
    if (!strcmp(name, "--unsafe-no-jail")) {
      order->unsafe = true;
      continue;
    }
    Paths* paths = !strcmp(name, "--read")    ? &order->read
                   : !strcmp(name, "--write") ? &order->write
                   : !strcmp(name, "--run")   ? &order->run
                                              : nullptr;
    const bool keep = !strcmp(name, "--keep-fd"), memory = !strcmp(name, "--memory");
    if (!paths && !keep && !memory) return misused("an option that there is not");
    if (++n == argc) return misused("an option without its value");
    unsigned long long value = 0;
    if (paths) {
      paths->data[paths->count++] = argv[n];
    } else if (!number(argv[n], &value) || (keep && value > 1 << 20) || (memory && !value)) {
      return misused(keep ? "--keep-fd takes a descriptor's number" : "--memory takes a number of bytes");
    } else if (keep) {
      fds[order->keep_fd_count++] = static_cast<int>(value);
    } else {
      order->memory_bytes = value;
    }
  }
  if (!order->command || !order->command[0]) return misused("a command is missing");
  if (!strchr(order->command[0], '/')) return misused("COMMAND has to be a path");
  if (order->run.count) order->processes = true;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Order order = {};
  if (!read_arguments(argc, argv, &order)) return kNoJail;
  const Landlock landlock = look_for_landlock();
  if (!landlock.abi) {
    errno = 0;
    if (!order.unsafe) {
      fail("this kernel has no Landlock (Linux 5.13 and later, enabled at boot), without which files and programs are open to a "
           "script: --unsafe-no-jail runs it all the same");
      return kNoJail;
    }
    fail("no Landlock on this kernel: every file that the user may read or write and every program is open to the script");
  }
  if (!limit_resources(order) || !close_descriptors(order) || !bind_children(order) || !drop_privileges() || !restrict_files(order, landlock) ||
      !filter_syscalls(order, landlock))
    return kNoJail;
  execv(order.command[0], order.command);
  fail("%s cannot be executed", order.command[0]);
  return kNoCommand;
}
