// execl, execlp and execle take their arguments one by one: they are laid out as a list on the stack and go the way of
// execve, so that a child keeps preload and segment however it is started.
#include <stdarg.h>
#include <unistd.h>

#include "interceptor.h"

#define EXPORT extern "C" __attribute__((visibility("default"), used))

namespace {
u_int arguments_in(va_list* arguments) {
  u_int n = 1;
  while (va_arg(*arguments, char*)) n++;
  return n;
}
}  // namespace

#define LAY_OUT(first)                                   \
  va_list arguments;                                     \
  va_start(arguments, first);                            \
  u_int count = arguments_in(&arguments);                \
  va_end(arguments);                                     \
  char* argv[count + 1];                                 \
  va_start(arguments, first);                            \
  argv[0] = const_cast<char*>(first);                    \
  for (u_int i = 1; i <= count; i++) argv[i] = va_arg(arguments, char*)

EXPORT int entry_execl(const char* path, const char* first, ...) __asm__("execl");
EXPORT int entry_execlp(const char* file, const char* first, ...) __asm__("execlp");
EXPORT int entry_execle(const char* path, const char* first, ...) __asm__("execle");

int entry_execl(const char* path, const char* first, ...) {
  LAY_OUT(first);
  va_end(arguments);
  if (!mishap::real.execve) mishap::resolve_originals();
  return mishap::slow::execve(path, argv, environ);
}
int entry_execlp(const char* file, const char* first, ...) {
  LAY_OUT(first);
  va_end(arguments);
  if (!mishap::real.execvpe) mishap::resolve_originals();
  return mishap::slow::execvpe(file, argv, environ);
}
int entry_execle(const char* path, const char* first, ...) {
  LAY_OUT(first);
  char* const* envp = va_arg(arguments, char* const*);
  va_end(arguments);
  if (!mishap::real.execve) mishap::resolve_originals();
  return mishap::slow::execve(path, argv, envp);
}
