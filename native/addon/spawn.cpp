// spawnTarget(): starts the program so that it cannot tell mishap is there. It shares our process group and session and
// owns the terminal as we did; it starts with default signal dispositions and nothing blocked; when it stops, we stop,
// so that the shell sees it; its raw wait status goes to JavaScript.
//
// Node's own spawn will not do: it resets the group, reports through its event loop, and cannot see a stop.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "exports.h"
#include "lease.h"

extern char** environ;

namespace mishap {
namespace {

// What the child needs, laid out before the fork: after it only async-signal-safe calls are made.
struct Plan {
  std::string file, cwd;
  std::vector<std::string> arguments, environment;
  std::vector<char*> argv, envp, shell_argv;
  std::vector<int> kept;
  rlimit open_files = {};
  bool restore_open_files = false;
};

// What went wrong in the child, through a pipe that a successful exec closes.
struct Failure {
  int error;
  bool directory;
};

std::vector<std::string> strings_of(Napi::Env env, Napi::Value value, const char* what) {
  if (!value.IsArray()) throw Napi::TypeError::New(env, std::string(what) + " must be an array of strings");
  Napi::Array from = value.As<Napi::Array>();
  std::vector<std::string> strings;
  for (u32 i = 0; i < from.Length(); i++) {
    Napi::Value one = from[i];
    if (!one.IsString()) throw Napi::TypeError::New(env, std::string(what) + " must be an array of strings");
    strings.push_back(one.As<Napi::String>().Utf8Value());
    if (strings.back().find('\0') != std::string::npos)
      throw Napi::TypeError::New(env, std::string(what) + " must not hold a NUL character");
  }
  return strings;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void become_target(const Plan& plan, int report) {
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; number++) sigaction(number, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  Failure failure = {0, false};
  if (plan.restore_open_files) setrlimit(RLIMIT_NOFILE, &plan.open_files);
  // Node marks every descriptor it was started with close-on-exec, even the standard ones.
  for (int fd = 0; fd <= 2; fd++) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
  }
  for (int fd : plan.kept) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
  }
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  if (!plan.cwd.empty() && chdir(plan.cwd.c_str()) != 0) {
    failure = {errno, true};
  } else {
    execve(plan.file.c_str(), plan.argv.data(), plan.envp.data());
    // A script without #! is the shell's, as with execvp(3).
    if (errno == ENOEXEC) execve("/bin/sh", plan.shell_argv.data(), plan.envp.data());
    failure.error = errno;
  }
  if (write(report, &failure, sizeof(failure)) < 0) _exit(126);
  _exit(127);
}

// Stopped, now? Between the stop and this moment the whole group may have been continued already.
bool is_stopped(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

int wait_for_end(pid_t pid) {
  for (;;) {
    // Looked at without being taken, so that is_stopped() can look again.
    siginfo_t info = {};
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WSTOPPED | WNOWAIT) != 0) {
      if (errno == EINTR) continue;
      return 0;
    }
    int status = 0;
    if (info.si_code == CLD_STOPPED) {
      suspend_all();
      if (is_stopped(pid)) {
        waitpid(pid, &status, WUNTRACED | WNOHANG);  // taken, so that the next wait does not see it again
        // Sent to this thread, so that it stops at this very line, and the process with it. Once somebody continues us,
        // the program goes on too.
        if (WIFSTOPPED(status)) pthread_kill(pthread_self(), SIGSTOP);
        kill(pid, SIGCONT);
      }
      continue_all();
      if (!WIFEXITED(status) && !WIFSIGNALED(status)) continue;
      return status;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
  }
}

// The soft limit of open files that our parent has: Node raised ours to the hard limit as it started, and programs that
// loop over or select() on every possible descriptor would notice.
void plan_open_files(Plan* plan) {
  rlimit own, parents;
  if (getrlimit(RLIMIT_NOFILE, &own) != 0 || prlimit(getppid(), RLIMIT_NOFILE, nullptr, &parents) != 0) return;
  if (parents.rlim_max != own.rlim_max || parents.rlim_cur >= own.rlim_cur) return;
  plan->open_files = {parents.rlim_cur, own.rlim_max};
  plan->restore_open_files = true;
}

}  // namespace

// spawnTarget(file, argv, env, {cwd?, keepFds?}, onExit): the pid; throws an Error with code and syscall.
Napi::Value spawn_target(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!info[0].IsString()) throw Napi::TypeError::New(env, "argument 1 must be a path");
  if (!info[3].IsObject()) throw Napi::TypeError::New(env, "argument 4 must be an object of options");
  if (!info[4].IsFunction()) throw Napi::TypeError::New(env, "argument 5 must be a function");
  Plan plan;
  plan.file = info[0].As<Napi::String>().Utf8Value();
  plan.arguments = strings_of(env, info[1], "argument 2");
  plan.environment = strings_of(env, info[2], "argument 3");
  if (plan.arguments.empty()) throw Napi::TypeError::New(env, "argument 2 must hold the program's name");
  Napi::Object options = info[3].As<Napi::Object>();
  if (options.Get("cwd").IsString()) plan.cwd = options.Get("cwd").As<Napi::String>().Utf8Value();
  if (options.Get("keepFds").IsArray()) {
    Napi::Array fds = options.Get("keepFds").As<Napi::Array>();
    for (u32 i = 0; i < fds.Length(); i++) plan.kept.push_back(Napi::Value(fds[i]).ToNumber().Int32Value());
  }
  plan.argv = pointers_to(plan.arguments);
  plan.envp = pointers_to(plan.environment);
  static char shell[] = "/bin/sh";
  plan.shell_argv = {shell, plan.file.data()};
  plan.shell_argv.insert(plan.shell_argv.end(), plan.argv.begin() + 1, plan.argv.end());
  plan_open_files(&plan);

  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) throw system_error(env, errno, "pipe2", "could not start " + plan.file);

  // No handler of Node's may run in the child before it has become the program.
  sigset_t every, kept;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &kept);
  const pid_t pid = fork();
  if (pid == 0) become_target(plan, report[1]);
  const int fork_error = errno;
  close(report[1]);
  Failure failure = {0, false};
  ssize_t length = 0;
  if (pid > 0)
    while ((length = read(report[0], &failure, sizeof(failure))) < 0 && errno == EINTR) {
    }
  close(report[0]);
  if (pid < 0 || length > 0) {
    pthread_sigmask(SIG_SETMASK, &kept, nullptr);
    if (pid < 0) throw system_error(env, fork_error, "fork", "could not start " + plan.file);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (failure.directory) throw system_error(env, failure.error, "chdir", "could not enter " + plan.cwd);
    throw system_error(env, failure.error, "execve", "could not execute " + plan.file);
  }

  auto on_exit = Napi::ThreadSafeFunction::New(env, info[4].As<Napi::Function>(), "mishap target", 0, 1);
  // Signals stay blocked in the waiter; it goes with the process if that ends first.
  std::thread([pid, on_exit]() mutable {
    pthread_setname_np(pthread_self(), "mishap-waiter");
    const int status = wait_for_end(pid);
    on_exit.BlockingCall([status](Napi::Env callback_env, Napi::Function callback) {
      callback.Call({Napi::Number::New(callback_env, status)});
    });
    on_exit.Release();
  }).detach();
  pthread_sigmask(SIG_SETMASK, &kept, nullptr);
  return Napi::Number::New(env, pid);
}

// hideProcess(): from now on no other process of this user can look into this one, take its descriptors or trace it.
void hide_process(const Napi::CallbackInfo& info) {
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) throw system_error(info.Env(), errno, "prctl", "could not close this process to others");
}

}  // namespace mishap
