// Decision events, for recording and observing: a bounded ring of many writers and one reader. A slot is
// published by storing position + 1 in `turn` (Vyukov's bounded queue). A full ring drops and counts; where a recording is
// made, its writers first wait for room.
#pragma once

#include "fields.h"

namespace mishap {

enum class EventKind : u8 { FlowOpened = 1, Decision = 2, Payload = 3 };

constexpr u32 kPayloadBytes = 88;  // that one event holds

#define MISHAP_EVENT(FIELD, ARRAY)                                                      \
  FIELD(u64, turn, "position + 1 once readable")                                        \
  FIELD(u64, key, "the flow's identity hash")                                           \
  FIELD(u64, unit, "number of the unit of chance, or of the call for the payload stage") \
  FIELD(i64, value, "what was chosen: ns of a delay, retransmissions lost too, copies, units that may overtake; answered: its row and, from bit 12 on, generation") \
  FIELD(u64, at_ns, "CLOCK_MONOTONIC: of the call, or of the arrival, that was decided") \
  FIELD(u32, bytes, "of the unit, or of the whole op where it continued or its payload changed; 0 connect and dns; kind 3: that it holds") \
  FIELD(u32, offset, "bytes of the unit before what was decided: where a limit was met within it; kind 3: of the call before these") \
  FIELD(u8, kind, "1 flow opened, 2 decision, 3 payload")                                          \
  FIELD(u8, op, "OpKind")                                                               \
  FIELD(u8, direction, "Direction")                                                     \
  FIELD(u8, stage, "Stage")                                                             \
  FIELD(u8, verdict, "Verdict")                                                         \
  FIELD(u8, fault, "Fault")                                                             \
  FIELD(u16, policy, "policy index")                                                    \
  ARRAY(char, flow, 88, "kind 1: the flow's identity in words, NUL-terminated; kind 3: bytes that an op carried")
MISHAP_STRUCT(Event, 144, "A journal event.", MISHAP_EVENT)

}  // namespace mishap
