// poll and select. Nothing linked among the descriptors: the call goes to libc after a glance at each. Else it is a loop:
//
//   look at the linked ones ─ something to be seen ─▶ ask the kernel about the others without waiting, report all of it
//        ▲        └ nothing ─▶ sleep in the kernel until one of the others is ready, a linked one's state changes,
//        └───────────────────  a linked one is due, a signal comes, or the program's time is up
//
// What the kernel says of descriptors that are not linked is reported as it said it.
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "readiness.h"

namespace mishap {
namespace {

constexpr nfds_t kFewEntries = 64;
constexpr int kFewWords = 64;         // of 64 descriptors each
constexpr u32 kMaxIdleWakes = 8;      // of the kernel in a row, for a linked descriptor that has nothing new to show
constexpr u64 kIdleWakeNs = 50000;    // what counts as one
constexpr short kLinked = 0x4000;     // marks an entry; no event has this bit

// What one pass over the linked descriptors found.
struct Seen {
  int ready = 0;
  bool others = false;    // descriptors that are not linked are among them
  bool withheld = false;  // the kernel is not asked for all that the program waits for
  u64 due_ns = kForever;
  u64 now_ns = 0;

  void meet(const Sight& sight, short wanted) {
    due_ns = sooner(still_ahead(sight.due_ns, now_ns), due_ns);
    if (wanted & ~sight.ask) withheld = true;
  }
};

// The kernel lets a poll be late by a thousandth of its wait (by 1/200 when niced) and at least by the thread's slack. That
// is the program's business while it waits for its own time; what is due on a link is met exactly: the last bit of the wait
// is one of its own, without slack.
template <class Ask>
int sleep_until_due(u64 due_ns, u64 now, Ask ask) {
  u64 left = due_ns - now;
  if (left > kStuckNs) {
    timespec most = timespec_of(left - left / 64);
    int n = ask(&most);
    now = now_ns();
    if (n != 0 || now >= due_ns) return n;
    left = due_ns - now;
  }
  timespec rest = timespec_of(left);
  long slack_ns = real.syscall(SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0, 0);
  real.syscall(SYS_prctl, PR_SET_TIMERSLACK, 1, 0, 0, 0, 0);
  int n = ask(&rest);
  if (slack_ns > 0) real.syscall(SYS_prctl, PR_SET_TIMERSLACK, slack_ns, 0, 0, 0, 0);
  return n;
}

// Sleeps in the kernel as long as nothing is known to change: until the deadline, what is due, or a look for the sake of it.
template <class Set>
int sleep_in_kernel(const Seen& seen, u64 deadline_ns, bool stuck, Set& set) {
  u64 until = deadline_ns;
  if (seen.withheld) until = sooner(seen.now_ns + kLookAgainNs, until);
  if (stuck) until = sooner(seen.now_ns + kStuckNs, until);
  if (seen.due_ns < until) return set.sleep(seen.due_ns, seen.now_ns);
  if (until == kForever) return set.ask(nullptr, false);
  timespec left = timespec_of(until > seen.now_ns ? until - seen.now_ns : 0);
  return set.ask(&left, false);
}

// The loop over a set of descriptors. `Set` says what is linked of it and asks the kernel about it:
//   bool look(Seen*, bool waited, bool stuck)     false: called from inside itself
//   int ask(timespec*, bool others_only)          as ppoll and pselect answer
//   int sleep(u64 due_ns, u64 now)                the same about all, until then
//   int others()                                  how many of the last answer are not linked
//   int report(bool with_seen)                    writes what the program gets, and counts it
//   void withdraw()                               leaves the program's memory as an error does
template <class Set>
int wait_on(Set& set, u64 deadline_ns) {
  bool waited = false, stuck = false;
  u32 idle_wakes = 0;
  timespec none = {0, 0};
  for (;;) {
    Seen seen;
    if (!set.look(&seen, waited, stuck)) {
      set.withdraw();
      errno = EINTR;
      return -1;
    }
    if (seen.ready || seen.now_ns >= deadline_ns) {
      none = {0, 0};
      int n = seen.others ? set.ask(&none, true) : 0;
      if (n < 0 && !(seen.ready && errno == EINTR)) {
        set.withdraw();
        return -1;
      }
      return set.report(true, n > 0);
    }
    int n = sleep_in_kernel(seen, deadline_ns, stuck, set);
    if (n < 0) {
      set.withdraw();
      return -1;
    }
    if (n > 0 && set.others()) return set.report(false, true);
    waited = true;
    idle_wakes = n > 0 && now_ns() - seen.now_ns < kIdleWakeNs ? idle_wakes + 1 : 0;
    stuck = idle_wakes > kMaxIdleWakes;
  }
}

// ---- poll -------------------------------------------------------------------------------------------------------------

class Polled {
 public:
  Polled(pollfd* fds, nfds_t count, const sigset_t* mask, pollfd* copy) : fds_(fds), count_(count), mask_(mask), copy_(copy) {}

