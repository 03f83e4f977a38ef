// A program of a run that tries to get at what watches it: to write the kernel's rows, to detach or take over what is loaded,
// to leave the run's cgroup, to enter or stop the processes beside it.
//
//   hostile identity      who it is, as JSON: {"uid":…,"groups":[…],"capabilities":"CapInh… CapEff…","environment":[…]}
//   hostile attack PROGRAM [ARGUMENT...]
//                         tries everything; a line for each kind of attempt: {"attempt":"…","tries":12,"worked":0,"errors":["EPERM"]};
//                         then becomes that program, which shows whether it is still watched
//
// It attacks its parent and what that started; as an ordinary user it harms nobody else.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "rows.h"

extern char** environ;

namespace {

// ---- what was tried ----------------------------------------------------------------------------------------------------

struct Tried {
  long tries = 0, worked = 0;
  std::set<std::string> errors;
};
std::map<std::string, Tried> tried;

// Counts an attempt by what a system call answered: true when it worked.
bool attempt(const std::string& what, long result) {
  const int error = errno;
  Tried& one = tried[what];
  one.tries++;
  if (result >= 0) one.worked++;
  else one.errors.insert(strerrorname_np(error));
  return result >= 0;
}

long bpf(int command, bpf_attr* attributes) { return syscall(SYS_bpf, command, attributes, sizeof(*attributes)); }

std::string target_of(int fd) {
  char target[256] = {};
  return readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof(target) - 1) > 0 ? target : "";
}
bool is_bpf(int fd) { return target_of(fd).find("bpf") != std::string::npos; }

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line, '\n');
  return line;
}

std::string name_of(int pid) { return first_line("/proc/" + std::to_string(pid) + "/comm"); }

std::vector<int> processes() {
  std::vector<int> found;
  DIR* folder = opendir("/proc");
  while (const dirent* entry = folder ? readdir(folder) : nullptr)
    if (const int pid = atoi(entry->d_name); pid > 0 && pid != getpid()) found.push_back(pid);
  if (folder) closedir(folder);
  return found;
}

int parent_of(int pid) {
  const std::string stat = first_line("/proc/" + std::to_string(pid) + "/stat");
  int parent = 0;
  if (const size_t at = stat.rfind(')'); at != std::string::npos) sscanf(stat.c_str() + at, ") %*c %d", &parent);
  return parent;
}

// What watches us: the run, which is our parent, and what it started beside us: the loader, sudo around it, its keeper.
std::set<int> watchers() {
  const int run = getppid();
  std::set<int> found = {run};
  for (const int pid : processes()) {
    const std::string name = name_of(pid);
    if (name != "mishap-loader" && name != "mishap-keeper" && name != "sudo") continue;
    int above = pid;
    while (above > 1 && above != run) above = parent_of(above);
    if (above == run) found.insert(pid);
  }
  return found;
}

// Whatever the descriptor is of, as a link, a program or a map.
void attack_descriptor(int fd) {
  bpf_attr attributes = {};
  attributes.link_detach.link_fd = static_cast<__u32>(fd);
  attempt("BPF_LINK_DETACH", bpf(BPF_LINK_DETACH, &attributes));
  attributes = {};
  attributes.link_update.link_fd = static_cast<__u32>(fd);
  attributes.link_update.new_prog_fd = static_cast<__u32>(fd);
  attempt("BPF_LINK_UPDATE", bpf(BPF_LINK_UPDATE, &attributes));
}

// ---- the rows ----------------------------------------------------------------------------------------------------------

sigjmp_buf back;
void on_fault(int) { siglongjmp(back, 1); }

// Whether a byte can be written there.
long store_at(void* where) {
  struct sigaction handle = {}, before;
  handle.sa_handler = on_fault;
  sigaction(SIGSEGV, &handle, &before);
  long result = -1;
  if (sigsetjmp(back, 1) == 0) {
    *static_cast<volatile char*>(where) = 1;
    result = 0;
  }
  errno = EFAULT;
  sigaction(SIGSEGV, &before, nullptr);
  return result;
}

long store_by_memory_file(void* where) {
  const int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  const char byte = 1;
  const long result = memory < 0 ? -1 : pwrite(memory, &byte, 1, static_cast<off_t>(reinterpret_cast<size_t>(where)));
  const int error = errno;
  close(memory);
  errno = error;
  return result;
}

void attack_mapping(void* rows, size_t bytes) {
  attempt("write a mapping through /proc/self/mem", store_by_memory_file(rows));
  char byte = 1;
  iovec from = {&byte, 1}, to = {rows, 1};
  attempt("write a mapping by process_vm_writev", process_vm_writev(getpid(), &from, 1, &to, 1, 0));
  attempt("make a mapping writable", mprotect(rows, bytes, PROT_READ | PROT_WRITE));
  attempt("store into a mapping", store_at(rows));
}

