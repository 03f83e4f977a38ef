// Byte lists: cutting and copying iovecs, and the buffers of units that are held back.
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "interceptor.h"

namespace mishap {

int cut_parts(const iovec* parts, int count, u64 skip, u64* bytes, iovec* out, int capacity) {
  int n = 0;
  u64 left = *bytes;
  for (int i = 0; i < count && left && n < capacity; i++) {
    u64 size = parts[i].iov_len;
    if (skip >= size) {
      skip -= size;
      continue;
    }
    u64 take = size - skip < left ? size - skip : left;
    out[n++] = {static_cast<u8*>(parts[i].iov_base) + skip, take};
    skip = 0;
    left -= take;
  }
  *bytes -= left;
  return n;
}

void gather(const iovec* parts, int count, u64 skip, u8* to, u64 bytes) {
  for (int i = 0; i < count && bytes; i++) {
    u64 size = parts[i].iov_len;
    if (skip >= size) {
      skip -= size;
      continue;
    }
    u64 take = size - skip < bytes ? size - skip : bytes;
    memcpy(to, static_cast<const u8*>(parts[i].iov_base) + skip, take);
    skip = 0;
    to += take;
    bytes -= take;
  }
}

void scatter(const u8* from, u64 bytes, const iovec* parts, int count) {
  for (int i = 0; i < count && bytes; i++) {
    u64 take = parts[i].iov_len < bytes ? parts[i].iov_len : bytes;
    memcpy(parts[i].iov_base, from, take);
    from += take;
    bytes -= take;
  }
}

// The lists are short and nothing waits while it holds them, so another thread is out of them in a moment.
Lists::Lists(Socket* socket) : socket_(socket) {
  while (!swap_if(&socket->busy, 0u, 1u)) real.syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}
Lists::~Lists() { store_release(&socket_->busy, 0u); }

bool may_hold(Socket* socket, Direction direction, u32 window) {
  Lists lists(socket);
  u32 waiting = 0;
  for (const Held* held = socket->held[static_cast<u32>(direction)]; held; held = held->next) waiting += held->window != 0;
  return waiting < window;
}

Held* make_held(const iovec* parts, int count, u64 skip, u64 bytes) {
  u64 size = sizeof(Held) + bytes;
  Held* held = reinterpret_cast<Held*>(map_buffer(size));
  if (!held) return nullptr;
  held->size = size;
  held->bytes = bytes;
  held->since_ns = now_ns();
  gather(parts, count, skip, held->data, bytes);
  add(&self.held, 1u);
  return held;
}

void free_held(Held* held) {
  add(&self.held, ~0u);
  unmap_buffer(reinterpret_cast<u8*>(held), held->size);
}

}  // namespace mishap
