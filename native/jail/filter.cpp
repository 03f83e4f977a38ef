// Stops what the kernel offers besides files: the network, other processes, new namespaces, and whatever acts by a name that
// Landlock has no right for. A list of system calls as data, compiled into a BPF program for this process and this order.
//
// seccomp(2), bpf(4) for the instructions, syscalls(2)
//
// It is a list of what is refused. A list of what is allowed would break with every new Node, libc and architecture that calls
// something harmless, at a user's and not here. What such a list risks is to forget: so every call up to kNewest has been gone
// through, everything above is refused as if the kernel had it not (which libraries are prepared for), and so are all other
// architectures' calls and x32's, whose numbers are above too. What acts on files by name, descriptors that were given, memory and
// threads of this process, and time, remains; Landlock and the limits have the say there.
//
// The filter cannot look behind pointers. Where a call takes what matters behind one it is refused as a whole (openat2, clone3), or
// the way in has been closed before: sendmsg can name an address, but only a datagram socket would heed it, and none can be made.
// Nobody is killed: a refusal is EPERM, or ENOSYS where libraries try an older way then.
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>

#include "jail.h"

namespace mishap::jail {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the filter knows the system calls of x86_64 and aarch64 only"
#endif

constexpr uint32_t kNewest = 462;  // mseal, Linux 6.10: the newest call that has been gone through

// Calls from 424 have one number on every architecture; Debian 12's headers end at 450.
constexpr int kFchmodat2 = 452, kStatmount = 457, kListmount = 458, kLsmSetSelfAttr = 460;

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM, kUnknown = SECCOMP_RET_ERRNO | ENOSYS;

enum class When : uint8_t { Always, Is, IsNot };  // the masked word and the value

// The first rule that fits a call decides on it; a call that none fits is allowed.
struct Rule {
  int call;
  uint32_t action = kRefuse;
  When when = When::Always;
  uint8_t word = 0;  // of the arguments, each of which is two words, the lower first
  uint32_t mask = ~0u;
  uint32_t value = 0;
};

constexpr uint8_t lower(int argument) { return static_cast<uint8_t>(argument * 2); }
constexpr uint8_t upper(int argument) { return static_cast<uint8_t>(argument * 2 + 1); }
constexpr Rule if_is(int call, uint8_t word, uint32_t value, uint32_t action = kRefuse) {
  return {call, action, When::Is, word, ~0u, value};
}
constexpr Rule if_is_not(int call, uint8_t word, uint32_t value) { return {call, kRefuse, When::IsNot, word, ~0u, value}; }
constexpr Rule if_any(int call, uint8_t word, uint32_t bits) { return {call, kRefuse, When::IsNot, word, bits, 0}; }

const Rule kAlways[] = {
    // The network. Connected sockets come in as descriptors; they cannot be made, named or led elsewhere. A closed TCP socket that
    // was given would connect anew by MSG_FASTOPEN. Datagram sockets, whose sendmsg names any address, must not be given.
    {SYS_socket}, {SYS_bind}, {SYS_connect},
    if_is_not(SYS_sendto, lower(4), 0), if_is_not(SYS_sendto, upper(4), 0), if_any(SYS_sendto, lower(3), MSG_FASTOPEN),
    if_any(SYS_sendmsg, lower(2), MSG_FASTOPEN), if_any(SYS_sendmmsg, lower(3), MSG_FASTOPEN),

    // Other processes: their memory, descriptors, priorities, limits (of its own, below).
    {SYS_ptrace}, {SYS_process_vm_readv}, {SYS_process_vm_writev}, {SYS_kcmp}, {SYS_pidfd_open}, {SYS_pidfd_getfd},
    {SYS_process_madvise}, {SYS_process_mrelease}, {SYS_migrate_pages}, {SYS_move_pages}, {SYS_get_robust_list},
    {SYS_setpriority}, {SYS_ioprio_set}, {SYS_sched_setparam}, {SYS_sched_setscheduler}, {SYS_sched_setattr},
    {SYS_sched_setaffinity}, {SYS_perf_event_open}, {SYS_lookup_dcookie},
    // A signal by way of a descriptor's owner; a lease or a notification on a file that others open.
    if_is(SYS_fcntl, lower(1), F_SETOWN), if_is(SYS_fcntl, lower(1), 15 /* F_SETOWN_EX */),
    if_is(SYS_fcntl, lower(1), 10 /* F_SETSIG */), if_is(SYS_fcntl, lower(1), 1024 /* F_SETLEASE */),
    if_is(SYS_fcntl, lower(1), 1026 /* F_NOTIFY */),
    if_is(SYS_ioctl, lower(1), 0x8901 /* FIOSETOWN */), if_is(SYS_ioctl, lower(1), 0x8902 /* SIOCSPGRP */),
    // Typing into a terminal, and what else its console would do.
    if_is(SYS_ioctl, lower(1), TIOCSTI), if_is(SYS_ioctl, lower(1), TIOCLINUX), if_is(SYS_ioctl, lower(1), TIOCSETD),
    if_is(SYS_ioctl, lower(1), TIOCCONS),
    // One signal to the caller's process group has to reach all of them.
    {SYS_setpgid}, {SYS_setsid},

    // Memory of others, messages and keys, all by names that are no files.
    {SYS_shmget}, {SYS_shmat}, {SYS_shmctl}, {SYS_semget}, {SYS_semop}, {SYS_semtimedop}, {SYS_semctl}, {SYS_msgget}, {SYS_msgsnd},
    {SYS_msgrcv}, {SYS_msgctl}, {SYS_mq_open}, {SYS_mq_unlink}, {SYS_add_key}, {SYS_request_key}, {SYS_keyctl},
    // Files without a name, which Landlock lets anybody execute.
    {SYS_memfd_create}, {SYS_memfd_secret}, {SYS_execveat},
    // Memory that RLIMIT_DATA does not count.
    {SYS_mmap, kRefuse, When::Is, lower(3), MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS},
    if_any(SYS_mmap, lower(3), MAP_GROWSDOWN), {SYS_remap_file_pages},

    // What Landlock has no right for.
    {SYS_fchmod}, {SYS_fchmodat}, {kFchmodat2}, {SYS_fchown}, {SYS_fchownat}, {SYS_utimensat}, {SYS_setxattr}, {SYS_lsetxattr},
    {SYS_fsetxattr}, {SYS_removexattr}, {SYS_lremovexattr}, {SYS_fremovexattr}, {SYS_inotify_init1}, {SYS_inotify_add_watch},
    {SYS_fanotify_init}, {SYS_fanotify_mark}, {SYS_name_to_handle_at}, {SYS_open_by_handle_at},
    // Shortening a file counts as writing it from ABI 3 on only.
    {SYS_truncate}, {SYS_openat, kRefuse, When::Is, lower(2), O_ACCMODE | O_TRUNC, O_RDONLY | O_TRUNC},
    {SYS_openat2, kUnknown},

    // What only gets around filters, or is a rich source of holes, and which Node does without.
    {SYS_io_uring_setup, kUnknown}, {SYS_io_uring_enter, kUnknown}, {SYS_io_uring_register, kUnknown}, {SYS_userfaultfd},
    {SYS_bpf}, {SYS_personality}, {SYS_clone3, kUnknown},

    // The machine and its namespaces: privileged, or made so by a user namespace.
    {SYS_unshare}, {SYS_setns}, {SYS_chroot}, {SYS_pivot_root}, {SYS_mount}, {SYS_umount2}, {SYS_open_tree}, {SYS_move_mount},
    {SYS_fsopen}, {SYS_fsconfig}, {SYS_fsmount}, {SYS_fspick}, {SYS_mount_setattr}, {kStatmount}, {kListmount}, {kLsmSetSelfAttr},
    {SYS_init_module}, {SYS_finit_module}, {SYS_delete_module}, {SYS_kexec_load}, {SYS_reboot}, {SYS_swapon}, {SYS_swapoff},
    {SYS_settimeofday}, {SYS_clock_settime}, {SYS_clock_adjtime}, {SYS_adjtimex}, {SYS_sethostname}, {SYS_setdomainname},
    {SYS_quotactl}, {SYS_quotactl_fd}, {SYS_acct}, {SYS_syslog}, {SYS_vhangup}, {SYS_nfsservctl},
    // Who it is.
    {SYS_setuid}, {SYS_setgid}, {SYS_setreuid}, {SYS_setregid}, {SYS_setresuid}, {SYS_setresgid}, {SYS_setfsuid}, {SYS_setfsgid},
    {SYS_setgroups}, {SYS_capset},
    // Of prctl nothing but names for threads and mappings: among the rest are whom to die with, and whom to be traced by.
    if_is(SYS_prctl, lower(0), PR_SET_NAME, kAllow), if_is(SYS_prctl, lower(0), PR_GET_NAME, kAllow),
    if_is(SYS_prctl, lower(0), 0x53564d41 /* PR_SET_VMA */, kAllow), if_is(SYS_prctl, lower(0), PR_CAPBSET_READ, kAllow),
    {SYS_prctl},

#if defined(__x86_64__)  // older ways to the same, which aarch64 never had
    {SYS_chmod}, {SYS_chown}, {SYS_lchown}, {SYS_utime}, {SYS_utimes}, {SYS_futimesat}, {SYS_inotify_init},
    {SYS_open, kRefuse, When::Is, lower(1), O_ACCMODE | O_TRUNC, O_RDONLY | O_TRUNC},
    {SYS_kexec_file_load}, {SYS_iopl}, {SYS_ioperm}, {SYS_modify_ldt}, {SYS_uselib}, {SYS_ustat}, {SYS_sysfs},
    {SYS__sysctl}, {SYS_create_module}, {SYS_get_kernel_syms}, {SYS_query_module},
#else
    {SYS_kexec_file_load},
#endif
};

// Without --accept. With it they are for the sockets that come in listening: one that is connected, or has no name, is refused by
// listen(2) itself, and none can be disconnected or named in here.
const Rule kNoAccepting[] = {{SYS_listen}, {SYS_accept}, {SYS_accept4}};

// Without --processes. Threads are clones too; fork and what else makes a process is clone without CLONE_THREAD.
const Rule kNoChildren[] = {
    {SYS_clone, kRefuse, When::Is, lower(0), CLONE_THREAD, 0},
    {SYS_socketpair},
#if defined(__x86_64__)
    {SYS_fork}, {SYS_vfork},
#endif
};

// With --processes: no namespaces, no children of the caller's; pairs of stream sockets, by which Node talks to children and which
// heed no address.
const Rule kChildren[] = {
    if_any(SYS_clone, lower(0), 0x7e020000 /* CLONE_NEW* */ | CLONE_PARENT),
    if_is_not(SYS_socketpair, lower(0), AF_UNIX),
    {SYS_socketpair, kRefuse, When::IsNot, lower(1), 0xf, SOCK_STREAM},
};

constexpr size_t kMostInstructions = 4096;  // the kernel's limit, BPF_MAXINSNS

class Program {
 public:
  Program() {
    load(offsetof(seccomp_data, arch));
    // Jumps are relative: past the next instruction when equal.
    add(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0);
    add(BPF_RET | BPF_K, kRefuse);
    load(offsetof(seccomp_data, nr));
    add(BPF_JMP | BPF_JGT | BPF_K, kNewest, 0, 1);
    add(BPF_RET | BPF_K, kUnknown);
  }
  void add(const Rule& rule) {
    const bool always = rule.when == When::Always;
    add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(rule.call), 0, always ? 1 : 5);
    if (!always) {
      load(static_cast<uint32_t>(offsetof(seccomp_data, args) + rule.word * sizeof(uint32_t)));
      add(BPF_ALU | BPF_AND | BPF_K, rule.mask);
      add(BPF_JMP | BPF_JEQ | BPF_K, rule.value, rule.when == When::Is ? 0 : 1, rule.when == When::Is ? 1 : 0);
    }
    add(BPF_RET | BPF_K, rule.action);
    if (!always) load(offsetof(seccomp_data, nr));
  }
  template <size_t N>
  void add(const Rule (&rules)[N]) {
    for (const Rule& rule : rules) add(rule);
  }
  bool install() {
    add(BPF_RET | BPF_K, kAllow);
    if (count_ > kMostInstructions) return fail("the filter is too long");
    const sock_fprog program = {static_cast<unsigned short>(count_), code_};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return fail("the system call filter cannot be set");
    return true;
  }