void attack_map(int fd, size_t bytes) {
  for (const int flags : {MAP_SHARED, MAP_PRIVATE}) {
    void* writable = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    attempt("map the rows writable", writable == MAP_FAILED ? -1 : 0);
  }
  void* readable = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (readable != MAP_FAILED) attack_mapping(readable, bytes);
  const int again = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDWR);
  attempt("open the map's descriptor anew", again);

  attack_descriptor(fd);

  const unsigned key = 0;
  const std::vector<char> value(4096, 1);
  auto order = [&](const char* what, int command, auto fill) {
    bpf_attr attributes = {};
    fill(&attributes);
    attempt(what, bpf(command, &attributes));
  };
  auto element = [&](bpf_attr* attributes) {
    attributes->map_fd = static_cast<__u32>(fd);
    attributes->key = reinterpret_cast<__u64>(&key);
  };
  auto element_and_value = [&](bpf_attr* attributes) {
    element(attributes);
    attributes->value = reinterpret_cast<__u64>(value.data());
  };
  auto batch = [&](bpf_attr* attributes) {
    attributes->batch.map_fd = static_cast<__u32>(fd);
    attributes->batch.keys = reinterpret_cast<__u64>(&key);
    attributes->batch.values = reinterpret_cast<__u64>(value.data());
    attributes->batch.count = 1;
  };
  order("BPF_MAP_UPDATE_ELEM", BPF_MAP_UPDATE_ELEM, element_and_value);
  order("BPF_MAP_DELETE_ELEM", BPF_MAP_DELETE_ELEM, element);
  order("BPF_MAP_LOOKUP_AND_DELETE_ELEM", BPF_MAP_LOOKUP_AND_DELETE_ELEM, element_and_value);
  order("BPF_MAP_UPDATE_BATCH", BPF_MAP_UPDATE_BATCH, batch);
  order("BPF_MAP_DELETE_BATCH", BPF_MAP_DELETE_BATCH, batch);
  order("BPF_MAP_FREEZE", BPF_MAP_FREEZE, [&](bpf_attr* attributes) { attributes->map_fd = static_cast<__u32>(fd); });
  order("BPF_OBJ_PIN", BPF_OBJ_PIN, [&](bpf_attr* attributes) {
    attributes->pathname = reinterpret_cast<__u64>("/sys/fs/bpf/hostile");
    attributes->bpf_fd = static_cast<__u32>(fd);
  });
  close(fd);
}

void attack_rows() {
  const Rows mapped = mapped_rows();
  if (mapped.first) attack_mapping(const_cast<mishap::KernelSocket*>(mapped.first), mapped.count * sizeof(*mapped.first));
  const int fd = handed_out();
  if (fd >= 0) attack_map(fd, MISHAP_KERNEL_SOCKETS * sizeof(mishap::KernelSocket));
  printf("{\"found\":{\"mapped\":%s,\"handed\":%s}}\n", mapped.first ? "true" : "false", fd >= 0 ? "true" : "false");
}

// ---- what is loaded ----------------------------------------------------------------------------------------------------

void attack_own_descriptors() {
  for (int fd = 0; fd < 1024; fd++) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    if (is_bpf(fd)) attempt("find an open descriptor of BPF's", fd);
    attack_descriptor(fd);
  }
}

void attack_ids() {
  for (const int command : {BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID, BPF_LINK_GET_FD_BY_ID, BPF_BTF_GET_FD_BY_ID}) {
    for (unsigned id = 1; id <= 20000; id++) {
      bpf_attr attributes = {};
      attributes.prog_id = id;
      attempt("open what is loaded by its number", bpf(command, &attributes));
    }
  }
  for (const int command : {BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID}) {
    bpf_attr attributes = {};
    attempt("list what is loaded", bpf(command, &attributes));
  }
}

void attack_pins(const std::string& folder, int depth) {
  DIR* entries = opendir(folder.c_str());
  while (const dirent* entry = entries ? readdir(entries) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const std::string path = folder + "/" + entry->d_name;
    bpf_attr attributes = {};
    attributes.pathname = reinterpret_cast<__u64>(path.c_str());
    attempt("BPF_OBJ_GET", bpf(BPF_OBJ_GET, &attributes));
    if (entry->d_type == DT_DIR && depth < 4) attack_pins(path, depth + 1);
  }
  if (entries) closedir(entries);
  bpf_attr attributes = {};
  attributes.pathname = reinterpret_cast<__u64>(folder.c_str());
  attempt("BPF_OBJ_GET", bpf(BPF_OBJ_GET, &attributes));
}

