// What poll, select and epoll share. None of them believes the kernel about a linked flow: they ask look() what the program
// may see, ask the kernel for everything else, and sleep no longer than until a link has something new to show.
#pragma once

#include "interceptor.h"

namespace mishap {

constexpr u64 kForever = ~u64{0};
constexpr u64 kLookAgainNs = 200000000;  // how long a change that nothing wakes for may go unnoticed: the end of all faults
constexpr u64 kStuckNs = 1000000;        // before looking again at what should have changed and has not

inline bool sensible(const timespec* t) { return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < 1000000000; }
inline u64 deadline_in(u64 now, u64 seconds, u64 ns) {
  return seconds > (kForever - now - ns) / 1000000000 - 1 ? kForever - 1 : now + seconds * 1000000000 + ns;
}
inline timespec timespec_of(u64 ns) { return {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)}; }

inline u64 sooner(u64 a_ns, u64 b_ns) { return a_ns && a_ns < b_ns ? a_ns : b_ns; }

// A due time that has passed without effect is not waited for again and again.
inline u64 still_ahead(u64 due_ns, u64 looked_at_ns) {
  return due_ns && due_ns <= looked_at_ns ? looked_at_ns + kStuckNs : due_ns;
}

// The kernel's poll knows two names for the same readiness.
inline short with_synonyms(short events, const Socket& socket) {
  if (events & POLLIN) events |= POLLRDNORM;
  if (events & POLLOUT) events |= socket.stream ? POLLWRNORM : POLLWRNORM | POLLWRBAND;
  return events;
}

// An epoll set that is itself polled, or is in another set: what it has to report must then show from outside.
extern u32 epoll_sets;  // of this process that hold sockets
void watch_epoll(int fd);
inline void watch_if_epoll(int fd) {
  if (__builtin_expect(load(&epoll_sets) != 0, 0)) watch_epoll(fd);
}

}  // namespace mishap
