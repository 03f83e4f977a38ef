// Escapes by system calls that Node has no function for: raw NAME PID FILE FOLDER. Says "ESCAPED NAME", or "stopped ERRNO" with
// its name. Without arguments it lists them.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static pid_t pid;
static const char *file, *folder;

// Each answers 0 or more when it got through, or -1 with errno.
static long proc_mem(void) { return open("/proc/self/mem", O_RDWR); }
static long others_mem(void) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/mem", pid);
  return open(path, O_RDONLY);
}
static long attach(void) {
  const long done = ptrace(PTRACE_SEIZE, pid, 0, 0);
  if (done == 0) ptrace(PTRACE_DETACH, pid, 0, 0);
  return done;
}
static long vm_read(void) {  // its own addresses lie elsewhere in the other process: EFAULT is past the permission
  char byte;
  struct iovec here = {&byte, 1}, there = {&byte, 1};
  const long done = syscall(SYS_process_vm_readv, pid, &here, 1, &there, 1, 0);
  return done < 0 && errno == EFAULT ? 0 : done;
}
static long pidfd(void) { return syscall(SYS_pidfd_open, pid, 0); }
static long own_signal(void) {  // a signal by way of a pipe's owner
  int ends[2];
  if (pipe(ends) != 0) return -1;
  return fcntl(ends[0], F_SETOWN, pid);
}
static long thread_signal(void) { return syscall(SYS_tgkill, pid, pid, 0); }
static long queue_signal(void) {
  siginfo_t about = {.si_code = SI_QUEUE};
  return syscall(SYS_rt_sigqueueinfo, pid, SIGCONT, &about);
}
static long group_signal(void) { return kill(0, SIGCONT); }
static long limits(void) {
  struct rlimit now;
  return prlimit(pid, RLIMIT_CORE, NULL, &now);
}
static long affinity(void) {
  cpu_set_t all;
  return sched_getaffinity(0, sizeof(all), &all) == 0 ? sched_setaffinity(pid, sizeof(all), &all) : -1;
}
static long uring(void) {
  struct io_uring_params params = {0};
  return syscall(SYS_io_uring_setup, 4, &params);
}
static long abstract(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "mishap-escape-%d", pid);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  const socklen_t exact = offsetof(struct sockaddr_un, sun_path) + 1 + (unsigned)length;
  const long done = connect(fd, (struct sockaddr *)&name, exact);
  return done == 0 ? done : connect(fd, (struct sockaddr *)&name, sizeof(name));  // as Node 20 pads it
}
static long raw_socket(void) { return socket(AF_NETLINK, SOCK_RAW, 0); }
static long pair(void) {
  int ends[2];
  return socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
}
static long fast_open(void) {  // a system call that would be refused for its flag before its descriptor is looked at
  struct msghdr message = {0};
  const long done = sendmsg(-1, &message, MSG_FASTOPEN);
  return done < 0 && errno == EBADF ? 0 : done;
}
static long sysv(void) {
  const int id = shmget(IPC_PRIVATE, 4096, 0600);
  if (id >= 0) shmctl(id, IPC_RMID, NULL);
  return id;
}
static long sysv_queue(void) {
  const int id = msgget(IPC_PRIVATE, 0600);
  if (id >= 0) msgctl(id, IPC_RMID, NULL);
  return id;
}
static long posix_shm(void) {
  char name[64];
  snprintf(name, sizeof(name), "/mishap-escape-%d", getpid());
  const int fd = shm_open(name, O_RDWR | O_CREAT, 0600);
  if (fd >= 0) shm_unlink(name);
  return fd;
}
static long memory_file(void) { return memfd_create("escape", 0); }
static long exec_other(void) {
  execl("/bin/echo", "echo", "ESCAPED exec_other", NULL);
  return -1;
}
static long exec_loader(void) {  // the loader is a program that starts others
  execl("/lib64/ld-linux-x86-64.so.2", "ld.so", "/bin/echo", "ESCAPED exec_loader", NULL);
  return -1;
}
static long child(long made) {
  if (made == 0) _exit(0);
  return made;
}
static long forking(void) { return child(fork()); }
static long cloning(void) {
  struct { uint64_t flags[11]; } arguments = {{0}};
  arguments.flags[4] = SIGCHLD;
  return child(syscall(435, &arguments, sizeof(arguments)));
}
static long chmoding(void) { return chmod(file, 0755); }
static long chmodat2(void) { return syscall(452, AT_FDCWD, file, 0755, 0); }
static long chowning(void) { return chown(file, getuid(), getgid()); }
static long attribute(void) { return setxattr(file, "user.mishap", "x", 1, 0); }
static long truncating(void) { return truncate(file, 1); }
static long truncating_open(void) { return open(file, O_RDONLY | O_TRUNC); }
static long open2(void) {
  struct { uint64_t flags, mode, resolve; } how = {O_RDONLY, 0, 0};
  return syscall(437, AT_FDCWD, file, &how, sizeof(how));
}
static long handle(void) {
  struct { struct file_handle head; unsigned char rest[128]; } name = {.head = {.handle_bytes = 128}};
  int mount;
  return name_to_handle_at(AT_FDCWD, file, &name.head, &mount, 0);
}
static long linking(void) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/hard-%d", folder, getpid());
  return link(file, path);
}
static long watching(void) { return inotify_add_watch(inotify_init1(0), folder, IN_ALL_EVENTS); }
static long namespaces(void) { return unshare(CLONE_NEWUSER); }
static long keys(void) { return syscall(SYS_keyctl, 0, -3, 0, 0, 0); }
static long domain(void) { return syscall(SYS_personality, 0xffffffff); }
static long survive(void) { return prctl(PR_SET_PDEATHSIG, 0); }
static long session(void) { return setpgid(0, 0); }
static long shared_memory(void) {
  return mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static long growing_memory(void) {
  return mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0) == MAP_FAILED ? -1 : 0;
}
static long unknown(void) {  // file_getattr, Linux 6.17
  uint64_t about[4];
  return syscall(468, AT_FDCWD, folder, about, sizeof(about), 0);
}
static long x32(void) {
#ifdef __x86_64__
  return syscall(0x40000000 | SYS_getpid);
#else
  errno = ENOSYS;
  return -1;
#endif
}
static long i386(void) {  // the numbers of 32-bit processes: 20 is getpid there, and writev in 64-bit ones
#ifdef __x86_64__
  long answer = 20;
  __asm__ volatile("int $0x80" : "+a"(answer) : : "memory");
  if (answer < 0) errno = (int)-answer;
  return answer < 0 ? -1 : answer;
#else
  errno = ENOSYS;
  return -1;
#endif
}
static long capabilities(void) {  // root's
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) != 0) return -1;
  if (data[0].permitted || data[1].permitted) return 0;
  errno = EPERM;
  return -1;
}