void attack_loading(int cgroup) {
  const bpf_insn pass[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  bpf_attr attributes = {};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_SOCK;
  attributes.expected_attach_type = BPF_CGROUP_INET_SOCK_CREATE;
  attributes.insns = reinterpret_cast<__u64>(pass);
  attributes.insn_cnt = 2;
  attributes.license = reinterpret_cast<__u64>("GPL");
  attempt("load a program", bpf(BPF_PROG_LOAD, &attributes));
  for (int type = 0; type < 64; type++) {
    attributes = {};
    attributes.target_fd = static_cast<__u32>(cgroup);
    attributes.attach_type = static_cast<__u32>(type);
    attempt("detach the cgroup's programs", bpf(BPF_PROG_DETACH, &attributes));
  }
}

// ---- the cgroup --------------------------------------------------------------------------------------------------------

std::string own_cgroup() {
  std::ifstream lines("/proc/self/cgroup");
  for (std::string line; std::getline(lines, line);)
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  return {};
}

std::string cgroup_mount() {
  std::ifstream mounts("/proc/self/mounts");
  for (std::string device, path, type, rest; mounts >> device >> path >> type && std::getline(mounts, rest);)
    if (type == "cgroup2") return path;
  return {};
}

long write_text(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const long result = write(fd, text.data(), text.size());
  const int error = errno;
  close(fd);
  errno = error;
  return result;
}

long born_in(const std::string& cgroup) {
  const int fd = open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  clone_args arguments = {};
  arguments.flags = CLONE_INTO_CGROUP;
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = static_cast<__u64>(fd);
  const long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (pid == 0) _exit(0);
  const int error = errno;
  if (pid > 0) waitpid(static_cast<pid_t>(pid), nullptr, 0);
  close(fd);
  errno = error;
  return pid;
}

void attack_cgroup() {
  const std::string mount_point = cgroup_mount(), own = mount_point + own_cgroup(), self = std::to_string(getpid());
  std::string above = own;
  while (above.size() > mount_point.size()) {
    above.resize(above.rfind('/'));
    attempt("move out of the cgroup", write_text(above + "/cgroup.procs", self));
    attempt("have a child born outside of the cgroup", born_in(above));
  }
  attempt("make a cgroup within", mkdir((own + "/hostile").c_str(), 0755));
  attempt("remove the cgroup", rmdir(own.c_str()));
  for (const char* file : {"/cgroup.freeze", "/cgroup.kill", "/cgroup.subtree_control", "/cgroup.type", "/cgroup.max.descendants"})
    attempt("write the cgroup's files", write_text(own + file, "0"));
  attempt("take the cgroup", chown((own + "/cgroup.procs").c_str(), getuid(), getgid()));
  const int cgroup = open(own.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  attack_loading(cgroup);
  close(cgroup);
}

struct Count {
  long tries = 0, worked = 0;
  void add(bool result) { tries++, worked += result; }
};

// What root of a user namespace of its own can do.
Count try_as_root_of_a_namespace() {
  Count count;
  const std::string outside = cgroup_mount(), here = std::to_string(getpid()), inside = "/tmp/hostile-" + here;
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWNET) != 0) return count;
  mkdir(inside.c_str(), 0755);
  mount("none", inside.c_str(), "cgroup2", 0, nullptr);
  for (const std::string& procs : {inside + "/cgroup.procs", inside + "/../cgroup.procs", outside + "/cgroup.procs"}) count.add(write_text(procs, here) >= 0);
  umount(inside.c_str());
  rmdir(inside.c_str());
  for (const int command : {BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID}) {
    bpf_attr attributes = {};
    count.add(bpf(command, &attributes) >= 0);
  }
  return count;
}

void attack_from_namespace() {
  const std::string before = own_cgroup();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  const pid_t child = fork();
  if (child == 0) {
    const Count count = try_as_root_of_a_namespace();
    _exit(write(ends[1], &count, sizeof(count)) == sizeof(count) ? 0 : 1);
  }
  Count count;
  close(ends[1]);
  const bool told = read(ends[0], &count, sizeof(count)) == sizeof(count);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  Tried& one = tried["get out by a user namespace"];
  one.tries = count.tries;
  one.worked = told ? count.worked : 1;
  errno = EPERM;
  attempt("be in another cgroup afterwards", own_cgroup() == before ? -1 : 0);
}

// ---- the processes beside it -------------------------------------------------------------------------------------------

