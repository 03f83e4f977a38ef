// The exported entry points, generated from hooks.def, and the originals behind them. A descriptor that is not ours costs
// one load and one branch; a socket of ours that nothing is asked for is counted here and goes no further.
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>

#include "interceptor.h"

namespace mishap {

constinit Originals real = {};
u8 kinds[kDescriptors];

template <class F>
static void find(F*& slot, const char* name) {
  if (!slot) slot = reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

void resolve_originals() {
#define FD(result, name, params, args) find(real.name, #name);
#define ALL(result, name, params, args) find(real.name, #name);
#include "hooks.def"
#undef FD
#undef ALL
  find(real.syscall, "syscall");
}

}  // namespace mishap

// An entry point carries its libc name by assembler label, so that libc's own declarations (variable arguments, noexcept)
// do not bind us. A call before our constructor looks up its own original only and passes through: the caller may be an
// allocator that is setting itself up (jemalloc reads files for that), and dlsym allocates for a name that it cannot find.
#define EXPORT extern "C" __attribute__((visibility("default"), used))
#define ENTRY(result, name, params) \
  EXPORT result entry_##name params __asm__(#name); \
  result entry_##name params
#define EARLY(result, name, params, args)                         \
  __attribute__((noinline, cold)) static result early_##name params { \
    mishap::find(mishap::real.name, #name);                       \
    if (mishap::real.name) return mishap::real.name args;         \
    mishap::resolve_originals();                                  \
    return mishap::slow::name args;                               \
  }

// What is not for the fast path has a function of its own, so that the fast path needs no stack frame. `CALM` carries a
// call on a socket of which nothing is asked, or is empty.
#define DESCRIPTOR(result, name, params, args, CALM)                                \
  EARLY(result, name, params, args)                                                 \
  __attribute__((noinline)) static result ours_##name params {                      \
    if (__builtin_expect(!mishap::self.ready, 0)) return early_##name args;         \
    CALM(result, name, args)                                                        \
    return mishap::slow::name args;                                                 \
  }                                                                                 \
  ENTRY(result, name, params) {                                                     \
    if (__builtin_expect(mishap::is_foreign(fd), 1)) return mishap::real.name args; \
    return ours_##name args;                                                        \
  }
#define CALM_PASS(result, name, args, side)                    \
  if (mishap::Flow* flow = mishap::calm_flow(fd)) {            \
    result n = mishap::real.name args;                         \
    if (n >= 0) mishap::count_op(&flow->side);                 \
    return n;                                                  \
  }
#define CALM_UP(result, name, args) CALM_PASS(result, name, args, up)
#define CALM_DOWN(result, name, args) CALM_PASS(result, name, args, down)
#define CALM_NONE(result, name, args)

#define UP(result, name, params, args) DESCRIPTOR(result, name, params, args, CALM_UP)
#define DOWN(result, name, params, args) DESCRIPTOR(result, name, params, args, CALM_DOWN)
#define FD(result, name, params, args) DESCRIPTOR(result, name, params, args, CALM_NONE)
#define ALL(result, name, params, args)                                     \
  EARLY(result, name, params, args)                                         \
  ENTRY(result, name, params) {                                             \
    if (__builtin_expect(!mishap::self.ready, 0)) return early_##name args; \
    return mishap::slow::name args;                                         \
  }
#include "hooks.def"
#undef FD
#undef ALL

// The opt-in control path of old: a `which` that the kernel does not know sets faults.
ENTRY(int, setpriority, (int which, unsigned who, int priority)) {
  using namespace mishap;
  if (!real.syscall) find(real.syscall, "syscall");
  const bool control = self.ready && active() && (load(&self.segment.header->flags) & kHeaderLegacy) && engine::is_legacy_control(which);
  if (!control) return static_cast<int>(real.syscall(SYS_setpriority, which, who, priority, 0, 0, 0));
  i32 slot = static_cast<i32>(thread.legacy) - 1;
  const i32 error = engine::legacy_control(self.segment, caller(), &slot, which, static_cast<i32>(who), priority);
  thread.legacy = static_cast<u32>(slot + 1);
  if (error) errno = error;
  return error ? -1 : 0;
}

// io_uring carries I/O past every hook, so a faulted process is told that its kernel has none, and runtimes fall back. And
// libuv, which Node is made of, closes descriptors this way.
ENTRY(long, syscall, (long number, long a, long b, long c, long d, long e, long f)) {
  if (__builtin_expect(!mishap::real.syscall, 0)) mishap::find(mishap::real.syscall, "syscall");
  if (number == SYS_io_uring_setup && mishap::active()) {
    mishap::add(&mishap::self.segment.header->io_uring_denied, mishap::u64{1});
    errno = ENOSYS;
    return -1;
  }
  if (number == SYS_setpriority) return entry_setpriority(static_cast<int>(a), static_cast<unsigned>(b), static_cast<int>(c));
  if (number == SYS_close) return entry_close(static_cast<int>(a));
  return mishap::real.syscall(number, a, b, c, d, e, f);
}
