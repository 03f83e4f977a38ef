// How time passes: the one seam between what was decided and how it is carried out. Here a delay is waited for inside the
// call. A wait ends early when faults end (`mishap stop`, --duration, the owner's death), because then nothing may stay in
// force; signals do not end it, as they do not take back bytes that a socket buffer has accepted.
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "interceptor.h"

namespace mishap {
namespace {
constexpr u64 kSliceNs = 200000000;  // how long the owner's death may go unnoticed in a wait; a stop wakes the futex at once
}

u64 wait_until(u64 due_ns) {
  int kept = errno;
  u64 now = now_ns();
#ifdef MISHAP_TEST_WAIT_HALF
  if (due_ns > now) due_ns = now + (due_ns - now) / 2;  // evidence must show half of what was asked
#endif
  if (now >= due_ns) return now;
  u32* state = &self.segment.header->state;
  // The kernel may let a thread's timers be late by its slack, 50 us by default: not while it waits here.
  long slack_ns = real.syscall(SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0, 0);
  real.syscall(SYS_prctl, PR_SET_TIMERSLACK, 1, 0, 0, 0, 0);
  while (now < due_ns && lease_holds(self.segment, now)) {
    u64 end = due_ns - now > kSliceNs ? now + kSliceNs : due_ns;
    timespec t = {static_cast<time_t>(end / 1000000000), static_cast<long>(end % 1000000000)};
    real.syscall(SYS_futex, reinterpret_cast<long>(state), FUTEX_WAIT_BITSET, static_cast<long>(State::Active), reinterpret_cast<long>(&t), 0,
                 static_cast<long>(FUTEX_BITSET_MATCH_ANY));
    now = now_ns();
  }
  if (slack_ns > 0) real.syscall(SYS_prctl, PR_SET_TIMERSLACK, slack_ns, 0, 0, 0, 0);
  errno = kept;
  return now;
}

namespace {
// Timers to sleep by, shared by this process's threads; a slot is its descriptor + 1, 0 none yet.
struct Timer {
  int slot;
  u32 busy;
};
Timer timers[16];
}  // namespace

int borrow_timer(u64 due_ns) {
  for (Timer& timer : timers) {
    if (load(&timer.busy) || !swap_if(&timer.busy, 0u, 1u)) continue;
    if (!is_private(timer.slot - 1))
      timer.slot = 1 + make_private(static_cast<int>(real.syscall(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC, 0, 0, 0, 0)));
    const itimerspec at = {{0, 0}, {static_cast<time_t>(due_ns / 1000000000), static_cast<long>(due_ns % 1000000000)}};
    if (timer.slot && real.syscall(SYS_timerfd_settime, timer.slot - 1, TFD_TIMER_ABSTIME, reinterpret_cast<long>(&at), 0, 0, 0) == 0)
      return timer.slot - 1;
    store_release(&timer.busy, 0u);
    return -1;
  }
  return -1;
}
void return_timer(int fd) {
  for (Timer& timer : timers)
    if (timer.slot == fd + 1) store_release(&timer.busy, 0u);
}
void drop_inherited_timers() {
  for (Timer& timer : timers) {
    close_private(timer.slot - 1);
    timer = {};
  }
}

bool is_nonblocking(int fd, int flags) {
  if (flags & MSG_DONTWAIT) return true;
  long status = real.syscall(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
  return status >= 0 && (status & O_NONBLOCK);
}

bool ready_now(int fd, short events) {
  pollfd p = {fd, events, 0};
  return real.syscall(SYS_poll, reinterpret_cast<long>(&p), 1, 0, 0, 0, 0) > 0;
}

u8* map_buffer(u64 size) {
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p != MAP_FAILED) return static_cast<u8*>(p);
  count(Fallback::NoMemory);
  return nullptr;
}
void unmap_buffer(u8* buffer, u64 size) {
  if (buffer) munmap(buffer, size);
}

}  // namespace mishap