void attack_memory(int pid) {
  attempt("trace a watcher", ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
  attempt("trace a watcher", ptrace(PTRACE_ATTACH, pid, nullptr, nullptr));
  const std::string at = "/proc/" + std::to_string(pid);
  for (const char* file : {"/mem", "/environ", "/maps"}) attempt("read a watcher", open((at + file).c_str(), O_RDONLY | O_CLOEXEC));
  char byte;
  iovec here = {&byte, 1}, there = {reinterpret_cast<void*>(0x400000), 1};
  attempt("read a watcher", process_vm_readv(pid, &here, 1, &there, 1, 0));
}

void attack_descriptors_of(int pid) {
  const std::string at = "/proc/" + std::to_string(pid) + "/fd/";
  const long handle = syscall(SYS_pidfd_open, pid, 0);
  for (int fd = 0; fd < 128; fd++) {
    attempt("open a watcher's descriptor", open((at + std::to_string(fd)).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    const long taken = syscall(SYS_pidfd_getfd, handle, fd, 0);
    if (attempt("take a watcher's descriptor by pidfd_getfd", taken)) attack_descriptor(static_cast<int>(taken));
  }
  if (handle >= 0) close(static_cast<int>(handle));
}

// Anybody else's descriptors, in case they lead to what is loaded.
void attack_bystanders() {
  for (const int pid : processes()) {
    const long handle = syscall(SYS_pidfd_open, pid, 0);
    for (int fd = 0; handle >= 0 && fd < 64; fd++) {
      const long taken = syscall(SYS_pidfd_getfd, handle, fd, 0);
      if (taken < 0) continue;
      const bool leads = is_bpf(static_cast<int>(taken));
      errno = EPERM;
      attempt("find a descriptor of BPF's in another process", leads ? 0 : -1);
      close(static_cast<int>(taken));
    }
    if (handle >= 0) close(static_cast<int>(handle));
  }
  errno = EPERM;
  attempt("find a descriptor of BPF's in another process", -1);
}

void attack_processes() {
  const int run = getppid();
  for (const int pid : watchers()) {
    attack_memory(pid);
    attack_descriptors_of(pid);
    if (pid == run) continue;  // its user may always end a run
    for (const int number : {SIGTERM, SIGSTOP, SIGKILL}) attempt("signal " + name_of(pid), kill(pid, number));
    attempt("slow a watcher down", setpriority(PRIO_PROCESS, static_cast<id_t>(pid), 19));
  }
  attack_bystanders();
}

// ---- who it is ---------------------------------------------------------------------------------------------------------

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) snprintf(escaped, sizeof(escaped), "\\u%04x", c), out += escaped;
    else out += c;
  }
  return out + "\"";
}

void print_identity() {
  uid_t user[3];
  gid_t group[3], groups[256];
  getresuid(&user[0], &user[1], &user[2]);
  getresgid(&group[0], &group[1], &group[2]);
  printf("{\"users\":[%u,%u,%u],\"group\":[%u,%u,%u],\"groups\":[", user[0], user[1], user[2], group[0], group[1], group[2]);
  const int count = getgroups(256, groups);
  for (int i = 0; i < count; i++) printf("%s%u", i ? "," : "", groups[i]);
  printf("],\"status\":[");
  std::ifstream status("/proc/self/status");
  const char* comma = "";
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Cap", 0) != 0 && line.rfind("NoNewPrivs", 0) != 0 && line.rfind("Seccomp:", 0) != 0) continue;
    printf("%s%s", comma, quoted(line).c_str());
    comma = ",";
  }
  printf("],\"environment\":[");
  for (char** entry = environ; *entry; entry++) printf("%s%s", entry == environ ? "" : ",", quoted(*entry).c_str());
  printf("]}\n");
}

void print_tried() {
  for (const auto& [what, one] : tried) {
    printf("{\"attempt\":\"%s\",\"tries\":%ld,\"worked\":%ld,\"errors\":[", what.c_str(), one.tries, one.worked);
    for (const std::string& error : one.errors) printf("%s\"%s\"", error == *one.errors.begin() ? "" : ",", error.c_str());
    printf("]}\n");
  }
}

}  // namespace

int main(int count, char** values) {
  const std::string mode = count > 1 ? values[1] : "";
  if (mode == "identity") return print_identity(), 0;
  if (mode != "attack" || count < 3) return fputs("usage: hostile identity, or hostile attack PROGRAM [ARGUMENT...]\n", stderr), 2;
  if (geteuid() == 0) return fputs("hostile: as root it would do harm\n", stderr), 2;
  attack_own_descriptors();
  attack_rows();
  attack_ids();
  attack_pins("/sys/fs/bpf", 0);
  attack_cgroup();
  attack_processes();
  attack_from_namespace();
  print_tried();
  fflush(stdout);
  execv(values[2], values + 2);
  perror(values[2]);
  return 1;
}
