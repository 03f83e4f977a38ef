// The small tables beside rows and flows: who owns what, which processes take part, the shared rate clocks.
#pragma once

#include "fields.h"
#include "kernel.h"

namespace mishap {

constexpr i32 kUnbound = -2;

#define MISHAP_BINDING(FIELD, ARRAY)                                                    \
  FIELD(u32, seq, "sequence lock; 0 free")                                              \
  FIELD(i32, tid, "thread; 0 the whole process")                                        \
  FIELD(u64, process, "pid << 32 | low half of its start time")                         \
  FIELD(i32, policy, "policy index; -1 explicitly none, -2 no longer bound")            \
  FIELD(u32, reserved, "zero")
MISHAP_STRUCT(Binding, 24, "A policy attached to a thread or a process.", MISHAP_BINDING)

enum class ProcessState : u32 { Free, Starting, Attached, Execing, Gone };

#define MISHAP_PROCESS(FIELD, ARRAY)                                                    \
  FIELD(u32, state, "0 free, 1 being written, 2 attached, 3 executing another program, 4 gone") \
  FIELD(i32, pid, "process")                                                            \
  FIELD(u64, start, "clock ticks since boot")                                           \
  FIELD(u64, since_ns, "CLOCK_MONOTONIC of the last state change")                      \
  ARRAY(char, lineage, 40, "who started whom in which order, such as 0.2/1")            \
  ARRAY(char, program, 64, "path or name, its end where it is longer")                  \
  FIELD(u64, folded_flows, "flows that it opened and whose slot changed hands; where the kernel watches") \
  ARRAY(u64, folded_called, 2, "of these, by direction: FlowDirection's called")        \
  ARRAY(i64, folded_adjusted, 2, "and its adjusted")
MISHAP_STRUCT(Process, 168, "A process that carries the interceptor.", MISHAP_PROCESS)

enum class OwnerSource : u32 { Interceptor = 1, Kernel = 2 };

#define MISHAP_LINK(FIELD, ARRAY)                                                       \
  FIELD(u64, rate_clock_ns, "GCRA theoretical arrival time, CLOCK_MONOTONIC")           \
  ARRAY(u64, reserved, 7, "zero: one cache line a link")
MISHAP_STRUCT(Link, 64, "What the flows of a policy share in one direction.", MISHAP_LINK)

#define MISHAP_DECIDED(FIELD, ARRAY)                                                    \
  FIELD(u64, key, "the flow's identity hash")                                           \
  FIELD(u64, unit, "number of the unit of chance, or of the call for the payload stage") \
  FIELD(i64, value, "what is chosen, as in Event")                                      \
  FIELD(u16, offset, "bytes of the unit before it, as in Event")                        \
  FIELD(u8, op, "OpKind")                                                               \
  FIELD(u8, direction, "Direction")                                                     \
  FIELD(u8, stage, "Stage")                                                             \
  FIELD(u8, verdict, "Verdict")                                                         \
  FIELD(u8, fault, "Fault")                                                             \
  FIELD(u8, reserved, "zero")
MISHAP_STRUCT(Decided, 32, "What is to happen to a unit, decided beforehand; in order of key, op and unit.", MISHAP_DECIDED)

}  // namespace mishap
