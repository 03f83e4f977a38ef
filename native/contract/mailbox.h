// The mailbox: a memory file of its own (SEGMENT.mailbox) through which programs ask a run's script. Programs write questions
// into a ring, a lane of it for each worker that answers; the worker answers in place, by naming a row of a table that it
// fills in itself. Whoever runs scripts is not trusted: nothing here is more than a row of faults to whoever reads it, and how
// long a program waits is not written here but in the segment.
#pragma once

#include "fields.h"
#include "row.h"

namespace mishap {

constexpr u64 kMailboxMagic = 0x584250414853494dull;  // "MISHAPBX" as bytes in memory
constexpr u32 kQuestions = 256;                       // that a lane holds
constexpr u32 kAnswers = 4096;                        // rows; the first is never used: own fields
constexpr u32 kMaxLanes = 16;

enum class Asking : u8 { Flow, Op };
// How long an answer to an op stands.
enum class Standing : u8 { Op, Units, Time, Flow };

// Bits of Row::script_asks: a flow, then an op by its OpKind.
constexpr u8 kAsksFlow = 1;
constexpr u8 asks_op(OpKind kind) { return static_cast<u8>(2u << static_cast<u32>(kind)); }
constexpr u8 kAsksOps = 30;

#define MISHAP_QUESTION(FIELD, ARRAY)                                                                 \
  FIELD(u64, at_ns, "when it was asked, since the run's epoch")                                       \
  FIELD(u64, deadline_ns, "CLOCK_MONOTONIC: from then on nobody waits for the answer")                \
  FIELD(u64, key, "the flow's identity hash")                                                         \
  FIELD(u64, unit, "number of the unit of chance, in the op's direction")                             \
  FIELD(u64, bytes, "of the op; 0 connect, dns, and where a flow is asked about")                     \
  FIELD(u8, asking, "0 about the flow, 1 about an op")                                                \
  FIELD(u8, op, "OpKind")                                                                             \
  FIELD(u8, direction, "Direction")                                                                   \
  FIELD(u8, protocol, "Protocol")                                                                     \
  FIELD(u8, role, "Role")                                                                             \
  FIELD(u8, reserved, "zero")                                                                         \
  FIELD(u16, peer_port, "host byte order")                                                            \
  ARRAY(u8, peer, 16, "IPv6 or mapped IPv4")                                                          \
  ARRAY(char, flow, 88, "the flow's identity in words, NUL-terminated")                               \
  ARRAY(char, host, 128, "name of the peer or, dns, the name that is looked up; unix: the path")      \
  ARRAY(char, sni, 128, "name that the ClientHello asks for")
MISHAP_STRUCT(ScriptQuestion, 408, "What a script is asked.", MISHAP_QUESTION)

#define MISHAP_ANSWER(FIELD, ARRAY)                                                                   \
  FIELD(u32, row, "of the table of answers; 0 the policy's own fields")                               \
  FIELD(u32, generation, "of that row when it was answered: half of its sequence")                    \
  FIELD(u64, amount, "units, or milliseconds, that it stands for")                                    \
  FIELD(u8, standing, "0 for the op, 1 for so many units, 2 for so long, 3 as long as the flow")      \
  ARRAY(u8, reserved, 7, "zero")
MISHAP_STRUCT(ScriptAnswer, 24, "What a script answered.", MISHAP_ANSWER)

#define MISHAP_SLOT(FIELD, ARRAY)                                                                     \
  FIELD(u64, turn, "position of whom it is free for; + 1 once there is a question; + 256 once it is free again") \
  FIELD(u32, answered, "low half of position + 1 once there is an answer; a futex")                   \
  FIELD(u32, waiting, "1: somebody sleeps until that")                                                \
  FIELD(ScriptAnswer, answer, "to the question")                                                            \
  ARRAY(u64, reserved, 3, "zero")                                                                     \
  FIELD(ScriptQuestion, question, "in a cache line of its own")                                             \
  ARRAY(u64, spare, 5, "zero: whole cache lines a slot")
MISHAP_STRUCT(MailboxSlot, 512, "A place for a question.", MISHAP_SLOT)

#define MISHAP_LANE(FIELD, ARRAY)                                                                     \
  FIELD(u64, head, "next position to ask at")                                                         \
  ARRAY(u64, reserved, 7, "zero: a cache line for those who ask")                                     \
  FIELD(u64, tail, "next position to answer")                                                         \
  FIELD(u64, serving_since_ns, "CLOCK_MONOTONIC: when the question now being answered was taken; 0 none is") \
  FIELD(u64, seen_ns, "CLOCK_MONOTONIC: when whoever serves was last there; 0 nobody does")           \
  FIELD(u32, bell, "a futex: grows with every question")                                              \
  FIELD(u32, sleeping, "1: whoever serves waits for the bell")                                        \
  ARRAY(u64, spare, 4, "zero: a cache line for whoever serves")
MISHAP_STRUCT(MailboxLane, 128, "A ring of questions, answered one by one.", MISHAP_LANE)

#define MISHAP_MAILBOX(FIELD, ARRAY)                                                                  \
  FIELD(u64, magic, "0x584250414853494d")                                                             \
  FIELD(u64, layout_hash, "as in the segment")                                                        \
  FIELD(u64, total_size, "bytes, all reserved")                                                       \
  FIELD(u32, lanes, "1 to 16; behind them their slots, 256 a lane, then 4,096 rows")                  \
  FIELD(u32, reserved, "zero")                                                                        \
  ARRAY(u64, spare, 4, "zero")
MISHAP_STRUCT(MailboxHeader, 64, "The mailbox's first bytes.", MISHAP_MAILBOX)

}  // namespace mishap
