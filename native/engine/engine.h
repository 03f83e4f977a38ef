// The engine decides; it never acts. One intercepted call becomes a Call; next_step() cuts it into steps, each a run
// of bytes with one Decision; the executor (interceptor, later the relay) carries a step out and says with commit()
// how far it got, so that what made no progress has drawn nothing.
//
//   bytes of a call ──units──▶ R0 resolve ▶ R1 session guard ▶ R2 chaos base ▶ R3 flow control ▶ R4 timing
//                              ▶ R5 transport ▶ R6 resolver ──▶ Decision ──▶ R7 payload ▶ R8 post-routing
//
// Pure: (row, flow, op, clock, random draw) -> decision. No libc beyond memcpy, no allocation, no lock, no policy field
// visible to callers: `Row` stays opaque here. Each stage is one file, r0 to r8, with its test beside it.
#pragma once

#include "contract/flow.h"
#include "contract/mailbox.h"
#include "segment/segment.h"

namespace mishap::engine {

// The parts a delay is made of, in nanoseconds; jitter may be negative.
enum class Part : u8 { Latency, Jitter, Loss, Rate, Dns, Count };
constexpr u32 kParts = static_cast<u32>(Part::Count);

struct Decision {
  Verdict outcome = Verdict::Continue;  // Continue, or what ended it: Drop, Timeout, Error, NxDomain
  Stage stage = Stage::Resolve;         // the stage that ended it
  Fault fault = Fault::Latency;         // on whose account
  Fault loss_fault = Fault::PacketLoss; // whose recovery part Loss is
  ErrorKind error = ErrorKind::Reset;
  bool continued = false;               // Drop: the rest of a unit whose loss was counted with its first bytes
  bool hold = false;                    // R8: later units overtake this one
  u32 copies = 0;                       // R8: extra copies
  u32 repeats = 0;                      // R2: retransmissions that are lost too
  u32 hold_window = 0;                  // later units that may overtake
  u64 hold_ns = 0;                      // 0: no time bound
  u64 timeout_ns = 0;                   // Timeout: how long the wait lasts
  u64 limit_ns = 0;                     // connect, recv: give up after this long; 0 never
  u64 answer_ns = 0;                    // connect: the answer's way back, after the real attempt
  i64 part_ns[kParts] = {};

