// stdio on sockets. libc's streams read and write inside libc, past every hook, so a stream on a faulted socket is one whose
// reads and writes are ours: fdopen returns such a stream, a socket that becomes 0, 1 or 2 gets one in place of the standard
// one, and what dprintf formats is written like any other bytes. fileno() says the socket's number as ever.
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include "interceptor.h"

#define EXPORT extern "C" __attribute__((visibility("default"), used))

namespace mishap {
namespace {

int fd_behind(void* cookie) { return static_cast<int>(reinterpret_cast<intptr_t>(cookie)); }

ssize_t read_stream(void* cookie, char* bytes, size_t size) { return slow::read(fd_behind(cookie), bytes, size); }
// All of it, as libc's own streams do; fewer bytes mean that an error came.
ssize_t write_stream(void* cookie, const char* bytes, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = slow::write(fd_behind(cookie), bytes + done, size - done);
    if (n < 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}
int seek_stream(void*, off64_t*, int) {
  errno = ESPIPE;
  return -1;
}
int close_stream(void* cookie) { return slow::close(fd_behind(cookie)); }

// Whether what a stream on this socket moves has to pass through our hands: a fault is in force, or every byte is counted.
bool needs_us(int fd) { return is_faulted(fd) || (self.counted && noted_socket(fd) && noted_socket(fd)->flow); }

FILE* stream_on(int fd, const char* mode) {
  FILE* stream = fopencookie(reinterpret_cast<void*>(static_cast<intptr_t>(fd)), mode, {read_stream, write_stream, seek_stream, close_stream});
  if (stream) stream->_fileno = fd;
  return stream;
}

int print(int fd, const char* format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(nullptr, 0, format, again);
  va_end(again);
  if (length <= 0) return length;
  const u64 size = static_cast<u64>(length) + 1;
  char* text = reinterpret_cast<char*>(map_buffer(size));
  if (!text) return real.vdprintf(fd, format, arguments);
  vsnprintf(text, size, format, arguments);
  if (write_stream(reinterpret_cast<void*>(static_cast<intptr_t>(fd)), text, size - 1) < length) length = -1;
  int kept = errno;
  unmap_buffer(reinterpret_cast<u8*>(text), size);
  errno = kept;
  return length;
}

}  // namespace

void adopt_standard_stream(int fd) {
  static FILE* adopted[3];
  if (fd < 0 || fd > 2 || adopted[fd] || !needs_us(fd)) return;
  FILE*& standard = fd == 0 ? stdin : fd == 1 ? stdout : stderr;
  FILE* stream = stream_on(fd, fd == 0 ? "r" : "w");
  if (!stream) return;
  if (fd > 0) fflush(standard);
  if (fd == 2) setvbuf(stream, nullptr, _IONBF, 0);
  adopted[fd] = standard = stream;
}

namespace slow {

FILE* fdopen(int fd, const char* mode) { return needs_us(fd) ? stream_on(fd, mode) : real.fdopen(fd, mode); }

int vdprintf(int fd, const char* format, va_list arguments) {
  return needs_us(fd) ? print(fd, format, arguments) : real.vdprintf(fd, format, arguments);
}
int __vdprintf_chk(int fd, int flag, const char* format, va_list arguments) {
  return needs_us(fd) ? print(fd, format, arguments) : real.__vdprintf_chk(fd, flag, format, arguments);
}

}  // namespace slow
}  // namespace mishap

EXPORT int entry_dprintf(int fd, const char* format, ...) __asm__("dprintf");
EXPORT int entry_dprintf_chk(int fd, int flag, const char* format, ...) __asm__("__dprintf_chk");

int entry_dprintf(int fd, const char* format, ...) {
  if (!mishap::real.vdprintf) mishap::resolve_originals();
  va_list arguments;
  va_start(arguments, format);
  int n = mishap::slow::vdprintf(fd, format, arguments);
  va_end(arguments);
  return n;
}
int entry_dprintf_chk(int fd, int flag, const char* format, ...) {
  if (!mishap::real.__vdprintf_chk) mishap::resolve_originals();
  va_list arguments;
  va_start(arguments, format);
  int n = mishap::slow::__vdprintf_chk(fd, flag, format, arguments);
  va_end(arguments);
  return n;
}
