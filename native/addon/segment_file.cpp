// Making segment files and judging abandoned ones; see segment_file.h.
#include "segment_file.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>

#include "janitor/alive.h"
#include "lease.h"

namespace mishap {
namespace {

constexpr Capacities kFloor = {2, 64, 32, 64, 256, 64, 24, 1};  // decisions are never fewer than asked for
constexpr time_t kUnfinishedAfterSeconds = 10;

bool halve(u32* value, u32 floor) {
  const u32 before = *value;
  *value = std::max(*value / 2, std::min(*value, floor));
  return *value != before;
}

// False when nothing could be made smaller.
bool halve_all(Capacities* c) {
  bool smaller = halve(&c->policies, kFloor.policies);
  smaller |= halve(&c->bindings, kFloor.bindings);
  smaller |= halve(&c->processes, kFloor.processes);
  smaller |= halve(&c->owners, kFloor.owners);
  smaller |= halve(&c->flows, kFloor.flows);
  smaller |= halve(&c->events, kFloor.events);
  smaller |= halve(&c->histograms, kFloor.histograms);
  return smaller;
}

// A hole in a full tmpfs is a SIGBUS in whichever program touches it first, so every block is reserved before that.
int reserve(int fd, u64 size) {
  int error;
  do error = posix_fallocate(fd, 0, static_cast<off_t>(size));
  while (error == EINTR);
  return error;
}

}  // namespace

CreatedFile create_segment(const char* path, const Capacities& wanted) {
  CreatedFile made;
  made.capacities = wanted;
  made.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (made.fd < 0) {
    made.error = errno;
    made.doing = "create";
    return made;
  }
  auto fail = [&](const char* doing, int error) {
    close(made.fd);
    unlink(path);
    made.fd = -1;
    made.doing = doing;
    made.error = error;
    return made;
  };
  if (fchmod(made.fd, 0600) != 0) return fail("set the mode of", errno);  // a umask may have taken the owner's bits
  for (;;) {
    int error = reserve(made.fd, segment_size(made.capacities));
    if (error == 0) break;
    if (error != ENOSPC) return fail("reserve room for", error);
    if (ftruncate(made.fd, 0) != 0) return fail("shrink", errno);
    if (!halve_all(&made.capacities)) return fail("find room for", ENOSPC);
    made.shrunk = true;
  }
  const u64 size = segment_size(made.capacities);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, made.fd, 0);
  if (base == MAP_FAILED) return fail("map", errno);
  Header* header = static_cast<Header*>(base);
  initialise_owner_lock(header);
  header->owner_pid = getpid();
  header->owner_start = start_time(getpid());
  format(static_cast<u8*>(base), size, made.capacities);
  munmap(base, size);
  return made;
}

bool abandoned(const char* path) {
  struct stat st;
  if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid()) return false;
  Segment segment;
  const AttachError error = attach(path, &segment);
  if (error == AttachError::Truncated || error == AttachError::BadMagic) {
    // Its maker died between creating and formatting it, or is at it this moment.
    return time(nullptr) - st.st_mtime > kUnfinishedAfterSeconds;
  }
  if (error != AttachError::None) return false;  // another version's: only that one can tell
  const Header* header = segment.header;
  const u32 lock = load(reinterpret_cast<const u32*>(header->owner_lock));
  const bool held = (lock & FUTEX_TID_MASK) && !(lock & FUTEX_OWNER_DIED);
  // The lock is seen across pid namespaces; a pid covers the moment before the lock is taken.
  const bool owned = held || alive(load(&header->owner_pid), load(&header->owner_start));
  const bool dead = !owned && !living_process(segment, 0);
  detach(&segment);
  return dead;
}

}  // namespace mishap