  i64 delay_ns() const {
    i64 way = part_ns[0] + part_ns[1];
    return (way > 0 ? way : 0) + part_ns[2] + part_ns[3] + part_ns[4];
  }
  bool plain() const { return outcome == Verdict::Continue && !hold && !copies; }
  bool untouched() const { return plain() && delay_ns() == 0 && answer_ns == 0 && limit_ns == 0; }
};

struct Step {
  u64 bytes = 0;  // of the call, in order; a step that is not plain is (part of) one unit
  Decision decision;
};

// One intercepted call under a policy. Fill it with begin(); fields are the engine's own but for those marked (in).
struct Call {
  const Segment* segment = nullptr;
  Flow* flow = nullptr;
  const Row* row = nullptr;
  i32 policy = -1;
  OpKind kind = OpKind::Send;
  Direction direction = Direction::Uplink;
  bool stream = false;
  bool decided = false;     // beforehand: nothing is drawn
  u32 allowed = ~0u;        // bits of Fault that may act here
  u32 scale_ppm = 0;        // of a ramp
  u64 now_ns = 0;           // (in) CLOCK_MONOTONIC: of the call, or of the arrival being received
  u64 draw_key = 0;
  u64 syn_retries = 6;      // (in) connect: net.ipv4.tcp_syn_retries
  u64 syn_linear = 4;       // (in) connect: net.ipv4.tcp_syn_linear_timeouts
  u64 ahead = 0;            // units of this call in earlier steps
  u64 ahead_at_start = 0;
  u64 first_unit = 0;       // that the call begins in
  u64 carried = 0;          // bytes committed
  u64 room_patience_ns = kRoomPatienceNs;  // what is left to wait for room in the journal
  bool progressed = false;
  bool told = false;        // a decision of it was counted
  bool asked = false;       // a script was asked about this op, or its answer to another stood
  u32 first_offset = 0;     // bytes of first_unit before the call
  i64 answer = 0;           // which of its answers decides, as in an event; 0 none
  FlowDirection draft;      // the direction's state as this call would leave it; set by begin(), as is the next
  FlowDirection start;      // as the current step found it
};

// What resolution can know about a flow besides its addresses; empty strings where unknown.
struct Names {
  const char* host = "";
  const char* sni = "";
  const char* unix_path = "";
};
struct Resolution {
  i32 policy = -1;
  bool wants_sni = false;  // a rule with `sni` may still match once the ClientHello is seen
  bool by_caller = false;  // nothing is bound to the flow or its owner: it follows whichever thread uses it
};
// R0, once a flow and whenever a policy, a binding or a name changed: fd owner, then thread, process, project; then targets.
Resolution resolve(const Segment& segment, const Flow& flow, const Names& names, Caller caller);
// The policy that holds for a flow before its targets are asked: bound to it by name, else to the thread that owns it, else
// what is bound to the caller, its process, the project; -1 none.
i32 policy_of(const Segment& segment, const Flow& flow, Caller caller, bool* by_caller);
// Whether a name looked up under a policy is one that it faults: the policy, or -1.
i32 resolve_lookup(const Segment& segment, const char* host, i32 policy);

// A thread keeps copies of the last two rows it used. One that meets more policies is given zeroed memory for a copy of each;
// nullptr takes it back.
u64 kept_rows_bytes();
void keep_rows(void* memory);
bool keeps_rows();

// Whether the flow's policy wants this, before a call is begun: for what has to be set up ahead.
struct Wants {
  bool anything;          // a fault is asked for
  bool dated;             // downlink delays: arrivals must be dated
  bool delays;            // a stream's bytes may be late, in either direction
  bool rated;             // a rate: what passes is cut, so that it trickles
  bool holds;             // units may be held back, so that others overtake them
  bool undated;           // a receive may simply happen: no date, and no time limit on it
  bool payload;           // R7 may act
  bool downlink_only;     // something is asked for the downlink alone, whoever the sender
  bool guarded;           // a budget or half-open may end the conversation before anything arrives
  u64 recv_limit_ns;      // timeout.recv; 0 none
};
Wants wants(const Segment& segment, i32 policy);
// The same of a flow: what a script answered for it counts, and what it may answer for its ops.
Wants wants(const Segment& segment, Flow* flow);
// Whether a budget or half-open may have ended the conversation, so that asking for the decision is worth its while.
bool may_be_over(const Segment& segment, Flow* flow, u64 now_ns);

// The delay that the last of these bytes would meet from `at_ns` on: `bytes` of a stream behind `ahead` others, or one
// datagram. `rate_clock_ns`: of the line as it was foretold for those ahead, moved on; 0 at first. Nothing else changes:
// deciding comes with the call.
u64 foretell_ns(const Segment& segment, Flow* flow, Direction direction, u64 ahead, u64 bytes, u64 at_ns, u64* rate_clock_ns);

// ---- where a script is asked (answers.cpp): whoever carries out asks it, before begin() and foretell_ns()

// Whether a policy asks a script about any of these (kAsksFlow, asks_op()).
bool asks_script(const Segment& segment, i32 policy, u8 bits);
bool must_ask_about_flow(const Segment& segment, Flow* flow);
void answer_flow(Flow* flow, const ScriptAnswer& answer);
// `ahead`: bytes of a stream that arrived before these and were not received yet. False: what was answered before stands.
bool must_ask_about_op(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 ahead, u64 bytes, u64 now_ns);
// A connect and a look-up are answered for themselves alone, whatever the answer says.
void answer_op(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 bytes, u64 now_ns, const ScriptAnswer& answer);
// Whether nothing more will be asked about the flow's sends and receives.
bool answered_for_good(const Segment& segment, Flow* flow);
// A new conversation begins: nothing was answered for it.
void forget_answers(Flow* flow);

// Starts a call. `inside_sender`: a datagram whose sender is in the project and carried its faults already.
// NoRow: none could be read. Gated: its schedule is off. Either way the call passes through.
enum class Begun : u8 { Ready, NoRow, Gated };
Begun begin(Call* call, const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 now_ns, bool inside_sender = false);

// The next step over at most bytes_left bytes (connect and dns: bytes_left 1). Steps follow one another. `one_unit`
// keeps it to a single unit, for when held units have to be overtaken one by one.
Step next_step(Call* call, u64 bytes_left, bool one_unit = false);
// The link's rate (R3): books bytes on the clock and adds the wait to the step. Unbook what was not carried.
void book_rate(Call* call, Step* step);
void unbook_rate(Call* call, u64 bytes);
// Carried out up to `bytes` of the step: state, counters and journal follow. Not called, nothing has happened.
void commit(Call* call, const Step& step, u64 bytes);
// Once for every call that began Ready, after its last commit: counts the op and turns the conversation.
void finish(Call* call);
// A call that passed through because the schedule was off, or because the sender's end carried its faults: it still counts,
// but as none of those that this policy could have touched.
void count_gated(const Segment& segment, Flow* flow, Direction direction, u64 bytes);

// Evidence, from where the effect was carried out. `measured_ns` is what the clock said between the moment the bytes were
// there and the moment they were let go; it is shared out over the decision's parts.
void delivered(const Call& call, const Decision& decision, u64 measured_ns);
// One fault's effect on `times` units, ops or lookups.
void applied(const Call& call, Fault fault, u64 times);
void applied_wait(const Call& call, Fault fault, u64 measured_ns, u64 asked_ns);

// The common case, without steps: true when no stage touches this whole call; its rate is booked, and the caller carries it
// out and tells passed() what came of it (bytes, or negative: nothing). False: nothing has happened, walk the stages. Its
// clock may be CLOCK_MONOTONIC_COARSE, a tick behind.
struct Passing {
  const Segment* segment;
  Flow* flow;
  FlowDirection* state;
  u64* rate_clock_ns;
  u64 byte_ns, bytes, progress;
  Direction direction;
  bool stream, begins_unit;
};
bool pass_whole(Passing* passing, const Segment& segment, Flow* flow, Direction direction, u64 bytes, u64 coarse_now_ns);
void passed(const Passing& passing, i64 carried);

// R7 over the bytes one call carries.
struct Mutation {
  MutationType type = MutationType::None;  // None: leave the bytes
  bool dry_run = false;
  u64 call_number = 0;
  u64 bytes = 0;         // that the call carries
  u64 truncate_size, inject_position, swap_first, swap_second, corrupt_key;
  u32 corrupt_count;
  u8 inject_length, find_length, replace_length;
  u8 inject_data[64], replace_find[32], replace_with[32];
};
constexpr u32 kMaxGrowth = 64;  // bytes a mutation can add
Mutation plan_mutation(const Call& call, u64 bytes);
// Transforms in place; `capacity` bounds growth. Returns the new length.
u64 mutate(const Mutation& mutation, u8* bytes, u64 length, u64 capacity);
void commit_mutation(Call* call, const Mutation& mutation);

// Faults by setpriority(2), where the run allows it (legacy.cpp): 0, or the errno. *slot is the calling thread's; -1 at first.
bool is_legacy_control(i32 which);
i32 legacy_control(const Segment& segment, Caller caller, i32* slot, i32 which, i32 who, i32 prio);

// Names for identity: FNV-1a, and a finalizer that spreads every bit (Steele, Lea, Flood 2014: SplitMix64).
u64 hash_bytes(u64 seed, const void* bytes, u64 length);

// How long Linux sends SYNs before a connect times out, by net.ipv4.tcp_syn_retries (or TCP_SYNCNT) and
// net.ipv4.tcp_syn_linear_timeouts.
u64 syn_patience_ns(u64 retries, u64 linear);

}  // namespace mishap::engine