  // Leaves in the program's entries what is seen of the linked ones, and kLinked where nothing is.
  bool look(Seen* seen, bool waited, bool stuck) {
    Guard guard;
    if (!guard) return false;
    seen->now_ns = now_ns();
    for (nfds_t i = 0; i < count_; i++) {
      pollfd& entry = fds_[i];
      copy_[i] = {entry.fd, entry.events, 0};
      entry.revents = 0;
      Socket* socket = linked_socket(entry.fd);
      if (!socket) {
        seen->others |= entry.fd >= 0;
        continue;
      }
      Sight sight = mishap::look(entry.fd, socket, waited);
      seen->meet(sight, entry.events);
      entry.revents = with_synonyms(sight.events, *socket) & (entry.events | POLLERR | POLLHUP);
      if (entry.revents) seen->ready++;
      else entry.revents = kLinked;
      // The kernel reports errors and the end unasked, so a descriptor that has one which is not due is left out. One whose
      // peer may still end is asked for that too: it is how the end is dated.
      short end = sight.ask & POLLRDHUP & ~sight.events;
      copy_[i].events = sight.ask & (entry.events | end);
      if (sight.ask == 0 || stuck) copy_[i].fd = -1;
    }
    return true;
  }

  int ask(timespec* left, bool others_only) {
    if (others_only)
      for (nfds_t i = 0; i < count_; i++)
        if (fds_[i].revents) copy_[i].fd = -1;
    return real.ppoll(copy_, count_, left, mask_);
  }

  // By a timer among the descriptors: it is exact, where the kernel lets a timeout be late.
  int sleep(u64 due_ns, u64 now) {
    const int timer = borrow_timer(due_ns);
    if (timer < 0) return sleep_until_due(due_ns, now, [&](timespec* left) { return ask(left, false); });
    copy_[count_] = {timer, POLLIN, 0};
    int n = real.ppoll(copy_, count_ + 1, nullptr, mask_);
    int kept = errno;
    return_timer(timer);
    errno = kept;
    return n > 0 && copy_[count_].revents ? n - 1 : n;
  }

  int others() const {
    int n = 0;
    for (nfds_t i = 0; i < count_; i++) n += copy_[i].revents && !fds_[i].revents;
    return n;
  }

  int report(bool with_seen, bool answered) {
    int n = 0;
    for (nfds_t i = 0; i < count_; i++) {
      short& revents = fds_[i].revents;
      if (revents == kLinked || !with_seen) revents = revents ? 0 : answered ? copy_[i].revents : 0;
      else if (!revents && answered) revents = copy_[i].revents;
      n += revents != 0;
    }
    return n;
  }

  void withdraw() {
    for (nfds_t i = 0; i < count_; i++) fds_[i].revents = 0;
  }

 private:
  pollfd* fds_;
  nfds_t count_;
  const sigset_t* mask_;
  pollfd* copy_;
};

bool any_linked(const pollfd* fds, nfds_t count) {
  if (!load(&self.linked) || !self.attached || !fds || count > kDescriptors) return false;
  Guard guard;
  bool found = false;
  for (nfds_t i = 0; guard && i < count; i++) {
    if (fds[i].fd < 0) continue;
    if (linked_socket(fds[i].fd)) found = true;
    watch_if_epoll(fds[i].fd);
  }
  return found;
}

int poll_linked(pollfd* fds, nfds_t count, u64 deadline_ns, const sigset_t* mask) {
  pollfd few[kFewEntries];
  const u64 size = (count + 1) * sizeof(pollfd);  // one more for a timer
  pollfd* copy = count < kFewEntries ? few : reinterpret_cast<pollfd*>(map_buffer(size));
  if (!copy) {
    timespec left = {};
    if (deadline_ns != kForever) left = timespec_of(deadline_ns > now_ns() ? deadline_ns - now_ns() : 0);
    return real.ppoll(fds, count, deadline_ns == kForever ? nullptr : &left, mask);
  }
  Polled set(fds, count, mask, copy);
  int kept = errno;
  int n = wait_on(set, deadline_ns);
  if (n >= 0) errno = kept;
  if (copy != few) {
    kept = errno;
    unmap_buffer(reinterpret_cast<u8*>(copy), size);
    errno = kept;
  }
  return n;
}

// ---- select -----------------------------------------------------------------------------------------------------------

enum { kRead, kWrite, kExcept, kSets };

class Selected {
 public:
  static constexpr int kBitmaps = 2 * kSets + 1;