 private:
  void load(uint32_t offset) { add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void add(int code, uint32_t k, int when_true = 0, int when_false = 0) {
    if (count_ < kMostInstructions)
      code_[count_] = {static_cast<uint16_t>(code), static_cast<uint8_t>(when_true), static_cast<uint8_t>(when_false), k};
    count_++;
  }

  size_t count_ = 0;
  sock_filter code_[kMostInstructions];
};

}  // namespace

bool filter_syscalls(const Order& order, Landlock landlock) {
  static Program program;
  program.add(kAlways);
  if (order.processes) program.add(kChildren);
  else program.add(kNoChildren);
  if (!order.accept) program.add(kNoAccepting);

  // Its number outlives exec. Where Landlock keeps signals inside, children may be signalled.
  const uint32_t self = static_cast<uint32_t>(getpid());
  if (!order.processes || !landlock.scopes_signals()) {
    for (int call : {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo})
      program.add(if_is_not(call, lower(0), self));
    program.add(Rule{SYS_tkill});
    program.add(Rule{SYS_pidfd_send_signal});
  }
  program.add(if_is(SYS_prlimit64, lower(0), 0, kAllow));
  program.add(if_is_not(SYS_prlimit64, lower(0), self));
  return program.install();
}

}  // namespace mishap::jail
