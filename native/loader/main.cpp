// mishap-loader: the small privileged process beside a run. It loads the kernel's programs, keeps the run's cgroup, hands the
// sockets' rows to whoever carries the interceptor, and tells what was seen, in lines of JSON:
//
//   mishap-loader run --segment PATH --uid UID --gid GID --for PID [--arrivals] [--relay]
//   mishap-loader attach --segment PATH --uid UID --gid GID --pid N | --cgroup PATH [--arrivals]
//                 [--reset] [--silent up|down|both [--silent-after BYTES]] [--pace BYTES_PER_S]
//   mishap-loader observe --pid N | --cgroup PATH | --all
//   mishap-loader probe
//
//   stdin    join PID · leave PID · flows · relay · drain
//   stdout   {"ready":true,…} or {"error":"…"}, then a line or more an order; {"gone":true} when process N has ended
//
// It ends with its standard input, and with it everything it did: nothing is pinned, so the kernel itself detaches what is
// attached when it dies, however it dies. What it made besides, the cgroup and the socket's name, a keeper removes then: a
// child without rights to the kernel's programs that waits for just that.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include <fstream>
#include <string>
#include <vector>

#include "cgroup.h"
#include "established.h"
#include "flows.h"
#include "kernel.h"
#include "order.h"
#include "relay.h"
#include "subject.h"

using namespace mishap;
using namespace mishap::loader;

namespace {

constexpr int kTakeInMs = 100;  // the kernel's programs wake us only when there is much: bpf/common.h
constexpr char kNeedsRoot[] = "loading the kernel's programs needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
constexpr char kDrained[] = "{\"drained\":true}\n";

// Lines out. Whoever read them may be gone: then the end of stdin says so too.
void say(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(STDOUT_FILENO, text.data() + at, text.size() - at);
    if (n < 0 && errno != EINTR) return;
    if (n > 0) at += static_cast<size_t>(n);
  }
}
void say_error(const std::string& what) { say("{\"error\":" + quoted(what) + "}\n"); }

std::string hooks_text(const Kernel& kernel) {
  std::string text = "\"hooks\":[";
  const char* comma = "";
  for (const Hook& hook : kernel.hooks()) {
    if (!hook.ok && hook.reason.empty()) continue;  // it was not asked for
    text += std::string(comma) + "{\"name\":" + quoted(hook.name) + ",\"for\":" + quoted(hook.purpose) + ",\"ok\":" + (hook.ok ? "true" : "false");
    if (!hook.ok) text += ",\"reason\":" + quoted(hook.reason);
    text += "}";
    comma = ",";
  }
  return text + "]";
}

bool has_rights() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  auto has = [&](u32 capability) { return (data[capability / 32].effective >> (capability % 32) & 1) != 0; };
  return has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON) && has(CAP_NET_ADMIN));
}

// From here on one capability is enough: what is loaded stays, and a cgroup's files are ours, but a root cgroup's folder lets
// not even its owner write. With a relay another: it is another user's, and one that hangs has to be ended, by us or, with
// us, by the kernel. Connections that are to be treated where they are take a third, to get at a process's descriptors.
void drop_rights(bool ends_relay = false, bool treats = false) {
  for (int capability = 0; capability <= CAP_LAST_CAP; capability++) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct kept[2] = {};
  kept[0].effective = kept[0].permitted = 1u << CAP_DAC_OVERRIDE | (ends_relay ? 1u << CAP_KILL : 0) | (treats ? 1u << CAP_SYS_PTRACE : 0);
  syscall(SYS_capset, &header, kept);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

// Waits for the loader's end and removes what it could not. Nothing of the caller's is kept.
pid_t start_keeper(const std::string& cgroup, const std::string& parent, const std::string& socket_path) {
  const int loader = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  const pid_t pid = fork();
  if (pid != 0) {
    if (loader >= 0) close(loader);
    return pid;
  }
  setsid();
  prctl(PR_SET_NAME, "mishap-keeper", 0, 0, 0);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) signal(number, SIG_IGN);
  const int kept = dup2(loader, 3);
  syscall(SYS_close_range, 4u, ~0u, 0u);
  for (int fd = 0; fd < 3; fd++) close(fd);
  for (int fd = 0; fd < 3; fd++)
    if (open("/dev/null", O_RDWR) < 0) _exit(1);
  drop_rights();
  pollfd gone = {kept, POLLIN, 0};
  while (kept >= 0 && poll(&gone, 1, -1) < 0) {
  }
  unlink(socket_path.c_str());
  if (access(cgroup.c_str(), F_OK) == 0) remove_cgroup(cgroup, parent);
  _exit(0);
}

// ---- rows for whoever carries the interceptor --------------------------------------------------------------------------

int listen_at(const std::string& path, i32 uid, i32 gid) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) return -1;
  memcpy(name.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const mode_t before = umask(0177);
  const bool bound = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
  umask(before);
  if (bound && lchown(path.c_str(), static_cast<uid_t>(uid), static_cast<gid_t>(gid)) == 0 && listen(fd, 128) == 0) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  return -1;
}

