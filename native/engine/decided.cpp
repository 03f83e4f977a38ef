// Decided runs (kHeaderDecided): what happens was decided before, by a run that was recorded or by somebody's hand, and lies in
// the segment by flow, op and unit. Nothing is drawn then: a unit meets what is there for it, and any other nothing. How a fault
// is carried out stays the policy's (which error, how long a budget's timeout waits, how TCP repairs a loss), and so does what no
// unit is drawn for: rates, and how long a program waits at most.
#include "segment/atomic.h"
#include "stages.h"

namespace mishap::engine {
namespace {

constexpr i64 kLongestNs = 1ll << 56;  // memory is not trusted: times never add up to an overflow
constexpr u32 kMostCopies = 64;

bool before(const Decided& entry, u64 key, u8 op, u64 unit) {
  if (const u64 its = load(&entry.key); its != key) return its < key;
  if (const u8 its = load(&entry.op); its != op) return its < op;
  return load(&entry.unit) < unit;
}

// Everything decided for a unit. Where the entries are not in order it is others or none, and never outside of the region.
template <class Visit>
void each_decided(const Call& call, u64 unit, Visit visit) {
  const Segment& segment = *call.segment;
  const u64 key = load(&call.flow->key);
  const u8 op = static_cast<u8>(call.kind);
  u32 low = 0, high = segment.count.decided;
  while (low < high) {
    const u32 middle = low + (high - low) / 2;
    if (before(segment.decided[middle], key, op, unit)) low = middle + 1;
    else high = middle;
  }
  for (; low < segment.count.decided; low++) {
    const Decided& entry = segment.decided[low];
    if (load(&entry.key) != key || load(&entry.op) != op || load(&entry.unit) != unit) return;
    visit(entry);
  }
}

// What an entry says of a unit's delay; the other parts are for its first byte only.
void delay_by(const Unit& unit, const Decided& entry, Fault fault, i64 value, Decision* decision) {
  i64 bounded = value < -kLongestNs ? -kLongestNs : value > kLongestNs ? kLongestNs : value;
  auto part = [&](Part p) -> i64& { return decision->part_ns[static_cast<u32>(p)]; };
  if (fault == Fault::Jitter) part(Part::Jitter) = bounded;
  else if (fault == Fault::DnsDelay) part(Part::Dns) = bounded < 0 ? 0 : bounded;
  else if (unit.call.kind == OpKind::Connect && load(&entry.direction) == static_cast<u8>(Direction::Downlink))
    decision->answer_ns = static_cast<u64>(bounded < 0 ? 0 : bounded);
  else part(Part::Latency) = bounded < 0 ? 0 : bounded;
}

void decide_start(const Unit& unit, const Decided& entry, Fault fault, i64 value, Decision* decision) {
  switch (fault) {
    case Fault::PacketLoss:
    case Fault::BurstLoss:
    case Fault::CorrelatedLoss: {
      const bool forever = load(&entry.verdict) == static_cast<u8>(Verdict::Timeout);  // whatever this machine's own patience
      lose(unit, fault, forever ? ~0u : static_cast<u32>(value), decision);
      return;
    }
    case Fault::ConnectionError:
      fail_transport(fault, static_cast<ErrorKind>(unit.row.error_kind), decision);
      return;
    case Fault::DnsNxdomain:
      decision->outcome = Verdict::NxDomain;
      decision->fault = fault;
      return;
    case Fault::DnsTimeout:
      decision->outcome = Verdict::Timeout;
      decision->fault = fault;
      decision->timeout_ns = unit.row.dns_timeout_ns;
      return;
    case Fault::PacketReorder:
      hold(unit, static_cast<u32>(value), decision);
      return;
    case Fault::PacketDuplicate:
      decision->copies = value < 0 ? 0 : value < kMostCopies ? static_cast<u32>(value) : kMostCopies;
      return;
    default: return;
  }
}

}  // namespace

const ReadyRow* decided_row(const Call& call, u64 unit, u64 offset, const ReadyRow* own) {
  u64* standing = &call.flow->op_answers[static_cast<u32>(call.direction)];
  u64 policy = load(standing);
  each_decided(call, unit, [&](const Decided& entry) {
    const bool answers = load(&entry.verdict) == static_cast<u8>(Verdict::Answered);
    if (answers && load(&entry.offset) <= offset) policy = static_cast<u64>(load(&entry.value));
  });
  if (policy != load(standing)) store(standing, policy);
  const ReadyRow* ready = policy && policy < call.segment->count.policies ? ready_row(*call.segment, static_cast<i32>(policy)) : nullptr;
  return ready ? ready : own;
}

// `offset`: of the unit's bytes that are through. *bytes is cut where the conversation is to end later in the unit.
void decide(const Unit& unit, u64 offset, u64* bytes, Decision* decision) {
  FlowDirection& state = unit.state;
  if (unit.call.kind == OpKind::Dns) decision->stage = Stage::Resolver;
  if (unit.fresh) state.unit_lost = false;
  else if (state.unit_lost) swallow_rest(unit, decision);
  each_decided(unit.call, unit.number, [&](const Decided& entry) {
    const Fault fault = static_cast<Fault>(load(&entry.fault));
    const i64 value = load(&entry.value);
    if (load(&entry.verdict) == static_cast<u8>(Verdict::Answered)) return;
    if (fault == Fault::SessionBudget || fault == Fault::HalfOpen) {
      const u64 at = load(&entry.offset);
      if (at <= offset) state.over = static_cast<u8>(fault == Fault::HalfOpen ? Stage::Transport : Stage::SessionGuard);
      else if (at - offset < *bytes) *bytes = at - offset;
    } else if (fault == Fault::Latency || fault == Fault::Jitter || fault == Fault::DnsDelay) {
      delay_by(unit, entry, fault, value, decision);
    } else if (unit.fresh) {
      decide_start(unit, entry, fault, value, decision);
    }
  });
  if (state.over == static_cast<u8>(Stage::SessionGuard)) end_session(unit, decision);
  else if (state.over) fail_transport(Fault::HalfOpen, static_cast<ErrorKind>(unit.row.half_open_error), decision);
}

bool decides_mutation(const Call& call, u64 call_number) {
  bool mutates = false;
  each_decided(call, call_number, [&](const Decided& entry) { mutates |= load(&entry.stage) == static_cast<u8>(Stage::Payload); });
  return mutates;
}

}  // namespace mishap::engine
