// Structs in shared memory, copied by whole 8-byte words with relaxed accesses, so that a racing writer is a stale value and not
// undefined behaviour; and the sequence lock of rows, which makes such a copy whole.
#pragma once

#include <string.h>

#include "atomic.h"
#include "contract/row.h"

namespace mishap {

template <class T>
void copy_words(T* to, const T* from) {
  static_assert(sizeof(T) % 8 == 0);
  for (u32 i = 0; i < sizeof(T) / 8; i++) {
    u64 word = load(reinterpret_cast<const u64*>(from) + i);
    memcpy(reinterpret_cast<u8*>(to) + 8 * i, &word, 8);
  }
}
template <class T>
void store_words(T* to, const T& from, u32 first_word) {
  static_assert(sizeof(T) % 8 == 0);
  for (u32 i = first_word; i < sizeof(T) / 8; i++) {
    u64 word;
    memcpy(&word, reinterpret_cast<const u8*>(&from) + 8 * i, 8);
    store(reinterpret_cast<u64*>(to) + i, word);
  }
}

// Lets `write` change a row under its sequence lock. Returns the sequence that it has then.
template <class Write>
u32 write_row(Row* row, Write write) {
  const u32 before = load(&row->seq) | 1;  // a writer that died mid-write left it odd
  store(&row->seq, before);
  fence_release();
  write(row);
  const u32 after = before + 1 ? before + 1 : 2;
  store_release(&row->seq, after);
  return after;
}
// All of a row but its sequence.
inline void store_row(Row* to, const Row& row) {
  store(&to->faults, row.faults);
  store_words(to, row, 1);
}

}  // namespace mishap