void hand_out(int listener, int rows_fd, i32 uid) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  ucred who;
  socklen_t length = sizeof(who);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && (who.uid == static_cast<uid_t>(uid) || who.uid == 0)) {
    KernelHello hello = {kMagic, MISHAP_KERNEL_SOCKETS, sizeof(KernelSocket)};
    iovec part = {&hello, sizeof(hello)};
    alignas(cmsghdr) u8 control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &rows_fd, sizeof(rows_fd));
    sendmsg(fd, &message, MSG_NOSIGNAL);  // whoever is gone by now needs no answer
  }
  close(fd);
}

// ---- orders ------------------------------------------------------------------------------------------------------------

i32 parent_of(i32 pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("PPid:", 0) == 0) return atoi(line.c_str() + 5);
  return 0;
}

// Moves the run or a child of its into the run's cgroup or out of it.
void move(const char* verb, const char* done, i32 pid, i32 run, const std::string& to) {
  if (pid <= 0 || (pid != run && parent_of(pid) != run)) return say_error(std::string(verb) + ": only the run and its children are moved");
  if (const int error = move_process(pid, to)) return say_error(std::string(verb) + " " + std::to_string(pid) + ": " + strerror(error));
  say("{\"" + std::string(done) + "\":" + std::to_string(pid) + "}\n");
}

struct Place {
  std::string cgroup, parent;
};

// Behind the relay: what is reset connects anew, and by then to it.
void begin_relay(const Order& order, RelayProcess* relay, Established* established) {
  const std::string reason = relay->begin();
  if (!reason.empty()) say_error("relay: " + reason);
  else if (order.mode == "attach") say("{\"relayed\":true,\"before\":" + established->treat(order.treatment) + "}\n");
  else say("{\"relayed\":true}\n");
}

void drain(RelayProcess* relay) {
  relay->finish();
  if (!relay->finishing()) say(kDrained);  // else once it has ended
}

void obey(const std::string& line, const Order& order, const Place& place, Flows* flows, RelayProcess* relay, Established* established) {
  i32 pid = 0;
  if (line == "flows") say(flows->tell(relay->lost()));
  else if (line == "relay") begin_relay(order, relay, established);
  else if (line == "drain") drain(relay);
  else if (sscanf(line.c_str(), "join %d", &pid) == 1 && order.mode == "run") move("join", "joined", pid, order.run, place.cgroup);
  else if (sscanf(line.c_str(), "leave %d", &pid) == 1 && order.mode == "run") move("leave", "left", pid, order.run, place.parent);
  else say_error("an unknown order; join PID, leave PID, flows, relay and drain are known");
}

volatile sig_atomic_t told_to_end = 0;

// Serves until standard input ends.
void serve(const Order& order, const Place& place, Kernel* kernel, int listener, RelayProcess* relay, Established* established, int subject) {
  Flows flows(*kernel);
  std::string rest;
  for (;;) {
    kernel->forget_outsiders();  // behind each order, too
    pollfd waits[] = {{STDIN_FILENO, POLLIN, 0}, {flows.events(), POLLIN, 0}, {listener, POLLIN, 0}, {relay->end(), POLLIN, 0}, {subject, POLLIN, 0}};
    if (poll(waits, 5, kTakeInMs) < 0 && errno != EINTR) return;
    if (told_to_end) return;
    flows.take_in();
    if (waits[2].revents) hand_out(listener, kernel->rows_fd(), order.uid);
    const bool hangs = relay->hangs();
    if (waits[3].revents || hangs) {
      const bool told = relay->finishing();
      relay->ended(told && !hangs);
      if (told) say(kDrained);
    }
    if (waits[4].revents) {
      say("{\"gone\":true}\n");
      subject = -1;  // told once
    }
    if (!waits[0].revents) continue;
    char text[4096];
    const ssize_t n = read(STDIN_FILENO, text, sizeof(text));
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return;
    if (n > 0) rest.append(text, static_cast<size_t>(n));
    for (size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) obey(rest.substr(0, end), order, place, &flows, relay, established);
    if (rest.size() > sizeof(text)) return;
  }
}

std::string why_nothing(const Kernel& kernel) {
  if (access("/sys/kernel/btf/vmlinux", R_OK) != 0) return "this kernel has no BTF (/sys/kernel/btf/vmlinux), which its programs need";
  if (!has_rights()) return kNeedsRoot;
  for (const Hook& hook : kernel.hooks())
    if (!hook.ok && !hook.reason.empty()) return std::string(hook.name) + ": " + hook.reason;
  return std::string("the kernel's programs cannot be loaded: ") + strerror(errno);
}

