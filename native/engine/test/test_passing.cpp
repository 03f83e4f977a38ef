// A call that passes whole is told without walking the stages; what is decided must be what the walk decides. Two worlds
// get the same calls, one always walks, and both must tell the same.
#include "world.h"

namespace mishap::engine::test {
namespace {

struct Told {
  u64 unit;
  u8 direction, stage, verdict, fault;
  bool operator==(const Told&) const = default;
};
struct Outcome {
  std::vector<Told> told;
  u64 up_progress, down_progress, up_bytes, down_bytes, up_ops, down_ops, whole;
};

constexpr std::initializer_list<Fault> kChances = {Fault::PacketLoss,    Fault::BurstLoss,     Fault::CorrelatedLoss,
                                                   Fault::ConnectionError, Fault::PacketReorder, Fault::PacketDuplicate};

Row row_of_chances(u64 seed, u32 ppm) {
  Row row = row_of(kChances, seed);
  row.loss_mode = static_cast<u8>(LossMode::Drop);
  for (RowDirection* line : {&row.up, &row.down}) {
    line->loss_ppm = ppm;
    line->burst_length = 2;
  }
  row.p_good_to_bad_ppm = ppm;
  row.p_bad_to_good_ppm = 300000;
  row.loss_good_ppm = ppm;
  row.loss_bad_ppm = 500000;
  row.error_kind = static_cast<u8>(ErrorKind::Reset);
  row.error_ppm = ppm;
  row.reorder_ppm = ppm;
  row.reorder_window = 2;
  row.duplicate_ppm = ppm;
  row.duplicate_max_extra = 2;
  return row;
}

Outcome outcome_of(Row row, FlowKind kind, bool walked) {
  World world;
  world.publish(row);
  Flow* flow = world.open(kind);
  Outcome outcome = {};
  for (u64 i = 0; i < 400; i++) {
    u64 drawn = mix(i + row.seed);
    u64 bytes = kind.role == Role::Datagram ? 1 + drawn % 1400 : 1 + drawn % (drawn & 1 ? 200 : 30000);
    OpKind kind_of_call = drawn >> 60 < 12 ? OpKind::Send : OpKind::Recv;
    Direction way = kind_of_call == OpKind::Send ? Direction::Uplink : Direction::Downlink;
    u64 now = kNow + (i + 1) * kMillisecond;
    Passing passing;
    if (!walked && pass_whole(&passing, world.segment, flow, way, bytes, now)) {
      passed(passing, static_cast<i64>(bytes));
      outcome.whole++;
    } else {
      carry(world, flow, kind_of_call, bytes, now);
    }
    for (const Event& e : world.journal())
      outcome.told.push_back({e.unit, e.direction, e.stage, e.verdict, e.fault});
  }
  outcome.up_progress = flow->up.progress;
  outcome.down_progress = flow->down.progress;
  outcome.up_bytes = flow->up.bytes;
  outcome.down_bytes = flow->down.bytes;
  outcome.up_ops = flow->up.ops;
  outcome.down_ops = flow->down.ops;
  return outcome;
}

void check_alike(const Row& row, FlowKind kind, u64 told_at_least) {
  Outcome found = outcome_of(row, kind, false), walked = outcome_of(row, kind, true);
  CHECK(walked.told.size() >= told_at_least);
  CHECK(found.told == walked.told);
  CHECK(found.up_progress == walked.up_progress);
  CHECK(found.down_progress == walked.down_progress);
  CHECK(found.up_bytes == walked.up_bytes);
  CHECK(found.down_bytes == walked.down_bytes);
  CHECK(found.up_ops == walked.up_ops);
  CHECK(found.down_ops == walked.down_ops);
  if (row.schedule_kind == 0) CHECK(found.whole > 0);
}

}  // namespace

TEST_CASE("calls that pass whole are those that the stages leave alone") {
  for (u64 seed = 1; seed <= 4; seed++)
    for (u32 ppm : {1000u, 20000u, 200000u}) {
      CAPTURE(seed);
      CAPTURE(ppm);
      check_alike(row_of_chances(seed, ppm), kStream, 5);
      check_alike(row_of_chances(seed, ppm), kDatagram, ppm > 1000 ? 5 : 0);
    }
}

TEST_CASE("limits and ramps end in the same place") {
  Row row = row_of_chances(9, 5000);
  row.faults |= bit(Fault::SessionBudget) | bit(Fault::HalfOpen);
  row.budget_max_tx = 700000;
  row.budget_max_ops = 300;
  row.half_open_bytes = 900000;
  check_alike(row, kStream, 5);
  row.faults &= ~(bit(Fault::SessionBudget) | bit(Fault::HalfOpen));
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 300 * kMillisecond;
  check_alike(row, kStream, 5);
  check_alike(row, kDatagram, 1);
}

TEST_CASE("the line's time is booked as the stages book it, and given back") {
  World world;
  Row row = row_of({Fault::Rate});
  row.up.rate_bps = 3'000'000;
  row.up.rate_burst_bytes = 100000;
  world.publish(row);
  Flow* flow = world.open(kStream);
  carry(world, flow, OpKind::Send, 100, kNow);  // the first call of a flow takes the stages
  Link* link = link_of(world.segment, 0, Direction::Uplink);
  for (u64 bytes : {1ull, 1448ull, 65536ull}) {
    u64 walked = link->rate_clock_ns;
    u64 expected = flow_control(&walked, kNow, bytes, row.up.rate_bps, row.up.rate_burst_bytes);
    Passing passing;
    REQUIRE(pass_whole(&passing, world.segment, flow, Direction::Uplink, bytes, kNow));
    CHECK(link->rate_clock_ns + 1 >= expected);
    CHECK(link->rate_clock_ns <= expected);
    passed(passing, static_cast<i64>(bytes));
  }
  u64 before = link->rate_clock_ns;
  Passing passing;
  REQUIRE(pass_whole(&passing, world.segment, flow, Direction::Uplink, 20000, kNow));
  passed(passing, -1);
  CHECK(link->rate_clock_ns == before);
  CHECK_FALSE(pass_whole(&passing, world.segment, flow, Direction::Uplink, 60000, kNow));  // it would have to wait
  CHECK(link->rate_clock_ns == before);
}

TEST_CASE("chance as a bound on the draw hits what chance hits") {
  for (u64 ppm : {0ull, 1ull, 999ull, 500000ull, 999999ull}) {
    u64 below = hits_below(ppm);
    for (u64 n = 0; n < 20000; n++) CHECK(chance(mix(n), ppm) == (mix(n) < below));
    if (below) CHECK(chance(below - 1, ppm));
    CHECK_FALSE(chance(below, ppm));
  }
}

}  // namespace mishap::engine::test
