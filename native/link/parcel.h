// What goes from a program to the courier: bytes that leave later. One message of a SOCK_SEQPACKET connection is one parcel:
// this header, its bytes, and the socket they leave through as SCM_RIGHTS. So the line is neither in the program's memory
// nor in its threads: close, exit, exec, fork and a kill find nothing to lose. The way of one byte is drawn in line.h.
#pragma once

#include <sys/socket.h>

#include "contract/types.h"

namespace mishap::link {

enum class ParcelKind : u8 {
  Data,      // bytes of a stream, or one datagram
  Close,     // the program closed the socket: the courier keeps it until then; with unread bytes in it if `value`
  Shutdown,  // the stream's FIN, behind its bytes
  Connect,   // a connect to `address`, non-blocking; its one byte of data makes the line busy until it has begun
  Cork,      // TCP_CORK becomes `value`, behind the bytes
  Outbox,    // comes with memory in place of a socket: this connection's outbox (outbox.h)
};

constexpr u32 kParcelMagic = 0x6c637061;
constexpr u32 kParcelParts = 5;      // engine::kParts
constexpr u32 kParcelBytes = 65536;  // at most, of data in one parcel; a longer send is several

struct Parcel {
  u32 magic;
  ParcelKind kind;
  bool stream;
  u8 loss_fault;              // Fault whose recovery the Loss part is
  u8 reserved;
  u64 cookie;                 // of the socket
  u32 flow;                   // row of the flows region
  i32 policy;                 // whose evidence this is; -1 none
  u64 sent_ns;                // when the program's call began, CLOCK_MONOTONIC
  u64 due_ns;                 // when the bytes leave
  i64 part_ns[kParcelParts];  // what the delay is made of, as engine::Decision has it; all 0: no delay to measure
  u32 copies;                 // extra copies that leave with it
  u32 send_flags;             // MSG_* the program gave; the courier keeps those that still mean something later
  u32 address_length;         // of the destination; 0: the socket's peer
  u32 value;
  u32 block;                  // of the outbox, where the bytes are; 0: they follow
  u32 block_bytes;            // how many
  sockaddr_storage address;
};

}  // namespace mishap::link
