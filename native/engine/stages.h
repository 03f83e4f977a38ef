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
void end_session(const Unit& unit, Decision* decision);                // R1: as the budget's action says
u64 session_room(const Unit& unit);                                    // R1: bytes of this direction until a limit ends it
void chaos_base(const Unit& unit, Decision* decision);                 // R2
void lose(const Unit& unit, Fault fault, u32 repeats, Decision* decision);  // R2: `repeats`: retransmissions that are lost too
void swallow_rest(const Unit& unit, Decision* decision);               // R2: of a unit that was lost for good
u64 recovery_ns(u64 rtt_ns, u64 behind, u64 ahead, u32 repeats);       // R2: how long TCP takes to repair a loss
u64 flow_control(u64* clock_ns, u64 now_ns, u64 bytes, u64 rate_bps, u64 burst_bytes);  // R3: when the last bit is through
u64 foretell_rate(const Call& call, u64 bytes, u64* foretold_ns);     // R3: the wait that these bytes would meet, unbooked
void timing(const Unit& unit, Decision* decision);                     // R4
void transport_limits(const Unit& unit, Decision* decision);           // R5: how long the program waits at most
void transport(const Unit& unit, Decision* decision);                  // R5
void fail_transport(Fault fault, ErrorKind kind, Decision* decision);  // R5
u64 transport_room(const Unit& unit);                                  // R5: bytes until half-open
void resolver(const Unit& unit, Decision* decision);                   // R6
void post_routing(const Unit& unit, Decision* decision);               // R8
void hold(const Unit& unit, u32 window, Decision* decision);           // R8
// What was decided beforehand, in place of all of these (decided.cpp).
inline bool is_decided(const Segment& segment) { return load(&segment.header->flags) & kHeaderDecided; }
void decide(const Unit& unit, u64 offset, u64* bytes, Decision* decision);
bool decides_mutation(const Call& call, u64 call_number);              // R7

// Draws of R2 that hang on Gilbert-Elliott's chain.
constexpr u32 kTransition = 1, kStateLoss = 2;

// A row made ready for the calls of one direction, on streams or on datagrams, that pass whole (passing.cpp): every chance
// as what a draw must stay clear of, every limit as a number to stay below.
struct Chance {
  u64 base;   // of the draws for one kind of chance; the flow and the unit's number make the rest
  u64 below;  // it hits when the draw is below this
};
constexpr u32 kMaxChances = 8;
struct Plan {
  bool walk;  // only the stages can tell: a schedule, a delay, a certain chance, more chances than fit
  bool flow_clock;
  u32 count;
  Chance chances[kMaxChances];  // one a unit
  Chance mutation;              // one a call
  u64 seed;                // mixed
  u64 max_ops, max_bytes, max_both_bytes, max_age_ns;
  u64 rate_bps, byte_ns, credit_ns;  // rate 0: no limit; byte_ns in 2^-32 ns
};
void prepare(const Row& row, Direction direction, bool stream, Plan* plan);

// The thread's own copy of a row, and what was made ready from it.
struct ReadyRow {
  const Row* source;
  u32 sequence;
  bool busy;  // a signal handler that interrupts a refresh must not read half a row
  Row row;
  Plan plans[kDirections][2];  // by direction, then: datagrams, streams
};
constexpr u32 kReadyRows = 2;
extern thread_local constinit ReadyRow ready_rows[kReadyRows];
extern thread_local constinit ReadyRow* ready_table;  // one for each policy, in memory that the thread was given
extern thread_local constinit ReadyRow answer_rows[kReadyRows];  // of a script's answers
const ReadyRow* refresh_row(const Segment& segment, const Row* source, ReadyRow* copy);
// Refreshed when the row's sequence moved; nullptr when there is none to be had.
inline const ReadyRow* ready_row(const Segment& segment, i32 policy) {
  const u32 sequence = row_sequence(segment, policy);
  if (sequence == 0) return nullptr;
  ReadyRow& copy = ready_table ? ready_table[policy] : ready_rows[static_cast<u32>(policy) % kReadyRows];
  if (copy.busy) return nullptr;
  return copy.source == &segment.rows[policy] && copy.sequence == sequence ? &copy : refresh_row(segment, &segment.rows[policy], &copy);
}
inline const Row* cached_row(const Segment& segment, i32 policy) {
  const ReadyRow* ready = ready_row(segment, policy);
  return ready ? &ready->row : nullptr;
}

void end_answered_op(Flow* flow, Direction direction);  // what was answered for one op alone
i64 answer_number(const Segment& segment, const ReadyRow& row);
// The row that a decided run uses where a script was asked, from this unit on (decided.cpp).
const ReadyRow* decided_row(const Call& call, u64 unit, u64 offset, const ReadyRow* own);
// The row that decides where a script is asked: `own` or what it answered. *unasked: the op has yet to be asked about, or its
// answer ends with it (answers.cpp).
const ReadyRow* deciding_row(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 now_ns, const ReadyRow* own, bool* unasked);

}  // namespace mishap::engine
