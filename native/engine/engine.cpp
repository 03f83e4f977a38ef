// The pipeline: cuts a call into units, runs the stages over each, merges what needs no special treatment into steps, and
// books what was carried out. See engine.h.
#include "engine.h"

#include <string.h>

#include <initializer_list>

#include "stages.h"

namespace mishap::engine {
namespace {

u64 unit_of(const FlowDirection& state) { return state.progress >> kOffsetBits; }
u64 offset_in(const FlowDirection& state) { return state.progress & (kOneUnit - 1); }

bool carries_data(OpKind kind) { return kind == OpKind::Send || kind == OpKind::Recv; }

void advance(const Call& call, FlowDirection* state, u64 bytes) {
  state->bytes += bytes;
  if (!call.stream) return;  // a datagram's unit was claimed when the call began
  u64 offset = offset_in(*state) + bytes;
  state->progress = ((unit_of(*state) + offset / kStreamUnitBytes) << kOffsetBits) | offset % kStreamUnitBytes;
}

struct Piece {
  u64 bytes;
  bool fresh;
  u64 number, offset;
  Decision decision;
};

// R1 to R8, but for the rate and the payload, which concern the whole call.
void walk_stages(const Unit& unit, u32 asked, Decision* decision) {
  constexpr u32 base = bit(Fault::Latency) | bit(Fault::PacketLoss) | bit(Fault::BurstLoss) | bit(Fault::CorrelatedLoss);
  constexpr u32 after = bit(Fault::PacketReorder) | bit(Fault::PacketDuplicate);
  if (unit.call.kind == OpKind::Dns) return resolver(unit, decision);
  if (asked & bit(Fault::SessionBudget)) session_guard(unit, decision);
  if (decision->outcome == Verdict::Continue && (asked & base)) chaos_base(unit, decision);
  if (decision->outcome == Verdict::Continue && (asked & bit(Fault::Jitter))) timing(unit, decision);
  if (decision->outcome == Verdict::Continue && (asked & (bit(Fault::ConnectionError) | bit(Fault::HalfOpen)))) transport(unit, decision);
  if (decision->outcome == Verdict::Continue && (asked & after)) post_routing(unit, decision);
}

// Decides the unit that the next byte belongs to and moves the draft past it.
Piece next_piece(Call* call, u64 bytes_left, u64 ahead) {
  const Row& row = *call->row;
  FlowDirection& state = call->draft;
  Piece piece;
  piece.number = unit_of(state);
  piece.offset = call->stream ? offset_in(state) : 0;
  piece.fresh = piece.offset == 0;
  piece.bytes = bytes_left;
  if (call->stream && carries_data(call->kind)) {
    u64 rest = kStreamUnitBytes - offset_in(state);
    if (piece.bytes > rest) piece.bytes = rest;
  }
  u64 behind = call->stream ? (bytes_left - piece.bytes + kStreamUnitBytes - 1) / kStreamUnitBytes : 0;
  const RowDirection& line = call->direction == Direction::Uplink ? row.up : row.down;
  Unit unit = {row, line, *call, state, piece.number, piece.bytes, behind, ahead, piece.fresh};

  u32 asked = row.faults & call->allowed;
  Decision& decision = piece.decision;
  if (asked & (bit(Fault::ConnectTimeout) | bit(Fault::RecvTimeout))) transport_limits(unit, &decision);
  if (call->decided) {
    decide(unit, piece.offset, &piece.bytes, &decision);
  } else {
    if (call->stream && carries_data(call->kind) && (asked & (bit(Fault::SessionBudget) | bit(Fault::HalfOpen)))) {
      for (u64 room : {session_room(unit), transport_room(unit)})
        if (room && room < piece.bytes) piece.bytes = room;
    }
    walk_stages(unit, asked, &decision);
  }
  if (decision.outcome == Verdict::Drop && decision.stage == Stage::SessionGuard) piece.bytes = bytes_left;  // all that is left of the call, at once
  if (carries_data(call->kind)) advance(*call, &state, piece.bytes);
  return piece;
}

bool journals(const Segment& segment, u32 flag) { return load(&segment.header->flags) & flag; }

// An event of a flow, without what only a decision knows.
Event event_of(const Flow& flow, i32 policy, OpKind kind, Direction direction, u64 unit, u64 bytes) {
  Event event = {};
  event.key = load(&flow.key);
  event.unit = unit;
  event.bytes = !carries_data(kind) ? 0 : bytes < ~0u ? static_cast<u32>(bytes) : ~0u;
  event.kind = static_cast<u8>(EventKind::Decision);
  event.op = static_cast<u8>(kind);
  event.direction = static_cast<u8>(direction);
  event.policy = static_cast<u16>(policy);
  return event;
}

void emit(Call* call, const Piece& piece, Stage stage, Verdict verdict, Fault fault, i64 value, Direction direction) {
  count_verdict(*call->segment, call->policy, stage, verdict);
  call->told = true;
  if (!journals(*call->segment, kHeaderJournal)) return;
  Event event = event_of(*call->flow, call->policy, call->kind, direction, piece.number, piece.bytes);
  event.value = value;
  event.offset = static_cast<u32>(piece.offset);
  event.at_ns = call->now_ns;
  event.stage = static_cast<u8>(stage);
  event.verdict = static_cast<u8>(verdict);
  event.fault = static_cast<u8>(fault);
  push_event(*call->segment, event, &call->room_patience_ns);
}

void emit(Call* call, const Piece& piece, Stage stage, Verdict verdict, Fault fault, i64 value) {
  emit(call, piece, stage, verdict, fault, value, call->direction);
}

// Where every op is recorded: one of whose units no stage had anything to say.
void record_continued(Call* call) {
  if (call->told || !call->progressed || !journals(*call->segment, kHeaderRecordAll)) return;
  Event event = event_of(*call->flow, call->policy, call->kind, call->direction, call->first_unit, call->carried);
  event.at_ns = call->now_ns;
  push_event(*call->segment, event, &call->room_patience_ns);
}

// Where a script was asked: which of its answers decided this op.
void record_answer(Call* call) {
  if (!call->asked || !call->progressed || call->decided || !journals(*call->segment, kHeaderRecord)) return;
  Event event = event_of(*call->flow, call->policy, call->kind, call->direction, call->first_unit, call->carried);
  event.at_ns = call->now_ns;
  event.offset = call->first_offset;
  event.verdict = static_cast<u8>(Verdict::Answered);
  event.value = call->answer;
  push_event(*call->segment, event, &call->room_patience_ns);
}

// Counts and journals what one unit's decision was, stage by stage. Rate is left out: it depends on the clock.
void emit_decision(Call* call, const Piece& piece) {
  const Decision& d = piece.decision;
  auto part = [&](Part p) { return d.part_ns[static_cast<u32>(p)]; };
  if (part(Part::Latency)) emit(call, piece, Stage::ChaosBase, Verdict::Delay, Fault::Latency, part(Part::Latency));
  if (d.answer_ns) emit(call, piece, Stage::ChaosBase, Verdict::Delay, Fault::Latency, static_cast<i64>(d.answer_ns), Direction::Downlink);
  if (part(Part::Loss)) {  // one wait may repair several lost segments: each is counted here, its time in delivered()
    emit(call, piece, Stage::ChaosBase, Verdict::Delay, d.loss_fault, d.repeats);
    count_applied(*call->segment, call->policy, d.loss_fault, call->direction, 1);
  }
  if (part(Part::Jitter)) emit(call, piece, Stage::Timing, Verdict::Delay, Fault::Jitter, part(Part::Jitter));
  if (part(Part::Dns)) emit(call, piece, Stage::Resolver, Verdict::Delay, Fault::DnsDelay, part(Part::Dns));
  if (d.outcome != Verdict::Continue) emit(call, piece, d.stage, d.outcome, d.fault, d.stage == Stage::ChaosBase ? d.repeats : 0);
  if (d.hold) emit(call, piece, Stage::PostRouting, Verdict::Reorder, Fault::PacketReorder, d.hold_window);
  if (d.copies) emit(call, piece, Stage::PostRouting, Verdict::Duplicate, Fault::PacketDuplicate, d.copies);
}

Fault fault_of(const Decision& d, Part part) {
  switch (part) {
    case Part::Jitter: return Fault::Jitter;
    case Part::Loss: return d.loss_fault;
    case Part::Rate: return Fault::Rate;
    case Part::Dns: return Fault::DnsDelay;
    default: return Fault::Latency;
  }
}

// What acts on a datagram whose sender has carried its faults already: what was asked for the downlink alone.
u32 downlink_only(const Row& row) {
  bool payload = (row.faults & bit(Fault::PayloadMutation)) && row.mutation_target == static_cast<u8>(MutationTarget::DownlinkOnly);
  return row.down.only_mask | (payload ? bit(Fault::PayloadMutation) : 0);
}

// A rate that makes bytes wait noticeably: 64 KiB take longer than it takes to wake somebody up.
bool is_rated(const RowDirection& line) { return line.rate_bps && line.rate_bps < 10'000'000'000; }

// Whether something may make a stream's bytes late: time asked for, a rate, or the repair of a loss.
bool delays(const Row& row) {
  constexpr u32 losses = bit(Fault::PacketLoss) | bit(Fault::BurstLoss) | bit(Fault::CorrelatedLoss);
  bool repaired = (row.faults & losses) && row.loss_mode == static_cast<u8>(LossMode::Retransmit);
  auto late = [&](const RowDirection& line) { return line.latency_ns || line.jitter_ns || is_rated(line) || (repaired && line.loss_ppm); };
  return late(row.up) || late(row.down) || (repaired && (row.p_good_to_bad_ppm || row.loss_good_ppm));
}

}  // namespace

namespace {

Wants wants_of(const Segment& segment, const Row& row) {
  const bool ops = row.script_asks & kAsksOps;  // it may answer anything
  const bool dated = ops || row.down.latency_ns || row.down.jitter_ns, limited = row.faults & bit(Fault::RecvTimeout);
  return {
      .anything = row.script_asks || row.faults != 0 || journals(segment, kHeaderRecordAll | kHeaderRecordPayload),
      .dated = dated,
      .delays = ops || delays(row),
      .rated = ops || is_rated(row.up) || is_rated(row.down),
      .holds = ops || ((row.faults & bit(Fault::PacketReorder)) && row.reorder_ppm),
      .undated = !dated && !limited && !journals(segment, kHeaderRecordPayload),
      .payload = ops || (row.faults & bit(Fault::PayloadMutation)) != 0,
      .downlink_only = downlink_only(row) != 0,
      .guarded = (row.faults & (bit(Fault::SessionBudget) | bit(Fault::HalfOpen))) != 0,
      .recv_limit_ns = limited ? row.recv_timeout_ns : 0,
  };
}

}  // namespace

Wants wants(const Segment& segment, i32 policy) {
  const Row* row = cached_row(segment, policy);
  return row ? wants_of(segment, *row) : Wants{};
}

Wants wants(const Segment& segment, Flow* flow) {
  const ReadyRow* own = ready_row(segment, load(&flow->policy));
  if (!own) return {};
  if (!own->row.script_asks || ((own->row.script_asks & kAsksOps) && !answered_for_good(segment, flow))) return wants_of(segment, own->row);
  const Wants up = wants_of(segment, deciding_row(segment, flow, OpKind::Send, Direction::Uplink, 0, own, nullptr)->row);
  const Wants down = wants_of(segment, deciding_row(segment, flow, OpKind::Recv, Direction::Downlink, 0, own, nullptr)->row);
  return {
      .anything = true,  // a script is told what its flows carry
      .dated = up.dated || down.dated,
      .delays = up.delays || down.delays,
      .rated = up.rated || down.rated,
      .holds = up.holds || down.holds,
      .undated = up.undated && down.undated,
      .payload = up.payload || down.payload,
      .downlink_only = up.downlink_only || down.downlink_only,
      .guarded = up.guarded || down.guarded,
      .recv_limit_ns = down.recv_limit_ns,
  };
}

bool may_be_over(const Segment& segment, Flow* flow, u64 now_ns) {
  if (is_decided(segment)) {
    Call call;
    if (begin(&call, segment, flow, OpKind::Recv, Direction::Downlink, now_ns) != Begun::Ready) return false;
    const Decision decision = next_step(&call, 1).decision;
    finish(&call);
    return decision.outcome != Verdict::Continue && (decision.fault == Fault::SessionBudget || decision.fault == Fault::HalfOpen);
  }
  const ReadyRow* ready = ready_row(segment, load(&flow->policy));
  u64 first = load(&flow->first_op_ns);
  if (!ready || !first) return false;
  if (ready->row.script_asks) ready = deciding_row(segment, flow, OpKind::Recv, Direction::Downlink, now_ns, ready, nullptr);
  const Row* row = &ready->row;
  u64 up = load(&flow->up.bytes), down = load(&flow->down.bytes);
  // A ramp only widens these limits. One that is not set is 0.
  auto reached = [](u64 value, u64 limit) { return limit && value >= limit; };
  return reached(down, row->budget_max_rx) || reached(up + down, row->half_open_bytes) ||
         reached(load(&flow->up.ops) + load(&flow->down.ops), row->budget_max_ops) ||
         reached(now_ns - first, row->budget_max_duration_ns);
}

Begun begin(Call* call, const Segment& segment, Flow* flow, OpKind kind, Direction direction, u64 now_ns, bool inside_sender) {
  call->segment = &segment;
  call->flow = flow;
  call->policy = load(&flow->policy);
  const ReadyRow* ready = ready_row(segment, call->policy);
  if (!ready) return Begun::NoRow;
  call->asked = ready->row.script_asks;
  const ReadyRow* own = ready;
  if (call->asked) {
    ready = deciding_row(segment, flow, kind, direction, now_ns, ready, nullptr);
    call->answer = answer_number(segment, *ready);
  }
  call->row = &ready->row;
  const Row& row = *call->row;
  if (inside_sender) {
    call->allowed = downlink_only(row);
  }
  u64 epoch = load(&segment.header->epoch_ns);
  call->decided = is_decided(segment);
  call->scale_ppm = row.schedule_kind == 0 ? kCertainPpm : schedule_scale_ppm(row, now_ns > epoch ? now_ns - epoch : 0);
  if (call->scale_ppm == 0) {
    if (!call->decided) return Begun::Gated;
    call->allowed &= ~(bit(Fault::Rate) | bit(Fault::ConnectTimeout) | bit(Fault::RecvTimeout));  // which alone the schedule keeps away
    call->scale_ppm = kCertainPpm;
  }
  call->kind = kind;
  call->direction = direction;
  auto role = static_cast<Role>(load(&flow->role));
  call->stream = role == Role::Connector || role == Role::Acceptor;
  call->now_ns = now_ns;
  call->draw_key = draw_key(row.seed, load(&flow->key), kind, direction);

  FlowDirection* state = side_of(flow, direction);
  FlowDirection& draft = call->draft;
  draft.bytes = load(&state->bytes);
  draft.ops = load(&state->ops);
  draft.burst_left = load(&state->burst_left);
  draft.bad_state = load(&state->bad_state);
  draft.unit_lost = load(&state->unit_lost);
  draft.over = load(&state->over);
  if (kind == OpKind::Connect) {
    draft = {};
  } else if (call->stream) {
    draft.progress = load(&state->progress);
    bool turned = load(&flow->last_direction) != static_cast<u8>(direction);
    if (turned && offset_in(draft)) draft.progress = (unit_of(draft) + 1) << kOffsetBits;
  } else {
    draft.progress = add(&state->progress, kOneUnit);  // claimed now, so that threads never share a unit; returned by finish()
  }
  call->start = draft;
  call->first_unit = unit_of(draft);
  call->first_offset = call->stream ? static_cast<u32>(offset_in(draft)) : 0;
  if (call->asked && call->decided) call->row = &decided_row(*call, call->first_unit, call->first_offset, own)->row;
  return Begun::Ready;
}

u64 foretell_ns(const Segment& segment, Flow* flow, Direction direction, u64 ahead, u64 bytes, u64 at_ns, u64* rate_clock_ns) {
  Call call;
  if (begin(&call, segment, flow, direction == Direction::Uplink ? OpKind::Send : OpKind::Recv, direction, at_ns) != Begun::Ready)
    return 0;
  constexpr u32 uneven = bit(Fault::Jitter) | bit(Fault::PacketLoss) | bit(Fault::BurstLoss) | bit(Fault::CorrelatedLoss);
  const bool each = call.stream && (call.decided || (call.row->faults & uneven));  // else one unit stands for all
  i64 longest = 0;
  u64 left = each ? ahead + bytes : bytes, passed = each ? 0 : ahead;
  do {
    Step step = next_step(&call, left);
    const Decision& d = step.decision;
    if (passed + step.bytes > ahead && d.outcome == Verdict::Continue && d.delay_ns() > longest) longest = d.delay_ns();
    passed += step.bytes;
    left -= step.bytes < left ? step.bytes : left;
  } while (left && each);
  const u64 line_ns = foretell_rate(call, bytes, rate_clock_ns);
  finish(&call);
  return static_cast<u64>(longest) + line_ns;
}

Step next_step(Call* call, u64 bytes_left, bool one_unit) {
  call->start = call->draft;
  call->ahead_at_start = call->ahead;
  Step step;
  do {
    FlowDirection before = call->draft;
    Piece piece = next_piece(call, bytes_left, call->ahead);
    bool plain = piece.decision.plain();
    if (!plain && step.bytes) {  // it comes as a step of its own
      call->draft = before;
      break;
    }
    if (step.bytes == 0 || piece.decision.delay_ns() > step.decision.delay_ns()) step.decision = piece.decision;
    step.bytes += piece.bytes;
    bytes_left -= piece.bytes;
    call->ahead++;
    if (!plain || one_unit) break;
  } while (bytes_left && carries_data(call->kind));
  return step;
}

void commit(Call* call, const Step& step, u64 bytes) {
  bool whole = bytes == step.bytes;
  bool hits = !step.decision.plain() || step.decision.answer_ns;
  for (i64 part : step.decision.part_ns) hits |= part != 0;  // the parts, not their sum: jitter may cancel the latency
  if (!whole || hits) {  // walk the units again: the draws are the same, and now they count
    FlowDirection kept = call->draft;
    call->draft = call->start;
    call->ahead = call->ahead_at_start;
    u64 left = call->stream ? bytes : step.bytes;  // a datagram is decided by its size, carried or not
    do {
      Piece piece = next_piece(call, left, call->ahead++);
      const Decision& d = piece.decision;
      if (piece.fresh && hits) emit_decision(call, piece);
      // A limit met within a unit. (The rest of a lost unit, which chaos base drops, was counted with its start.)
      else if (d.outcome != Verdict::Continue && d.stage != Stage::ChaosBase) emit(call, piece, d.stage, d.outcome, d.fault, 0);
      left -= piece.bytes < left ? piece.bytes : left;
    } while (left && carries_data(call->kind));
    if (whole) call->draft = kept;
  }
  if (call->stream && bytes == 0 && step.decision.fault == Fault::ConnectionError && step.decision.outcome == Verdict::Error)
    call->draft.progress = (unit_of(call->draft) + 1) << kOffsetBits;  // the unit that met its end was begun
  call->progressed = true;
  call->carried += bytes;
  Flow* flow = call->flow;
  if (call->kind == OpKind::Connect) return;
  FlowDirection* state = side_of(flow, call->direction);
  if (call->stream) {
    if (load(&state->progress) != call->start.progress && offset_in(call->start)) {
      u64* bits = &call->segment->header->determinism;
      if (!(load(bits) & 1)) __atomic_fetch_or(bits, 1, __ATOMIC_RELAXED);
    }
    store(&state->progress, call->draft.progress);
    store(&state->bytes, call->draft.bytes);
  } else {
    add(&state->bytes, bytes);
  }
  if (call->draft.burst_left != load(&state->burst_left)) store(&state->burst_left, call->draft.burst_left);
  if (call->draft.bad_state != load(&state->bad_state)) store(&state->bad_state, call->draft.bad_state);
  if (call->draft.over != load(&state->over)) store(&state->over, call->draft.over);
  if (call->draft.unit_lost != load(&state->unit_lost)) store(&state->unit_lost, call->draft.unit_lost);
  if (load(&flow->first_op_ns) == 0) store(&flow->first_op_ns, call->now_ns);
}

void finish(Call* call) {
  record_continued(call);
  record_answer(call);
  Flow* flow = call->flow;
  if (call->asked && call->progressed && call->direction == Direction::Uplink) end_answered_op(flow, call->direction);
  if (call->kind == OpKind::Connect || call->kind == OpKind::Dns) {
    Stats* stats = stats_of(*call->segment, call->policy);
    if (call->kind == OpKind::Dns && !call->progressed && !call->stream) add(&side_of(flow, call->direction)->progress, u64{0} - kOneUnit);
    if (stats && call->progressed) add(call->kind == OpKind::Connect ? &stats->connects : &stats->lookups, u64{1});
    return;
  }
  FlowDirection* state = side_of(flow, call->direction);
  if (!call->progressed) {
    if (!call->stream) add(&state->progress, u64{0} - kOneUnit);
    return;
  }
  if (call->stream) store(&state->ops, load(&state->ops) + 1);
  else add(&state->ops, u64{1});
  if (load(&flow->last_direction) != static_cast<u8>(call->direction)) store(&flow->last_direction, static_cast<u8>(call->direction));
}

void count_gated(const Segment& segment, Flow* flow, Direction direction, u64 bytes) {
  FlowDirection* state = side_of(flow, direction);
  add(&state->ops, u64{1});
  add(&state->bytes, bytes);
  if (Stats* stats = stats_of(segment, load(&flow->policy))) add(&stats->gated_ops[static_cast<u32>(direction)], u64{1});
  if (!journals(segment, kHeaderRecordAll)) return;
  const OpKind kind = direction == Direction::Uplink ? OpKind::Send : OpKind::Recv;
  Event event = event_of(*flow, load(&flow->policy), kind, direction, load(&state->progress) >> kOffsetBits, bytes);
  event.verdict = static_cast<u8>(Verdict::Skipped);
  push_event(segment, event);
}

void delivered(const Call& call, const Decision& decision, u64 measured_ns) {
  i64 asked = decision.delay_ns();
  if (asked <= 0) return;
  for (u32 p = 0; p < kParts; p++) {
    i64 part = decision.part_ns[p];
    if (part == 0) continue;
    u64 size = static_cast<u64>(part < 0 ? -part : part);
    u64 share = static_cast<u64>(static_cast<unsigned __int128>(size) * measured_ns / static_cast<u64>(asked));
    Fault fault = fault_of(decision, static_cast<Part>(p));
    if (static_cast<Part>(p) != Part::Loss) count_applied(*call.segment, call.policy, fault, call.direction, 1);
    file_time(*call.segment, call.policy, fault, call.direction, share, size);
  }
}

void applied(const Call& call, Fault fault, u64 times) { count_applied(*call.segment, call.policy, fault, call.direction, times); }

void applied_wait(const Call& call, Fault fault, u64 measured_ns, u64 asked_ns) {
  record_time(*call.segment, call.policy, fault, call.direction, measured_ns, asked_ns);
}

void commit_mutation(Call* call, const Mutation& mutation) {
  Piece piece = {};
  piece.number = mutation.call_number;
  piece.bytes = mutation.bytes;
  emit(call, piece, Stage::Payload, Verdict::Mutate, Fault::PayloadMutation, static_cast<i64>(mutation.type));
}

u64 hash_bytes(u64 seed, const void* bytes, u64 length) {
  const u8* p = static_cast<const u8*>(bytes);
  u64 h = 0xcbf29ce484222325ull ^ seed;
  for (u64 i = 0; i < length; i++) h = (h ^ p[i]) * 0x100000001b3ull;
  return mix(h);
}

}  // namespace mishap::engine