static const struct {
  const char *name;
  long (*run)(void);
} escapes[] = {
#define ESCAPE(name) {#name, name}
    ESCAPE(proc_mem), ESCAPE(others_mem), ESCAPE(attach), ESCAPE(vm_read), ESCAPE(pidfd), ESCAPE(own_signal),
    ESCAPE(thread_signal), ESCAPE(queue_signal), ESCAPE(group_signal), ESCAPE(limits), ESCAPE(affinity), ESCAPE(uring),
    ESCAPE(abstract), ESCAPE(raw_socket), ESCAPE(pair), ESCAPE(fast_open), ESCAPE(sysv), ESCAPE(sysv_queue),
    ESCAPE(posix_shm), ESCAPE(memory_file), ESCAPE(exec_other), ESCAPE(exec_loader), ESCAPE(forking), ESCAPE(cloning),
    ESCAPE(chmoding), ESCAPE(chmodat2), ESCAPE(chowning), ESCAPE(attribute), ESCAPE(truncating), ESCAPE(truncating_open),
    ESCAPE(open2), ESCAPE(handle), ESCAPE(linking), ESCAPE(watching), ESCAPE(namespaces), ESCAPE(keys), ESCAPE(domain),
    ESCAPE(survive), ESCAPE(session), ESCAPE(shared_memory), ESCAPE(growing_memory), ESCAPE(unknown), ESCAPE(x32),
    ESCAPE(i386), ESCAPE(capabilities),
};

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IONBF, 0);
  if (argc == 1) {  // lists them
    for (size_t n = 0; n < sizeof(escapes) / sizeof(*escapes); n++) puts(escapes[n].name);
    return 0;
  }
  if (argc != 5) return 2;
  pid = atoi(argv[2]);
  file = argv[3];
  folder = argv[4];
  for (size_t n = 0; n < sizeof(escapes) / sizeof(*escapes); n++) {
    if (strcmp(escapes[n].name, argv[1]) != 0) continue;
    errno = 0;
    if (escapes[n].run() >= 0) printf("ESCAPED %s\n", argv[1]);
    else printf("stopped %s\n", strerrorname_np(errno));
    return 0;
  }
  return 2;
}