  // `space`: kBitmaps times `words`.
  Selected(int count, fd_set* const* sets, const sigset_t* mask, u64* space, int words)
      : count_(count), words_(words), mask_(mask), linked_(space + 2 * kSets * words) {
    for (int s = 0; s < kSets; s++) {
      program_[s] = reinterpret_cast<u64*>(sets[s]);
      asked_[s] = space + s * words;
      seen_[s] = space + (kSets + s) * words;
    }
  }

  bool look(Seen* seen, bool waited, bool stuck) {
    Guard guard;
    if (!guard) return false;
    seen->now_ns = now_ns();
    for (int w = 0; w < words_; w++) {
      u64 any = 0;
      linked_[w] = 0;
      for (int s = 0; s < kSets; s++) {
        asked_[s][w] = program_[s] ? program_[s][w] & within(w) : 0;
        seen_[s][w] = 0;
        any |= asked_[s][w];
      }
      for (; any; any &= any - 1) look_at(w, any & -any, seen, waited, stuck);
    }
    return true;
  }

  int ask(timespec* left, bool others_only) {
    for (int s = 0; s < kSets; s++)
      for (int w = 0; others_only && w < words_; w++) asked_[s][w] &= ~linked_[w];
    // As the program gave them: a set that it left out is not looked at.
    fd_set* sets[kSets];
    for (int s = 0; s < kSets; s++) sets[s] = program_[s] ? reinterpret_cast<fd_set*>(asked_[s]) : nullptr;
    return real.pselect(count_, sets[kRead], sets[kWrite], sets[kExcept], left, mask_);
  }

  int sleep(u64 due_ns, u64 now) {
    return sleep_until_due(due_ns, now, [&](timespec* left) { return ask(left, false); });
  }

  int others() const {
    int n = 0;
    for (int s = 0; s < kSets; s++)
      for (int w = 0; program_[s] && w < words_; w++) n += __builtin_popcountll(asked_[s][w] & ~linked_[w]);
    return n;
  }

  int report(bool with_seen, bool answered) {
    int n = 0;
    for (int s = 0; s < kSets; s++)
      for (int w = 0; program_[s] && w < words_; w++) {
        u64 bits = (answered ? asked_[s][w] & ~linked_[w] : 0) | (with_seen ? seen_[s][w] : 0);
        program_[s][w] = bits | (program_[s][w] & ~within(w));
        n += __builtin_popcountll(bits);
      }
    return n;
  }

  void withdraw() {}  // an error leaves the program's sets as they were

 private:
  u64 within(int word) const {
    int bits = count_ - word * 64;
    return bits >= 64 ? ~u64{0} : (u64{1} << bits) - 1;
  }

  void look_at(int w, u64 bit, Seen* seen, bool waited, bool stuck) {
    const int fd = w * 64 + __builtin_ctzll(bit);
    Socket* socket = linked_socket(fd);
    if (!socket) {
      seen->others = true;
      return;
    }
    constexpr short meaning[kSets] = {POLLIN, POLLOUT, POLLPRI};
    constexpr short shows[kSets] = {POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, POLLPRI};
    linked_[w] |= bit;
    Sight sight = mishap::look(fd, socket, waited);
    short wanted = 0;
    for (int s = 0; s < kSets; s++) {
      if (!(asked_[s][w] & bit)) continue;
      wanted |= meaning[s];
      if (sight.events & shows[s]) {
        seen_[s][w] |= bit;
        seen->ready++;
      }
      if (!(sight.ask & meaning[s]) || stuck) asked_[s][w] &= ~bit;
    }
    seen->meet(sight, wanted);
  }

