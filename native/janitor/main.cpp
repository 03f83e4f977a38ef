// mishap-janitor SEGMENT RUN_PID: removes the segment of a run that could not do so itself.
//
// A run that is killed leaves its file in /dev/shm while the program goes on (unfaulted: the owner's lock died with
// it, at once). The janitor waits on the run's pidfd; then, when the file is still there, until no process that
// carries the interceptor lives; then it removes the file. After an orderly end it finds nothing to do and leaves. It is started
// before the run makes its first file, so that there is no moment at which one could be left.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <string>

#include "alive.h"

using namespace mishap;

namespace {

constexpr int kPollMs = 200;

// Returns when the process is gone: at once where the kernel has pidfds, else within kPollMs.
void wait_until_gone(i32 pid, u64 start) {
  int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  while (alive(pid, start)) {
    if (fd < 0) {
      usleep(kPollMs * 1000);
    } else {
      pollfd wait = {fd, POLLIN, 0};
      poll(&wait, 1, -1);
    }
  }
  if (fd >= 0) close(fd);
}

bool exists(const char* path) {
  struct stat st;
  return lstat(path, &st) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || argv[1][0] != '/' || atoi(argv[2]) <= 0) {
    fputs("usage: mishap-janitor SEGMENT RUN_PID, with SEGMENT as an absolute path\n", stderr);
    return 2;
  }
  const std::string path = argv[1];
  const i32 run = atoi(argv[2]);
  const u64 run_start = start_time(run);

  // Nothing of the caller's is kept: neither its terminal, nor its directory, nor a pipe somebody waits to see closed.
  setsid();
  for (int signal_number : {SIGHUP, SIGINT, SIGQUIT}) signal(signal_number, SIG_IGN);
  if (chdir("/") != 0) return 1;
  long limit = sysconf(_SC_OPEN_MAX);
  if (syscall(SYS_close_range, 0u, ~0u, 0u) != 0)
    for (int fd = 0; fd < limit; fd++) close(fd);
  for (int fd = 0; fd < 3; fd++)
    if (open("/dev/null", O_RDWR) < 0) return 1;

  wait_until_gone(run, run_start);

  // A program between fork or exec and its registration is nowhere to be seen for a moment: two empty looks in a row.
  for (int empty = 0; empty < 2 && exists(path.c_str());) {
    Segment segment;
    const Process* found = nullptr;
    if (attach(path.c_str(), &segment) == AttachError::None) found = living_process(segment, 0);
    const i32 pid = found ? load(&found->pid) : 0;
    const u64 start = found ? load(&found->start) : 0;
    detach(&segment);
    if (found) {
      wait_until_gone(pid, start);
      empty = 0;
    } else {
      usleep(kPollMs * 1000);
      empty++;
    }
  }
  unlink(path.c_str());
  unlink((path + ".so").c_str());  // the interceptor's short name, where its own path could not be preloaded
  unlink((path + ".mailbox").c_str());
  unlink((path + ".courier").c_str());  // where the courier was killed too
  return 0;
}
