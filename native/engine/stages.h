// The stages' signatures, in order. Each is one small file of the same name. A stage reads the row and the op, may change
// the direction's draft state, and adds to the decision; once `outcome` is not Continue the pipeline ends.
#pragma once

#include "contract/row.h"
#include "draw.h"
#include "engine.h"

namespace mishap::engine {

// FlowDirection::progress: the unit's number, then the offset into it.
constexpr u32 kOffsetBits = 11;
static_assert(kStreamUnitBytes < 1u << kOffsetBits);
constexpr u64 kOneUnit = 1ull << kOffsetBits;

// One unit of one call, as the stages see it.
struct Unit {
  const Row& row;
  const RowDirection& line;  // the row's block for this direction
  const Call& call;
  FlowDirection& state;
  u64 number;
  u64 bytes;      // of this unit in this call
  u64 behind;     // whole units that follow in the same call
  u64 ahead;      // units of the same call before it
  bool fresh;     // the unit's first byte is here: time to draw

  bool asked(Fault fault) const { return row.faults & call.allowed & bit(fault); }
  u64 drawn(Stage stage, u32 nth = 0) const { return draw(call.draw_key, stage, number, nth); }
  // A quantity or probability under a ramp: grows with it. A limit: looser the less of the ramp has passed.
  u64 scaled(u64 value) const { return call.scale_ppm == kCertainPpm ? value : static_cast<u64>(static_cast<unsigned __int128>(value) * call.scale_ppm / kCertainPpm); }
  u64 limit(u64 value) const { return call.scale_ppm == kCertainPpm || value == 0 ? value : static_cast<u64>(static_cast<unsigned __int128>(value) * kCertainPpm / call.scale_ppm); }
};

u32 schedule_scale_ppm(const Row& row, u64 elapsed_ns);                // R0
void session_guard(const Unit& unit, Decision* decision);              // R1
u64 session_room(const Unit& unit);                                    // R1: bytes of this direction until a limit ends it
void chaos_base(const Unit& unit, Decision* decision);                 // R2
u64 recovery_ns(u64 rtt_ns, u64 behind, u64 ahead, u32 repeats);       // R2: how long TCP takes to repair a loss
u64 flow_control(u64* clock_ns, u64 now_ns, u64 bytes, u64 rate_bps, u64 burst_bytes);  // R3: when the last bit is through
void timing(const Unit& unit, Decision* decision);                     // R4
void transport_limits(const Unit& unit, Decision* decision);           // R5: how long the program waits at most
void transport(const Unit& unit, Decision* decision);                  // R5
u64 transport_room(const Unit& unit);                                  // R5: bytes until half-open
void resolver(const Unit& unit, Decision* decision);                   // R6
void post_routing(const Unit& unit, Decision* decision);               // R8

// Draws of R2 that hang on Gilbert-Elliott's chain.
constexpr u32 kTransition = 1, kStateLoss = 2;

// R3 for a call that passes whole: books the line if it is free at once; takes back what was not carried.
bool book_free_line(Passing* passing, const Row& row, i32 policy);
void unbook_line(const Passing& passing, u64 bytes);

// The thread's own copy of a row, refreshed when its sequence moved; nullptr when there is none to be had.
const Row* cached_row(const Segment& segment, i32 policy);

}  // namespace mishap::engine
