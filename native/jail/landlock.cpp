// Stops what goes by a file's name: reading, writing, making, removing, renaming, executing, device ioctls, of everything that is
// not in the rules; and, where the kernel can, signals to and abstract Unix sockets of processes outside, ptrace and /proc/PID of
// them in any case. Every right that the running kernel's ABI knows (of those known here, ABI 7) is handled, so that it is denied
// where no rule grants it. What Landlock has no right for, the filter refuses: chmod, chown, setxattr, utime, inotify. stat, access,
// readlink and chdir stay: a script learns that a file exists, its size and its times, anywhere.
//
// landlock(7). Numbers are spelled out because Debian 12's headers end at ABI 2.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail.h"

namespace mishap::jail {

namespace {

constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;  // the same on every architecture
constexpr unsigned kVersion = 1, kPathBeneath = 1;

constexpr uint64_t kExecute = 1 << 0, kWriteFile = 1 << 1, kReadFile = 1 << 2, kReadDir = 1 << 3, kRemoveDir = 1 << 4,
                   kRemoveFile = 1 << 5, kMakeDir = 1 << 7, kMakeReg = 1 << 8, kRefer = 1 << 13, kTruncate = 1 << 14;
constexpr uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate;  // the others are rights of directories
constexpr uint64_t kRead = kReadFile | kReadDir;
// No links, sockets, pipes or devices: a symbolic link would lead the user's other programs to where the script wants them.
constexpr uint64_t kWrite = kWriteFile | kTruncate | kRemoveDir | kRemoveFile | kMakeDir | kMakeReg | kRefer;
constexpr uint64_t kRun = kExecute | kReadFile;

struct Ruleset {
  uint64_t files, network, scopes;
};
struct [[gnu::packed]] Rule {
  uint64_t allowed;
  int32_t beneath;
};

// All rights of files of an ABI: the first 13, then REFER (2), TRUNCATE (3), IOCTL_DEV (5).
constexpr uint64_t rights(int abi) { return (1ull << (abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13)) - 1; }

// What Node needs to start, besides its own file and the loader that this names. Nothing here is a user's. What is missing on a
// machine is left out.
struct Needed {
  const char* path;
  uint64_t rights;
};
const Needed kNeeded[] = {
    {"/etc/ld.so.cache", kReadFile},  // the loader: where libraries are
    // The loader: libstdc++, libm, libgcc_s, libc; and of a distribution's Node its libnode, ICU, OpenSSL and what those open later.
    {"/lib/x86_64-linux-gnu", kReadFile},   // Debian, Ubuntu
    {"/lib/aarch64-linux-gnu", kReadFile},
    {"/lib64", kReadFile},                  // Fedora, Arch
    {"/etc/ssl/openssl.cnf", kReadFile},    // OpenSSL ends the process when it is there and cannot be read
    {"/usr/lib/ssl/openssl.cnf", kReadFile},
    {"/etc/pki/tls/openssl.cnf", kReadFile},
    {"/etc/localtime", kReadFile},          // local time, in Date
    {"/dev/null", kReadFile | kWriteFile},  // what children are given as their input
};

// With --proc: what process.memoryUsage, os.cpus, os.loadavg and the like read. /proc/self is this process, also after exec.
const char* const kProc[] = {
    "/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version",
    "/sys/devices/system/cpu",
};

enum class Missing { Fails, IsLeftOut };

bool allow(int ruleset, uint64_t handled, const char* path, uint64_t allowed, Missing missing) {
  const int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) return missing == Missing::IsLeftOut || fail("%s cannot be granted", path);
  struct stat about;
  if (fstat(fd, &about) != 0) return fail("%s cannot be granted", path);
  if (!S_ISDIR(about.st_mode)) allowed &= kOfFiles;
  const Rule rule = {allowed & handled, fd};
  const bool done = syscall(kAddRule, ruleset, kPathBeneath, &rule, 0) == 0;
  if (!done) fail("%s cannot be granted", path);
  close(fd);
  return done;
}

// The loader that an ELF file names, which the kernel executes in its place: a file that may be executed is not enough. False:
// it is no ELF file, or needs none.
bool loader_of(const char* program, char* loader, size_t size) {
  const int fd = open(program, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  Elf64_Ehdr header;
  bool found = pread(fd, &header, sizeof(header), 0) == sizeof(header) && !memcmp(header.e_ident, ELFMAG, SELFMAG) &&
               header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_phentsize == sizeof(Elf64_Phdr);
  for (int n = 0; found && n < header.e_phnum; n++) {
    Elf64_Phdr part;
    if (pread(fd, &part, sizeof(part), static_cast<off_t>(header.e_phoff + n * sizeof(part))) != sizeof(part)) break;
    if (part.p_type != PT_INTERP || part.p_filesz == 0 || part.p_filesz > size) continue;
    const ssize_t length = pread(fd, loader, part.p_filesz, static_cast<off_t>(part.p_offset));
    close(fd);
    return length == static_cast<ssize_t>(part.p_filesz) && !loader[length - 1];
  }
  close(fd);
  return false;
}

bool allow_program(int ruleset, uint64_t handled, const char* path) {
  char loader[512];
  return allow(ruleset, handled, path, kRun, Missing::Fails) &&
         (!loader_of(path, loader, sizeof(loader)) || allow(ruleset, handled, loader, kRun, Missing::Fails));
}

}  // namespace

Landlock look_for_landlock() {
  const long abi = syscall(kCreateRuleset, nullptr, 0, kVersion);
  return {abi > 0 ? static_cast<int>(abi) : 0};
}

bool restrict_files(const Order& order, Landlock landlock) {
  const int abi = landlock.abi;
  if (!abi) return true;
  Ruleset wanted = {rights(abi), abi >= 4 ? 3u : 0u, abi >= 6 ? 3u : 0u};  // TCP bind and connect; abstract sockets and signals
  const size_t size = abi >= 6 ? sizeof(wanted) : abi >= 4 ? offsetof(Ruleset, scopes) : offsetof(Ruleset, network);
  const int ruleset = static_cast<int>(syscall(kCreateRuleset, &wanted, size, 0));
  if (ruleset < 0) return fail("Landlock refuses the rules");
  for (const Needed& needed : kNeeded)
    if (!allow(ruleset, wanted.files, needed.path, needed.rights, Missing::IsLeftOut)) return false;
  if (order.proc)
    for (const char* path : kProc)
      if (!allow(ruleset, wanted.files, path, kRead, Missing::IsLeftOut)) return false;
  for (const char* path : order.read)
    if (!allow(ruleset, wanted.files, path, kRead, Missing::Fails)) return false;
  for (const char* path : order.write)
    if (!allow(ruleset, wanted.files, path, kWrite, Missing::Fails)) return false;
  for (const char* path : order.run)
    if (!allow_program(ruleset, wanted.files, path)) return false;
  if (!allow_program(ruleset, wanted.files, order.command[0])) return false;
  if (syscall(kRestrictSelf, ruleset, 0) != 0) return fail("Landlock cannot be enforced");
  close(ruleset);
  return true;
}

}  // namespace mishap::jail
