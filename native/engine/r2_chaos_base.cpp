// R2 chaos base: latency, and loss in three models: random, bursts of fixed length, and Gilbert-Elliott's two-state chain
// (Gilbert 1960, Elliott 1963; parameters as in tc-netem(8) "loss gemodel"). A lost datagram is gone. A lost segment is
// repaired by TCP unless loss_mode says drop, so there a loss is the time that Linux's TCP takes to repair it.
#include "stages.h"

namespace mishap::engine {
namespace {

constexpr u64 kMillisecond = 1000000;
constexpr u64 kRtoMin = 200 * kMillisecond;   // Linux TCP_RTO_MIN
constexpr u64 kRtoMax = 120000 * kMillisecond;  // Linux TCP_RTO_MAX
constexpr u64 kTimeoutMin = 2 * kMillisecond;
constexpr u32 kMaxRepeats = 15;  // net.ipv4.tcp_retries2's default
constexpr u32 kMaxSynRetries = 200;  // keeps the draws of one unit apart: kRepeat + n < 256
constexpr u32 kRepeat = 16;

struct Loss {
  bool lost = false;
  Fault fault = Fault::PacketLoss;
  u64 ppm = 0;  // chance that a retransmission is lost too
};

Loss draw_loss(const Unit& unit) {
  Loss loss;
  if (unit.state.burst_left) {
    unit.state.burst_left--;
    loss = {true, Fault::BurstLoss, unit.scaled(unit.line.loss_ppm)};
  }
  if (unit.asked(Fault::CorrelatedLoss)) {
    u64 leave = unit.state.bad_state ? unit.row.p_bad_to_good_ppm : unit.row.p_good_to_bad_ppm;
    if (chance(unit.drawn(Stage::ChaosBase, kTransition), leave)) unit.state.bad_state ^= 1;
    u64 ppm = unit.scaled(unit.state.bad_state ? unit.row.loss_bad_ppm : unit.row.loss_good_ppm);
    if (chance(unit.drawn(Stage::ChaosBase, kStateLoss), ppm) && !loss.lost) loss = {true, Fault::CorrelatedLoss, ppm};
  }
  if (unit.asked(Fault::PacketLoss) && !loss.lost) {
    u64 ppm = unit.scaled(unit.line.loss_ppm);
    if (chance(unit.drawn(Stage::ChaosBase), ppm)) {
      loss = {true, Fault::PacketLoss, ppm};
      if (unit.asked(Fault::BurstLoss) && unit.line.burst_length > 1) unit.state.burst_left = unit.line.burst_length - 1;
    }
  }
  return loss;
}

u32 lost_repeats(const Unit& unit, u64 ppm, u32 at_most) {
  u32 n = 0;
  while (n < at_most && chance(unit.drawn(Stage::ChaosBase, kRepeat + n), ppm)) n++;
  return n;
}

u64 round_trip_ns(const Unit& unit) {
  return unit.scaled(unit.row.up.latency_ns) + unit.scaled(unit.row.down.latency_ns) + (load(&unit.call.flow->rtt_ns) & ((1ull << 40) - 1));  // memory is not trusted: 18 minutes at most
}

// How long Linux waits behind this many SYNs: a second each at first, `linear` times more than once, then twice as long each time.
u64 syn_wait_ns(u64 syns, u64 linear) {
  u64 wait = 0, step = 1000 * kMillisecond;
  for (u64 i = 0; i < syns; i++) {
    wait += step;
    if (i + 1 > linear) step = 2 * step < kRtoMax ? 2 * step : kRtoMax;
  }
  return wait;
}

// How many it sends: until it waited as long as it would have without linear timeouts (tcp_timer.c, tcp_write_timeout).
u32 syns_sent(u64 retries, u64 linear) {
  const u64 enough = syn_wait_ns(retries < kMaxSynRetries ? 1 + retries : kMaxSynRetries, 0);
  u32 syns = 1;
  while (syns < kMaxSynRetries && syn_wait_ns(syns, linear) < enough) syns++;
  return syns;
}
u32 syn_retries(const Unit& unit) { return syns_sent(unit.call.syn_retries, unit.call.syn_linear) - 1; }

bool is_repaired(const Unit& unit) { return unit.call.stream && static_cast<LossMode>(unit.row.loss_mode) == LossMode::Retransmit; }

// A lost SYN is sent again on the host's own schedule. As on Linux the last wait is followed by no SYN: the connect times out.
void lose_syn(const Unit& unit, Fault fault, u32 repeats, Decision* decision) {
  const u32 retries = syn_retries(unit), lost = 1 + (repeats < retries ? repeats : retries);
  const u64 wait = syn_wait_ns(lost, unit.call.syn_linear);
  decision->fault = fault;
  decision->repeats = lost - 1;
  if (lost <= retries) {
    decision->part_ns[static_cast<u32>(Part::Loss)] = static_cast<i64>(wait);
    return;
  }
  decision->outcome = Verdict::Timeout;
  decision->timeout_ns = wait;
  decision->stage = Stage::ChaosBase;
}

}  // namespace

void lose(const Unit& unit, Fault fault, u32 repeats, Decision* decision) {
  unit.state.unit_lost = true;
  decision->loss_fault = fault;
  if (unit.call.kind == OpKind::Connect) return lose_syn(unit, fault, repeats, decision);
  if (is_repaired(unit)) {
    decision->repeats = repeats;
    const u64 repair_ns = recovery_ns(round_trip_ns(unit), unit.behind, unit.ahead, repeats);
    decision->part_ns[static_cast<u32>(Part::Loss)] = repair_ns ? static_cast<i64>(repair_ns) : 1;  // 0, with no round trip known, would hide it
    return;
  }
  decision->outcome = Verdict::Drop;
  decision->stage = Stage::ChaosBase;
  decision->fault = fault;
}

void swallow_rest(const Unit& unit, Decision* decision) {
  if (is_repaired(unit)) return;
  decision->outcome = Verdict::Drop;
  decision->stage = Stage::ChaosBase;
  decision->fault = Fault::PacketLoss;
  decision->continued = true;
}

// RFC 5681 fast retransmit when three segments follow: one round trip. RFC 8985 tail loss probe when several are in
// flight: two round trips. A lone segment waits for the retransmission timer (RFC 6298; Linux: SRTT + 200 ms), because
// Linux's probe then allows 200 ms for a delayed ACK. Every repeat that is lost too doubles that timer.
u64 recovery_ns(u64 rtt_ns, u64 behind, u64 ahead, u32 repeats) {
  if (repeats > kMaxRepeats) repeats = kMaxRepeats;
  u64 rto = rtt_ns + kRtoMin;
  u64 wait = rto;
  if (behind >= 3) wait = rtt_ns;
  else if (behind + ahead >= 1 && 2 * rtt_ns + kTimeoutMin < rto) wait = 2 * rtt_ns + kTimeoutMin;
  for (u32 i = 0; i < repeats; i++) {
    wait += rto;
    rto = 2 * rto < kRtoMax ? 2 * rto : kRtoMax;
  }
  return wait;
}

void chaos_base(const Unit& unit, Decision* decision) {
  if (unit.asked(Fault::Latency)) {
    decision->part_ns[static_cast<u32>(Part::Latency)] = static_cast<i64>(unit.scaled(unit.line.latency_ns));
    if (unit.call.kind == OpKind::Connect) decision->answer_ns = unit.scaled(unit.row.down.latency_ns);
  }
  constexpr u32 losses = bit(Fault::PacketLoss) | bit(Fault::BurstLoss) | bit(Fault::CorrelatedLoss);
  if (!(unit.row.faults & unit.call.allowed & losses)) return;

  if (!unit.fresh) {
    if (unit.state.unit_lost) swallow_rest(unit, decision);
    return;
  }
  const Loss loss = draw_loss(unit);
  unit.state.unit_lost = false;
  if (loss.lost) lose(unit, loss.fault, lost_repeats(unit, loss.ppm, unit.call.kind == OpKind::Connect ? syn_retries(unit) : kMaxRepeats), decision);
}

u64 syn_patience_ns(u64 retries, u64 linear) { return syn_wait_ns(syns_sent(retries, linear), linear); }

}  // namespace mishap::engine
