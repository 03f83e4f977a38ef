// R0, where a script is asked: which row decides. What it answered for an op comes first, for as long as that stands; then what it
// answered for the flow; then the policy's own fields. Whoever asks it is elsewhere (interceptor/scripts.cpp); here answers are
// kept with their flow, in a word each:
//
//   bit 31 asked · 30..14 the row's generation · 13..12 how long it stands · 11..0 the row, 0: own fields
//
// An op's answer has a second word, how far it stands: bytes that a stream carried (for the op), units, or milliseconds since the
// run's epoch. A row that was given to another answer since does not count; its generation says so.
#include <initializer_list>

#include "segment/atomic.h"
#include "stages.h"

namespace mishap::engine {
namespace {

constexpr u32 kAskedBit = 1u << 31, kStandingShift = 12, kGenerationShift = 14, kGenerationMask = (1u << 17) - 1;
static_assert(kAnswers == 1u << kStandingShift);
constexpr u64 kFurthest = 1u << 30;

u32 row_of(u32 word) { return word & (kAnswers - 1); }
Standing standing_of(u32 word) { return static_cast<Standing>(word >> kStandingShift & 3); }

u32 packed(const ScriptAnswer& answer) {
  const u32 row = answer.row < kAnswers ? answer.row : 0;
  return kAskedBit | (answer.generation & kGenerationMask) << kGenerationShift | static_cast<u32>(answer.standing & 3) << kStandingShift | row;
}

// Whether the word names a row that is still that answer's, or own fields.
bool holds(const Segment& segment, u32 word) {
  if (!(word & kAskedBit)) return false;
  const u32 row = row_of(word);
  if (row == 0) return true;
  return segment.answers && (load_acquire(&segment.answers[row].seq) >> 1 & kGenerationMask) == (word >> kGenerationShift & kGenerationMask);
}

// How far the flow has come, in what the standing of an answer is counted in.
u32 reached(const Segment& segment, const FlowDirection& side, Standing standing, bool stream, u64 now_ns) {
  const u64 unit = load(&side.progress) >> kOffsetBits;
  switch (standing) {
    case Standing::Op: return static_cast<u32>(stream ? load(&side.bytes) : unit);
    case Standing::Time: {
      const u64 epoch = load(&segment.header->epoch_ns);
      return static_cast<u32>((now_ns > epoch ? now_ns - epoch : 0) / 1'000'000);
    }
    default: return static_cast<u32>(unit);
  }
}

bool is_stream(const Flow& flow) { return load(&flow.role) <= static_cast<u8>(Role::Acceptor); }

// The answer for an op that stands now; 0: none does.
u32 standing_answer(const Segment& segment, Flow* flow, Direction direction, u64 now_ns) {
  const u64 both = load(&flow->op_answers[static_cast<u32>(direction)]);
  const u32 word = static_cast<u32>(both), until = static_cast<u32>(both >> 32);
  if (!holds(segment, word)) return 0;
  const Standing standing = standing_of(word);
  const bool further = standing == Standing::Flow || static_cast<i32>(until - reached(segment, *side_of(flow, direction), standing, is_stream(*flow), now_ns)) > 0;
  return further ? word : 0;
}

const ReadyRow* ready_answer(const Segment& segment, u32 row) {
  const Row* source = &segment.answers[row];
  const u32 sequence = load_acquire(&source->seq);
  ReadyRow& copy = answer_rows[row % kReadyRows];
  if (sequence == 0 || copy.busy) return nullptr;
  return copy.source == source && copy.sequence == sequence ? &copy : refresh_row(segment, source, &copy);
}

}  // namespace

thread_local constinit ReadyRow answer_rows[kReadyRows] = {};

const ReadyRow* deciding_row(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 now_ns, const ReadyRow* own, bool* unasked) {
  u32 word = own->row.script_asks & asks_op(kind) ? standing_answer(segment, flow, direction, now_ns) : 0;
  if (unasked) *unasked = (own->row.script_asks & asks_op(kind)) && (word == 0 || standing_of(word) == Standing::Op);
  if (row_of(word) == 0) word = load(&flow->answer);
  if (row_of(word) == 0 || !holds(segment, word)) return own;
  const ReadyRow* answered = ready_answer(segment, row_of(word));
  return answered ? answered : own;
}

i64 answer_number(const Segment& segment, const ReadyRow& row) {
  if (!segment.answers || row.source < segment.answers || row.source >= segment.answers + kAnswers) return 0;
  return static_cast<i64>(row.source - segment.answers) | static_cast<i64>(row.sequence >> 1 & kGenerationMask) << kStandingShift;
}

bool asks_script(const Segment& segment, i32 policy, u8 bits) {
  const Row* row = cached_row(segment, policy);
  return row && (row->script_asks & bits);
}

bool must_ask_about_flow(const Segment& segment, Flow* flow) {
  return !holds(segment, load(&flow->answer)) && !is_decided(segment) && asks_script(segment, load(&flow->policy), kAsksFlow);
}

void answer_flow(Flow* flow, const ScriptAnswer& answer) { store(&flow->answer, packed(answer)); }

void forget_answers(Flow* flow) {
  store(&flow->answer, 0u);
  for (u64& answers : flow->op_answers) store(&answers, u64{0});
}

bool must_ask_about_op(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 ahead, u64 bytes, u64 now_ns) {
  if (!asks_script(segment, load(&flow->policy), asks_op(kind)) || is_decided(segment)) return false;
  const u32 word = standing_answer(segment, flow, direction, now_ns);
  if (word == 0) return true;
  // What arrives behind bytes that the program has not received yet is received with them.
  if (standing_of(word) == Standing::Op && is_stream(*flow)) {
    u64* answers = &flow->op_answers[static_cast<u32>(direction)];
    const u32 end = static_cast<u32>(load(&side_of(flow, direction)->bytes) + ahead + bytes), until = static_cast<u32>(load(answers) >> 32);
    if (static_cast<i32>(end - until) > 0) store(answers, static_cast<u64>(end) << 32 | word);
  }
  return false;
}

void answer_op(const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 bytes, u64 now_ns, const ScriptAnswer& given) {
  ScriptAnswer answer = given;
  if (kind == OpKind::Connect || kind == OpKind::Dns) answer.standing = static_cast<u8>(Standing::Op);
  const u32 word = packed(answer);
  const Standing standing = standing_of(word);
  const bool stream = is_stream(*flow);
  const u64 amount = standing == Standing::Op ? (stream ? bytes : 1) : answer.amount < kFurthest ? answer.amount : kFurthest;
  const u32 until = reached(segment, *side_of(flow, direction), standing, stream, now_ns) + static_cast<u32>(amount < kFurthest ? amount : kFurthest);
  store(&flow->op_answers[static_cast<u32>(direction)], static_cast<u64>(until) << 32 | word);
}

bool answered_for_good(const Segment& segment, Flow* flow) {
  for (Direction direction : {Direction::Uplink, Direction::Downlink}) {
    const u32 word = standing_answer(segment, flow, direction, 0);
    if (word == 0 || standing_of(word) != Standing::Flow) return false;
  }
  return true;
}

void end_answered_op(Flow* flow, Direction direction) {
  u64* answers = &flow->op_answers[static_cast<u32>(direction)];
  const u32 word = static_cast<u32>(load(answers));
  if (word && standing_of(word) == Standing::Op) store(answers, u64{0});
}

}  // namespace mishap::engine