  int count_, words_;
  const sigset_t* mask_;
  u64* program_[kSets];
  u64* asked_[kSets];
  u64* seen_[kSets];
  u64* linked_;
};

bool any_linked(int count, fd_set* const* sets) {
  if (!load(&self.linked) || !self.attached || count <= 0 || static_cast<u32>(count) > kDescriptors) return false;
  Guard guard;
  bool found = false;
  for (int w = 0; guard && w * 64 < count; w++) {
    u64 any = 0;
    for (int s = 0; s < kSets; s++)
      if (sets[s]) any |= reinterpret_cast<const u64*>(sets[s])[w];
    if (count - w * 64 < 64) any &= (u64{1} << (count - w * 64)) - 1;
    for (; any; any &= any - 1) {
      int fd = w * 64 + __builtin_ctzll(any);
      if (linked_socket(fd)) found = true;
      watch_if_epoll(fd);
    }
  }
  return found;
}

// False: there is no memory for it.
bool select_linked(int count, fd_set* const* sets, u64 deadline_ns, const sigset_t* mask, int* result) {
  const int words = (count + 63) / 64;
  u64 few[Selected::kBitmaps * kFewWords];
  const u64 size = static_cast<u64>(words) * Selected::kBitmaps * sizeof(u64);
  u64* space = words <= kFewWords ? few : reinterpret_cast<u64*>(map_buffer(size));
  if (!space) return false;
  Selected set(count, sets, mask, space, words);
  int kept = errno;
  *result = wait_on(set, deadline_ns);
  if (*result >= 0) errno = kept;
  if (space != few) {
    kept = errno;
    unmap_buffer(reinterpret_cast<u8*>(space), size);
    errno = kept;
  }
  return true;
}

}  // namespace

namespace slow {

int poll(pollfd* fds, nfds_t count, int timeout_ms) {
  if (!any_linked(fds, count)) return real.poll(fds, count, timeout_ms);
  u64 deadline = timeout_ms < 0 ? kForever : timeout_ms == 0 ? 0 : deadline_in(now_ns(), 0, static_cast<u64>(timeout_ms) * 1000000);
  return poll_linked(fds, count, deadline, nullptr);
}
int __poll(pollfd* fds, nfds_t count, int timeout_ms) { return slow::poll(fds, count, timeout_ms); }

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (!any_linked(fds, count) || (timeout && !sensible(timeout))) return real.ppoll(fds, count, timeout, mask);
  u64 deadline = timeout ? deadline_in(now_ns(), static_cast<u64>(timeout->tv_sec), static_cast<u64>(timeout->tv_nsec)) : kForever;
  return poll_linked(fds, count, deadline, mask);
}

int __poll_chk(pollfd* fds, nfds_t count, int timeout_ms, size_t room) {
  return room / sizeof(pollfd) < count ? real.__poll_chk(fds, count, timeout_ms, room) : slow::poll(fds, count, timeout_ms);
}
int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t room) {
  return room / sizeof(pollfd) < count ? real.__ppoll_chk(fds, count, timeout, mask, room) : slow::ppoll(fds, count, timeout, mask);
}

int pselect(int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask) {
  fd_set* sets[kSets] = {read, write, except};
  auto pass = [&] { return real.pselect(count, read, write, except, timeout, mask); };
  if (!any_linked(count, sets) || (timeout && !sensible(timeout))) return pass();
  u64 deadline = timeout ? deadline_in(now_ns(), static_cast<u64>(timeout->tv_sec), static_cast<u64>(timeout->tv_nsec)) : kForever;
  int n;
  return select_linked(count, sets, deadline, mask, &n) ? n : pass();
}

// Linux leaves the time that was left in the timeout.
int select(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout) {
  fd_set* sets[kSets] = {read, write, except};
  auto pass = [&] { return real.select(count, read, write, except, timeout); };
  if (!any_linked(count, sets) || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0))) return pass();
  u64 deadline = kForever;
  if (timeout) deadline = deadline_in(now_ns(), static_cast<u64>(timeout->tv_sec), static_cast<u64>(timeout->tv_usec) * 1000);
  int n;
  if (!select_linked(count, sets, deadline, nullptr, &n)) return pass();
  if (timeout) {
    u64 now = now_ns(), left_us = deadline > now ? (deadline - now) / 1000 : 0;
    *timeout = {static_cast<time_t>(left_us / 1000000), static_cast<suseconds_t>(left_us % 1000000)};
  }
  return n;
}
int __select(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout) {
  return slow::select(count, read, write, except, timeout);
}

}  // namespace slow
}  // namespace mishap