// Whom the order is about, where that runs already; false: it cannot be had.
bool find_subject(Order* order, Subject* subject, std::string* error) {
  if (order->watch.scope == Scope::All || order->mode == "run") return true;
  if (order->mode == "attach" && !has_rights()) return *error = kNeedsRoot, false;
  if (order->watch.scope == Scope::Process) {
    *error = subject->find(order->watch.pid);
    if (!error->empty()) return false;
    order->watch.pid = subject->inner_pid;
    order->watch.pid_namespace = subject->pid_namespace;
    if (order->mode == "attach" && !subject->reachable) *error = "its network namespace cannot be had";
    if (order->mode == "attach" && subject->intercepted()) *error = "it belongs to a run of mishap";
    return error->empty();
  }
  if (order->mode != "attach") return true;
  if (!holds(order->cgroup, cgroup_of(getpid()))) return subject->find_in(order->cgroup), true;
  *error = "mishap itself is in that cgroup; a narrower one is to be given";
  return false;
}

int run_or_observe(Order order) {
  Place place;
  Subject subject;
  std::string error, socket_path;
  int listener = -1;
  pid_t keeper = -1;
  if (!find_subject(&order, &subject, &error)) return say_error(error), 1;
  // Listeners are a network namespace's, and so is the relay.
  if (order.mode == "attach" && subject.netns >= 0 && setns(subject.netns, CLONE_NEWNET) != 0) return say_error(std::string("its network namespace cannot be entered: ") + strerror(errno)), 1;
  if (order.mode == "run") {
    RunCgroup cgroup(order.run, &error);
    if (cgroup.path().empty()) return say_error(error), 1;
    place = {cgroup.path(), cgroup.parent()};
    socket_path = order.segment + ".kernel";
    keeper = start_keeper(place.cgroup, place.parent, socket_path);
  } else {
    place.cgroup = order.watch.scope == Scope::Cgroup ? order.cgroup : cgroup_root();
  }
  if (!place.cgroup.empty()) order.watch.cgroup = open(place.cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (order.watch.cgroup < 0 && order.watch.scope == Scope::Cgroup) return say_error(place.cgroup + ": " + strerror(errno)), 1;
  {
    Kernel kernel;
    RelayProcess relay;
    Established established(kernel, subject, order.cgroup);
    bool works = kernel.start(order.watch);
    if (!works) error = why_nothing(kernel);
    if (works && order.mode == "run" && (listener = listen_at(socket_path, order.uid, order.gid)) < 0) {
      error = socket_path + ": " + strerror(errno);
      works = false;
    }
    if (works && order.mode == "attach") kernel.adopt_listeners(order.watch.scope == Scope::Process ? std::vector{subject.pid} : processes_in(order.cgroup));
    if (works && order.watch.relay) {
      if (!kernel.redirects()) relay.go_without(why_nothing(kernel));
      else if (const int problem = relay.make(kernel, order.segment, order.uid, order.gid, subject)) relay.go_without(std::string("mishap-relay: ") + strerror(problem));
    }
    if (works) {
      drop_rights(order.watch.relay, order.mode == "attach");
      say("{\"ready\":true,\"cgroup\":" + quoted(place.cgroup) + "," + hooks_text(kernel) + "}\n");
      serve(order, place, &kernel, listener, &relay, &established, order.watch.scope == Scope::Process ? subject.handle : -1);
    } else {
      say_error(error);
    }
    if (listener >= 0) unlink(socket_path.c_str());
  }
  if (order.mode == "run") remove_cgroup(place.cgroup, place.parent);
  if (keeper > 0 && kill(keeper, SIGKILL) == 0) waitpid(keeper, nullptr, 0);
  return error.empty() ? 0 : 1;
}

int probe() {
  Kernel kernel;
  Watch watch;
  std::string error;
  // A cgroup of our own where one can be made; else the hooks are tried on the root's, for a moment.
  RunCgroup own(getpid(), &error);
  const std::string root = cgroup_root();
  const std::string at = own.path().empty() ? root : own.path();
  if (!at.empty()) watch.cgroup = open(at.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  watch.arrivals = watch.relay = watch.silence = true;
  kernel.probe(watch);
  if (!own.path().empty()) remove_cgroup(own.path(), own.parent());
  say(std::string("{\"facts\":{\"btf\":") + (access("/sys/kernel/btf/vmlinux", R_OK) == 0 ? "true" : "false") + ",\"cgroup2\":" + (root.empty() ? "null" : quoted(root)) +
      ",\"rights\":" + (has_rights() ? "true" : "false") + ",\"libbpf\":" + quoted(std::to_string(libbpf_major_version()) + "." + std::to_string(libbpf_minor_version())) + "}," +
      hooks_text(kernel) + "}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Order order;
  if (!read_order(argc, argv, &order)) {
    fputs(kUsage, stderr);
    return 2;
  }
  // The terminal's signals are the program's, not ours; the end of standard input is what ends us.
  for (const int number : {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP}) signal(number, SIG_IGN);
  struct sigaction end = {};
  end.sa_handler = [](int) { told_to_end = 1; };
  sigaction(SIGTERM, &end, nullptr);
  if (chdir("/") != 0) return 1;
  if (order.mode == "probe") return probe();
  // In a process of its own: sudo, which its user may signal, ends with the first one.
  if (const pid_t pid = fork(); pid != 0) return pid < 0 ? 1 : 0;
  setsid();
  return run_or_observe(order);
}
