// The exported entry points, generated from hooks.def, and the originals behind them. A descriptor that is not ours costs
// one load and one branch.
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>

#include "interceptor.h"

namespace mishap {

constinit Originals real = {};
u8 kinds[kDescriptors];

namespace {
template <class F>
void find(F*& slot, const char* name) {
  if (!slot) slot = reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}
}  // namespace

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
// do not bind us. A call before the constructor resolves the originals first; descriptors are only known after it.
#define EXPORT extern "C" __attribute__((visibility("default"), used))
#define ENTRY(result, name, params) \
  EXPORT result entry_##name params __asm__(#name); \
  result entry_##name params

#define FD(result, name, params, args)                                            \
  ENTRY(result, name, params) {                                                   \
    if (__builtin_expect(mishap::is_foreign(fd), 1)) return mishap::real.name args; \
    if (__builtin_expect(!mishap::real.name, 0)) mishap::resolve_originals();     \
    return mishap::slow::name args;                                               \
  }
#define ALL(result, name, params, args)                                       \
  ENTRY(result, name, params) {                                               \
    if (__builtin_expect(!mishap::real.name, 0)) mishap::resolve_originals(); \
    return mishap::slow::name args;                                           \
  }
#include "hooks.def"
#undef FD
#undef ALL

// io_uring carries I/O past every hook, so a faulted process is told that its kernel has none, and runtimes fall back.
ENTRY(long, syscall, (long number, long a, long b, long c, long d, long e, long f)) {
  if (__builtin_expect(!mishap::real.syscall, 0)) mishap::resolve_originals();
  if (number == SYS_io_uring_setup && mishap::active()) {
    mishap::add(&mishap::self.segment.header->io_uring_denied, mishap::u64{1});
    errno = ENOSYS;
    return -1;
  }
  return mishap::real.syscall(number, a, b, c, d, e, f);
}
