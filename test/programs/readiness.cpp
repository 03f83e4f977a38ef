// A program that knows how a network with a delay behaves, and checks that it gets one: every way of waiting for bytes, of
// sending them and of ending a connection, on real loopback sockets.
//
//   readiness CASE[,CASE...] [DOWN_MS [UP_MS [server]]]     "all" for every case; without delays what a bare network does
//
// Each case prints one line of JSON with what it measured, and says in one sentence what was wrong. In a connection, `near` is
// the end whose network is delayed: what it receives by DOWN_MS, what it sends by UP_MS. It is the end that connects; with
// "server" it is the one that accepts, from a peer outside of the run. The other end, `far`, goes past libc, so nothing delays
// it. Nothing may be early; lateness is allowed what a busy machine takes.
#include "readiness/transfers.h"
#include "readiness/waiting.h"

namespace {

struct Case {
  const char* name;
  void (*run)();
};
const Case kCases[] = {
    {"poll_level", poll_level},
    {"poll_zero", poll_zero},
    {"timeouts", timeouts},
    {"select_many", select_many},
    {"mixed", mixed},
    {"signal_masks", signal_masks},
    {"epoll_level", epoll_level},
    {"epoll_edge", epoll_edge},
    {"epoll_oneshot", epoll_oneshot},
    {"epoll_exclusive", epoll_exclusive},
    {"epoll_nested", epoll_nested},
    {"epoll_dup", epoll_dup},
    {"epoll_fork", epoll_fork},
    {"epoll_close", epoll_close},
    {"epoll_threads", epoll_threads},
    {"one_loop", one_loop},
    {"no_spin", no_spin},
    {"receive_blocking", receive_blocking},
    {"receive_peek", receive_peek},
    {"receive_waitall", receive_waitall},
    {"receive_timeout", receive_timeout},
    {"receive_lowat", receive_lowat},
    {"receive_fionread", receive_fionread},
    {"receive_signal", receive_signal},
    {"receive_threads", receive_threads},
    {"receive_fork", receive_fork},
    {"end_after_data", end_after_data},
    {"reset_after_data", reset_after_data},
    {"connect_good", connect_good},
    {"connect_refused", connect_refused},
    {"accepting", accepting},
    {"send_pipelined", send_pipelined},
    {"send_close", send_close},
    {"send_exit", send_exit},
    {"send_killed", send_killed},
    {"send_exec", send_exec},
    {"send_orphan", send_orphan},
    {"send_fork", send_fork},
    {"send_whole", send_whole},
    {"send_pressure", send_pressure},
    {"send_file", send_file},
    {"send_cork", send_cork},
    {"send_stdio", send_stdio},
    {"bulk", bulk},
    {"bulk_small", bulk_small},
    {"udp_waits", udp_waits},
    {"udp_sends", udp_sends},
    {"udp_exchange", udp_exchange},
};

// Each of several cases has a process of its own.
int run_each(const std::string& names, char** argv) {
  int failures = 0;
  for (const Case& each : kCases) {
    if (names != "all" && (',' + names + ',').find(std::string(",") + each.name + ',') == std::string::npos) continue;
    pid_t child = forked();
    if (child == 0) {
      argv[1] = const_cast<char*>(each.name);
      execv("/proc/self/exe", argv);
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status == 0) continue;
    failures++;
    case_name = each.name;
    if (WIFSIGNALED(status)) conclude(false, WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status)));
  }
  return failures ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fputs("usage: readiness CASE[,CASE...] [DOWN_MS [UP_MS [server]]], with the cases\n", stderr);
    for (const Case& each : kCases) fprintf(stderr, "  %s\n", each.name);
    return 2;
  }
  down_ms = argc > 2 ? atof(argv[2]) : 0;
  up_ms = argc > 3 ? atof(argv[3]) : 0;
  serving = argc > 4 && strcmp(argv[4], "server") == 0;
  case_pid = getpid();
  signal(SIGPIPE, SIG_IGN);
  const std::string name = argv[1];
  if (name == "all" || name.find(',') != std::string::npos) return run_each(name, argv);
  for (const Case& each : kCases) {
    if (name != each.name) continue;
    case_name = each.name;
    alarm(kCaseSeconds);
    each.run();
    conclude(true, "");
    _exit(0);
  }
  fprintf(stderr, "there is no case %s\n", argv[1]);
  return 2;
}
