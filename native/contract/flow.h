// One socket's conversation: what decisions depend on, and what was counted. Keyed by socket cookie.
// Slots are never emptied: an idle one (closed) is taken over when its window of the table is full, after
// its counters were folded into its policy's stats and its accounts into its process's row.
//
// Where the kernel watches (kHeaderKernel), a flow's bytes are accounted for to the last one:
//   uplink    what the kernel sent = called + adjusted - held - line_bytes
//   downlink  what the kernel handed out = called - adjusted + held
#pragma once

#include "fields.h"

namespace mishap {

constexpr u32 kProbeWindow = 32;  // slots looked at for one cookie, from its hash on

enum class FlowState : u8 { Open, Idle, Reset };

#define MISHAP_FLOW_DIRECTION(FIELD, ARRAY)                                                           \
  FIELD(u64, progress, "unit number << 11 | bytes into that unit (streams); the unit of the next byte") \
  FIELD(u64, bytes, "carried")                                                                        \
  FIELD(u64, ops, "calls that made progress")                                                         \
  FIELD(u64, rate_clock_ns, "GCRA clock of this flow (rate_scope flow), CLOCK_MONOTONIC")             \
  FIELD(u32, burst_left, "losses still to come in the burst")                                         \
  FIELD(u8, bad_state, "Gilbert-Elliott: 1 in the bad state")                                         \
  FIELD(u8, unit_lost, "1: the rest of the current unit is swallowed too")                            \
  FIELD(u8, over, "where what happens was decided: the stage that ended the conversation; 0 none did")  \
  FIELD(u8, reserved, "zero")                                                                         \
  FIELD(u64, folded_units, "units already counted in stats")                                          \
  FIELD(u64, folded_ops, "ops already counted in stats")                                              \
  FIELD(u64, called, "where the kernel watches: bytes that the program's own calls moved, by their results") \
  FIELD(i64, adjusted, "injected + duplicated - dropped - cut, as stats' accounts have them")         \
  FIELD(u64, held, "uplink: held back so that others overtake; downlink: received and not handed over yet")
MISHAP_STRUCT(FlowDirection, 80, "A flow's state in one direction.", MISHAP_FLOW_DIRECTION)

#define MISHAP_FLOW(FIELD, ARRAY)                                                                     \
  FIELD(u64, cookie, "SO_COOKIE; names looked up use a hash with the top bit set; 0 free")            \
  FIELD(u64, key, "hash of the flow's identity: what its draws hang on")                              \
  FIELD(u32, claim, "odd while a process fills the slot in")                                          \
  FIELD(u32, generation, "of the header when the policy was resolved")                                \
  FIELD(i32, policy, "resolved policy, or -1: unfaulted")                                             \
  FIELD(i32, bound_policy, "bound to this flow by name, or -1")                                       \
  FIELD(u8, role, "Role")                                                                             \
  FIELD(u8, protocol, "Protocol")                                                                     \
  FIELD(u8, state, "FlowState")                                                                       \
  FIELD(u8, last_direction, "Direction of the last op that made progress")                            \
  FIELD(u8, carried_by_peer, "1: the other end is in the project and carries the faults")             \
  FIELD(u8, dated, "1: the kernel stamps arrivals")                                                   \
  FIELD(u16, peer_port, "host byte order")                                                            \
  ARRAY(u8, peer, 16, "IPv6 or mapped IPv4")                                                          \
  FIELD(u32, ordinal, "n-th such flow of its thread")                                                 \
  FIELD(i32, pid, "who opened it")                                                                    \
  FIELD(u64, name_hash, "hash of the peer's host name where one is known")                            \
  FIELD(u64, first_op_ns, "CLOCK_MONOTONIC")                                                          \
  FIELD(u64, wait_since_ns, "first empty receive since the last progress; 0 none")                    \
  FIELD(u64, owner_process, "whose thread's binding holds: pid << 32 | low half of its start time")   \
  FIELD(i32, owner_tid, "that thread; 0 whichever uses the socket")                                   \
  FIELD(u32, answer, "what a script answered for the flow (engine/answers.cpp); 0 not asked")         \
  FIELD(u64, rtt_ns, "measured while connecting")                                                     \
  FIELD(FlowDirection, up, "uplink")                                                                  \
  FIELD(FlowDirection, down, "downlink")                                                             \
  FIELD(u64, line_bytes, "sent by the program and still on the delay line")                           \
  FIELD(u64, line_head_due_ns, "when the first of them leaves; CLOCK_MONOTONIC, 0 none")              \
  FIELD(u64, line_tail_due_ns, "when the last of them leaves: nothing sent later leaves before")      \
  FIELD(i32, line_error, "errno that the line met when it sent, for the program's next call; 0 none")  \
  FIELD(u32, line_room, "a futex: counts the times that bytes left a line somebody waits for")        \
  ARRAY(u64, op_answers, 2, "by direction: what it answered for an op, then how far that stands")
MISHAP_STRUCT(Flow, 320, "A flow.", MISHAP_FLOW)

}  // namespace mishap
