// An outbox: memory that a program shares with the courier. The bytes of a large parcel lie in one of its blocks instead of in
// the message, so on their way they are copied once and not three times. The program makes it and takes blocks; the courier
// gives them back when their bytes have left.
#pragma once

#include "link/parcel.h"
#include "segment/atomic.h"

namespace mishap::link {

constexpr u32 kBlocks = 512;
constexpr u64 kWorthABlock = 8192;  // fewer bytes go faster in the message

struct Outbox {
  u32 taken[kBlocks];  // 1: holds bytes
  alignas(4096) u8 blocks[kBlocks][kParcelBytes];
};

// A free block's number, counted from 1; 0: there is none. The lowest, so that the same memory serves again and again.
inline u32 take_block(Outbox* outbox) {
  for (u32 i = 0; i < kBlocks; i++)
    if (load(&outbox->taken[i]) == 0 && swap_if(&outbox->taken[i], 0u, 1u)) return i + 1;
  return 0;
}
inline void give_back_block(Outbox* outbox, u32 block) { store_release(&outbox->taken[block - 1], 0u); }

}  // namespace mishap::link
