// The pipeline around the stages: how calls become steps, what counts and when, and that nothing about it depends on
// how a program cuts its calls.
#include <algorithm>
#include <functional>

#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

bool same_bytes(const Flow& a, const Flow& b) { return memcmp(&a, &b, sizeof(Flow)) == 0; }

Row everything(u64 seed) {
  Row row = row_of({Fault::Latency, Fault::Jitter, Fault::PacketLoss, Fault::BurstLoss, Fault::CorrelatedLoss,
                    Fault::ConnectionError, Fault::PacketReorder, Fault::PacketDuplicate}, seed);
  row.up.latency_ns = 5 * kMillisecond;
  row.up.jitter_ns = 20 * kMillisecond;  // more than the latency: often the two come to nothing
  row.down = row.up;
  row.up.loss_ppm = 50000;
  row.up.burst_length = 3;
  row.down.loss_ppm = 20000;
  row.p_good_to_bad_ppm = 50000;
  row.p_bad_to_good_ppm = 300000;
  row.loss_bad_ppm = 500000;
  row.error_kind = static_cast<u8>(ErrorKind::Reset);
  row.error_ppm = 30000;
  row.reorder_ppm = 50000;
  row.reorder_window = 2;
  row.duplicate_ppm = 50000;
  row.duplicate_max_extra = 2;
  return row;
}

// One unit's verdicts, as a journal tells them: direction, unit, stage, verdict, fault, value.
using Verdicts = std::set<std::tuple<u8, u64, u8, u8, u8, u64>>;

struct Turn {
  OpKind kind;
  u64 bytes;
};

// Chooses how many of at most `left` bytes: of the next call, or of a step that only partly goes through.
using Cut = std::function<u64(u64 left)>;
u64 whole(u64 left) { return left; }
Cut pieces(u64 bytes) {
  return [bytes](u64 left) { return bytes < left ? bytes : left; };
}
Cut random_pieces(u64 seed, u64 most) {
  return [=, n = u64{0}](u64 left) mutable {
    u64 bytes = 1 + mix(seed + ++n * 0x9e3779b97f4a7c15ull) % most;
    return bytes < left ? bytes : left;
  };
}

struct Outcome {
  Verdicts verdicts;                           // all but a spent budget's drops, which count once a call
  u64 budget_ended[kDirections] = {~0u, ~0u};  // the first unit that a spent budget dropped
  FlowDirection up, down;
};

// A conversation carried out with the program's calls cut by `call_of` and the steps going through as `part_of` says.
Outcome converse(const Row& row, const std::vector<Turn>& turns, const Cut& call_of, const Cut& part_of) {
  World world;
  world.publish(row);
  Flow* flow = world.open({.key = 4711});
  Outcome outcome;
  for (const Turn& turn : turns) {
    for (u64 left = turn.bytes; left;) {
      u64 bytes = call_of(left);
      // Before each call one the other way that finds nothing: it makes no turn and draws nothing.
      decide(world, flow, turn.kind == OpKind::Send ? OpKind::Recv : OpKind::Send, 5000);
      Call call;
      must_begin(&call, world, flow, turn.kind);
      for (u64 of_call = bytes; of_call;) {
        Step step = next_step(&call, of_call);
        if (step.bytes == 0 || step.bytes > of_call) FAIL("a step of " << step.bytes << " bytes, of " << of_call);
        u64 carried = part_of(step.bytes);
        commit(&call, step, carried);
        left -= carried;
        of_call -= carried;
        if (carried < step.bytes) break;  // as a full socket buffer cuts a call short
      }
      finish(&call);
      for (const Event& e : world.journal()) {
        u64& ended = outcome.budget_ended[e.direction];
        if (e.fault == static_cast<u8>(Fault::SessionBudget)) ended = std::min(ended, e.unit);
        else outcome.verdicts.insert({e.direction, e.unit, e.stage, e.verdict, e.fault, e.value});
      }
    }
  }
  CHECK(world.segment.header->journal_dropped == 0);
  CHECK(world.segment.header->determinism == 0);
  outcome.up = flow->up;
  outcome.down = flow->down;
  return outcome;
}

bool same_state(const FlowDirection& a, const FlowDirection& b) {
  return a.progress == b.progress && a.bytes == b.bytes && a.burst_left == b.burst_left && a.bad_state == b.bad_state &&
         a.unit_lost == b.unit_lost;
}

Outcome check_alike(const Row& row, const std::vector<Turn>& turns) {
  Outcome expected = converse(row, turns, whole, whole);
  CHECK(expected.verdicts.size() > 20);
  std::vector<std::pair<Cut, Cut>> ways = {
      {pieces(1), whole},        {pieces(7), whole},          {pieces(1447), whole},
      {pieces(1448), whole},     {pieces(1449), whole},       {pieces(16384), whole},
      {whole, pieces(1000)},     {pieces(4000), pieces(1449)}, {random_pieces(1, 100), whole},
      {random_pieces(2, 9000), whole}, {random_pieces(3, 9000), random_pieces(4, 3000)},
  };
  for (auto& [call_of, part_of] : ways) {
    Outcome got = converse(row, turns, call_of, part_of);
    CHECK(got.verdicts == expected.verdicts);
    for (u32 d = 0; d < kDirections; d++) CHECK(got.budget_ended[d] == expected.budget_ended[d]);
    CHECK(same_state(got.up, expected.up));
    CHECK(same_state(got.down, expected.down));
  }
  return expected;
}

}  // namespace

TEST_CASE("a call that nothing happens to is one step, however long") {
  World world;
  Row row = row_of({Fault::PacketLoss, Fault::ConnectionError});
  row.up.loss_ppm = 0;
  world.publish(row);
  auto steps = carry(world, world.open(), OpKind::Send, 10000000);
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].bytes == 10000000);
  CHECK(steps[0].decision.untouched());
}

TEST_CASE("units that only wait are one step, which waits for the slowest; one_unit gives them one by one") {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter});
  row.up.latency_ns = 10 * kMillisecond;
  row.up.jitter_ns = 5 * kMillisecond;
  world.publish(row);
  Flow* flow = world.open();
  i64 slowest = 0;
  std::vector<u64> sizes;
  Call call;
  must_begin(&call, world, flow, OpKind::Send);
  for (u64 left = 10000; left; left -= sizes.back()) {
    Step step = next_step(&call, left, true);
    slowest = std::max(slowest, step.decision.delay_ns());
    sizes.push_back(step.bytes);
  }
  finish(&call);
  CHECK(sizes == std::vector<u64>{1448, 1448, 1448, 1448, 1448, 1448, 1312});
  Step merged = decide(world, flow, OpKind::Send, 10000);
  CHECK(merged.bytes == 10000);
  CHECK(merged.decision.delay_ns() == slowest);
}

TEST_CASE("how a byte stream is cut changes no decision") {
  for (u64 seed = 1; seed <= 4; seed++) {
    CAPTURE(seed);
    Row row = everything(seed);
    row.loss_mode = static_cast<u8>(seed % 2 ? LossMode::Retransmit : LossMode::Drop);
    check_alike(row, {{OpKind::Send, 60000}});
    check_alike(row, {{OpKind::Recv, 60001}});
  }
}

TEST_CASE("how a conversation's turns are cut changes no decision") {
  std::vector<Turn> turns;
  for (u64 i = 0; i < 60; i++) turns.push_back({i % 2 ? OpKind::Recv : OpKind::Send, 1 + mix(i) % 4000});
  for (u64 seed = 1; seed <= 3; seed++) check_alike(everything(seed), turns);
}

TEST_CASE("limits in bytes end every cutting of a stream at the same unit") {
  for (u64 seed = 1; seed <= 3; seed++) {
    Row row = everything(seed);
    row.faults |= bit(Fault::SessionBudget) | bit(Fault::HalfOpen);
    row.budget_max_tx = 40000;
    row.budget_max_rx = 30001;
    row.half_open_bytes = 50000;
    Outcome half_opened = check_alike(row, {{OpKind::Send, 20000}, {OpKind::Recv, 20000}, {OpKind::Send, 25000}});
    CHECK(half_opened.budget_ended[0] >= 40000 / kStreamUnitBytes);
    row.faults &= ~bit(Fault::HalfOpen);
    constexpr Turn ask = {OpKind::Send, 25000}, answer = {OpKind::Recv, 25000};
    Outcome spent = check_alike(row, {ask, answer, ask, answer});
    CHECK(spent.budget_ended[0] < 45000 / kStreamUnitBytes);
    CHECK(spent.budget_ended[1] < 35000 / kStreamUnitBytes);
  }
}

TEST_CASE("retransmission without latency, with no round trip known, hides no loss from any cutting") {
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = 300000;
  check_alike(row, {{OpKind::Send, 200000}});
}

TEST_CASE("a stream's units lie 1,448 bytes apart until the conversation turns") {
  World world;
  world.publish(row_of({Fault::PacketLoss}));
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 1447);
  CHECK(unit_number(flow->up) == 0);
  carry(world, flow, OpKind::Send, 1);
  CHECK(unit_number(flow->up) == 1);
  CHECK(units_begun(flow->up.progress) == 1);
  carry(world, flow, OpKind::Send, 100);
  CHECK(units_begun(flow->up.progress) == 2);
  carry(world, flow, OpKind::Send, 100);
  CHECK(units_begun(flow->up.progress) == 2);
  carry(world, flow, OpKind::Recv, 100);
  CHECK(units_begun(flow->down.progress) == 1);
  carry(world, flow, OpKind::Send, 100);  // the answer came between: a new unit
  CHECK(unit_number(flow->up) == 2);
  CHECK(units_begun(flow->up.progress) == 3);
  carry(world, flow, OpKind::Recv, 100);
  CHECK(units_begun(flow->down.progress) == 2);
}

TEST_CASE("a call that makes no progress leaves the flow as it was, and the next draws the same") {
  World world;
  world.publish(everything(5));
  for (FlowKind kind : {kStream, kDatagram}) {
    Flow* flow = world.open(kind);
    for (u64 i = 0; i < 200; i++) {
      Flow before = *flow;
      Step tried = decide(world, flow, OpKind::Send, 2000);
      CHECK(same_bytes(*flow, before));
      Step made = carry(world, flow, OpKind::Send, 2000)[0];
      CHECK(made.bytes == tried.bytes);
      CHECK(made.decision.outcome == tried.decision.outcome);
      CHECK(made.decision.delay_ns() == tried.decision.delay_ns());
      CHECK(made.decision.hold == tried.decision.hold);
      CHECK(made.decision.copies == tried.decision.copies);
    }
  }
  CHECK(world.segment.header->determinism == 0);
}

TEST_CASE("a datagram's number is claimed when its call begins, and given back when nothing came of it") {
  World world;
  world.publish(row_of({Fault::PacketLoss}));
  Flow* flow = world.open(kDatagram);
  Call one, two;
  must_begin(&one, world, flow, OpKind::Send);
  must_begin(&two, world, flow, OpKind::Send);
  CHECK(unit_number(one.draft) == 0);
  CHECK(unit_number(two.draft) == 1);
  Step step = next_step(&one, 100);
  commit(&one, step, 100);
  finish(&one);
  next_step(&two, 100);
  finish(&two);
  CHECK(unit_number(flow->up) == 1);
  CHECK(flow->up.bytes == 100);
  CHECK(flow->up.ops == 1);
}

TEST_CASE("an empty datagram is a unit like any other") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  auto steps = carry(world, flow, OpKind::Send, 0);
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].decision.outcome == Verdict::Drop);
  CHECK(unit_number(flow->up) == 1);
  CHECK(flow->up.ops == 1);
  CHECK(world.verdicts(Stage::ChaosBase, Verdict::Drop) == 1);
}

TEST_CASE("finish counts ops, connects and lookups that made progress") {
  World world;
  world.publish(row_of({Fault::Latency}));
  Flow* flow = world.open();
  decide(world, flow, OpKind::Connect);
  CHECK(world.segment.stats[0].connects == 0);
  carry(world, flow, OpKind::Connect);
  carry(world, world.open(kResolver), OpKind::Dns);
  carry(world, flow, OpKind::Send, 10);
  decide(world, flow, OpKind::Send, 10);
  carry(world, flow, OpKind::Recv, 10);
  carry(world, flow, OpKind::Recv, 10);
  CHECK(world.segment.stats[0].connects == 1);
  CHECK(world.segment.stats[0].lookups == 1);
  CHECK(flow->up.ops == 1);
  CHECK(flow->down.ops == 2);
  CHECK(flow->up.bytes == 10);
  CHECK(flow->down.bytes == 20);
  CHECK(flow->first_op_ns == kNow);
}

TEST_CASE("a connect leaves the state of the flow's data alone") {
  World world;
  world.publish(everything(6));
  for (FlowKind kind : {kStream, kDatagram}) {
    Flow* flow = world.open(kind);
    carry(world, flow, OpKind::Send, 7000);
    Flow before = *flow;
    carry(world, flow, OpKind::Connect);
    CHECK(same_bytes(*flow, before));
  }
}

TEST_CASE("every connect of a flow draws as unit 0, whatever the flow carried") {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter});
  row.up.latency_ns = row.up.jitter_ns = kSecond;
  world.publish(row);
  Flow* flow = world.open();
  i64 first = carry(world, flow, OpKind::Connect)[0].decision.delay_ns();
  carry(world, flow, OpKind::Send, 10 * kStreamUnitBytes);
  CHECK(carry(world, flow, OpKind::Connect)[0].decision.delay_ns() == first);
  CHECK(decide(world, world.open(), OpKind::Connect).decision.delay_ns() != first);
}

TEST_CASE("no row, no faults: never written, out of range, or nothing resolved") {
  World world;
  Flow* flow = world.open();
  for (i32 policy : {0, -1, 4, 1 << 30}) {
    flow->policy = policy;
    Call call;
    CHECK(begin(&call, world.segment, flow, OpKind::Send, Direction::Uplink, kNow) == Begun::NoRow);
  }
  CHECK(unit_number(flow->up) == 0);
}

TEST_CASE("a row that is being written is none, and counted; once published it holds") {
  World world;
  world.publish(row_of({Fault::Latency}));
  Flow* flow = world.open();
  u32 sequence = world.segment.rows[0].seq;
  world.segment.rows[0].seq = sequence + 1;
  Call call;
  CHECK(begin(&call, world.segment, flow, OpKind::Send, Direction::Uplink, kNow) == Begun::NoRow);
  CHECK(world.segment.header->fallbacks[static_cast<u32>(Fallback::RowBusy)] == 1);
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = kSecond;
  world.publish(row);
  CHECK(decide(world, flow, OpKind::Send).decision.delay_ns() == kSecond);
}

TEST_CASE("a row that changes holds from the next call on") {
  World world;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 10 * kMillisecond;
  world.publish(row);
  Flow* flow = world.open();
  Call call;
  must_begin(&call, world, flow, OpKind::Send);
  row.up.latency_ns = 20 * kMillisecond;
  world.publish(row);
  CHECK(next_step(&call, 100).decision.delay_ns() == 10 * kMillisecond);
  finish(&call);
  CHECK(decide(world, flow, OpKind::Send).decision.delay_ns() == 20 * kMillisecond);
}

TEST_CASE("while its schedule is off a policy draws nothing, and what passes is counted as such") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm;
  row.schedule_kind = static_cast<u8>(ScheduleKind::Flapping);
  row.schedule_first_ns = row.schedule_second_ns = 10 * kSecond;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK(carry(world, flow, OpKind::Send, 100, kNow + 9 * kSecond)[0].decision.outcome == Verdict::Drop);
  Call call;
  REQUIRE(begin(&call, world.segment, flow, OpKind::Send, Direction::Uplink, kNow + 10 * kSecond) == Begun::Gated);
  count_gated(world.segment, flow, Direction::Uplink, 100);
  CHECK(unit_number(flow->up) == 1);
  CHECK(flow->up.ops == 2);
  CHECK(flow->up.bytes == 200);
  CHECK(world.segment.stats[0].gated_ops[0] == 1);
  CHECK(world.verdicts(Stage::ChaosBase, Verdict::Drop) == 1);
  CHECK(carry(world, flow, OpKind::Send, 100, kNow + 20 * kSecond)[0].decision.outcome == Verdict::Drop);
}

TEST_CASE("a datagram whose sender carried its faults meets only those asked for the downlink alone") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PacketLoss, Fault::PacketDuplicate});
  row.down.latency_ns = kMillisecond;
  row.down.loss_ppm = kCertainPpm;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK(decide(world, flow, OpKind::Recv).decision.outcome == Verdict::Drop);
  Call inside;
  REQUIRE(begin(&inside, world.segment, flow, OpKind::Recv, Direction::Downlink, kNow, true) == Begun::Ready);
  CHECK(next_step(&inside, 100).decision.untouched());
  finish(&inside);
  row.down.only_mask = bit(Fault::Latency);
  world.publish(row);
  Call only;
  REQUIRE(begin(&only, world.segment, flow, OpKind::Recv, Direction::Downlink, kNow, true) == Begun::Ready);
  Step step = next_step(&only, 100);
  finish(&only);
  CHECK(step.decision.plain());
  CHECK(step.decision.delay_ns() == kMillisecond);
}

TEST_CASE("what a policy wants to be set up ahead") {
  World world;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = kMillisecond;
  world.publish(row);
  Wants wanted = wants(world.segment, 0);
  CHECK_FALSE(wanted.dated);
  CHECK_FALSE(wanted.payload);
  CHECK_FALSE(wanted.guarded);
  CHECK(wanted.recv_limit_ns == 0);
  row.down.jitter_ns = kMillisecond;
  world.publish(row);
  CHECK(wants(world.segment, 0).dated);
  CHECK_FALSE(wants(world.segment, -1).dated);
  row = row_of({Fault::PayloadMutation, Fault::RecvTimeout});
  row.recv_timeout_ns = kSecond;
  world.publish(row);
  CHECK(wants(world.segment, 0).payload);
  CHECK(wants(world.segment, 0).recv_limit_ns == kSecond);
  for (Fault fault : {Fault::SessionBudget, Fault::HalfOpen}) {
    world.publish(row_of({fault}));
    CHECK(wants(world.segment, 0).guarded);
    CHECK_FALSE(wants(world.segment, 0).payload);
  }
}

TEST_CASE("the journal tells every verdict with its unit, and the counters agree") {
  World world;
  world.publish(everything(7));
  Flow* flow = world.open({.key = 99});
  carry(world, flow, OpKind::Connect);
  carry(world, flow, OpKind::Send, 300000);
  carry(world, flow, OpKind::Recv, 300000);
  u64 told[kStages][kVerdicts] = {};
  auto events = world.journal();
  for (const Event& e : events) {
    CHECK(e.kind == static_cast<u8>(EventKind::Decision));
    CHECK(e.key == 99);
    CHECK(e.policy == 0);
    CHECK(e.unit < 300000 / kStreamUnitBytes + 1);
    if (e.op != static_cast<u8>(OpKind::Connect))  // whose answer comes by the downlink
      CHECK((e.op == static_cast<u8>(OpKind::Recv)) == (e.direction == static_cast<u8>(Direction::Downlink)));
    told[e.stage][e.verdict]++;
  }
  for (u32 s = 0; s < kStages; s++)
    for (u32 v = 0; v < kVerdicts; v++)
      CHECK(world.verdicts(static_cast<Stage>(s), static_cast<Verdict>(v)) == told[s][v]);
  CHECK(told[static_cast<u32>(Stage::ChaosBase)][static_cast<u32>(Verdict::Delay)] > 300);
  u64 repaired = 0;
  for (const Event& e : events)
    repaired += e.verdict == static_cast<u8>(Verdict::Delay) && e.fault == static_cast<u8>(Fault::PacketLoss);
  CHECK(repaired > 10);
  CHECK(told[static_cast<u32>(Stage::Timing)][static_cast<u32>(Verdict::Delay)] > 100);
  CHECK(told[static_cast<u32>(Stage::Transport)][static_cast<u32>(Verdict::Error)] > 3);
  CHECK(told[static_cast<u32>(Stage::PostRouting)][static_cast<u32>(Verdict::Reorder)] > 5);
  CHECK(told[static_cast<u32>(Stage::PostRouting)][static_cast<u32>(Verdict::Duplicate)] > 5);
}

TEST_CASE("without a journal the counters count all the same") {
  World world;
  world.segment.header->flags = 0;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  for (int i = 0; i < 10; i++) carry(world, flow, OpKind::Send);
  CHECK(world.journal().empty());
  CHECK(world.verdicts(Stage::ChaosBase, Verdict::Drop) == 10);
}

TEST_CASE("a full journal drops and says so; decisions go on") {
  World world(16);
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  for (int i = 0; i < 20; i++) CHECK(carry(world, flow, OpKind::Send)[0].decision.outcome == Verdict::Drop);
  CHECK(world.journal().size() == 16);
  CHECK(world.segment.header->journal_dropped == 4);
}

TEST_CASE("a call that ends in an error carries nothing, and its verdict counts all the same") {
  struct Ending {
    Fault fault;
    FlowKind kind;
    u64 carried_before;
  };
  const Ending endings[] = {{Fault::ConnectionError, kStream, 0}, {Fault::SessionBudget, kStream, 900},
                            {Fault::HalfOpen, kStream, 900},      {Fault::SessionBudget, kDatagram, 899},
                            {Fault::HalfOpen, kDatagram, 899}};
  for (const Ending& ending : endings) {
    CAPTURE(static_cast<int>(ending.fault));
    World world;
    Row row = row_of({ending.fault});
    row.error_ppm = kCertainPpm;
    row.budget_max_tx = row.half_open_bytes = 900;
    row.budget_action = static_cast<u8>(BudgetAction::ConnectionError);
    world.publish(row);
    Flow* flow = world.open(ending.kind);
    if (ending.carried_before) carry(world, flow, OpKind::Send, ending.carried_before);
    u64 before = flow->up.bytes, ops = flow->up.ops;
    Call call;
    must_begin(&call, world, flow, OpKind::Send);
    Step step = next_step(&call, 100);
    CHECK(step.decision.outcome == Verdict::Error);
    commit(&call, step, 0);
    finish(&call);
    auto events = world.journal();
    REQUIRE(events.size() == 1);
    CHECK(events[0].fault == static_cast<u8>(ending.fault));
    CHECK(flow->up.bytes == before);
    CHECK(flow->up.ops == ops + 1);
  }
}

TEST_CASE("two ops of one stream that race within a unit are noted") {
  World world;
  world.publish(row_of({Fault::PacketLoss}));
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 100);
  Call one, two;
  must_begin(&one, world, flow, OpKind::Send);
  must_begin(&two, world, flow, OpKind::Send);
  Step step = next_step(&one, 100);
  commit(&one, step, 100);
  finish(&one);
  CHECK(world.segment.header->determinism == 0);
  step = next_step(&two, 100);
  commit(&two, step, 100);
  finish(&two);
  CHECK(world.segment.header->determinism == 1);
}

TEST_CASE("evidence comes from what was measured, shared out over what was asked") {
  World world;
  world.publish(row_of({Fault::Latency}));
  Call call;
  must_begin(&call, world, world.open(), OpKind::Send);
  Decision d;
  d.part_ns[static_cast<u32>(Part::Latency)] = 20 * kMillisecond;
  d.part_ns[static_cast<u32>(Part::Loss)] = 40 * kMillisecond;
  d.loss_fault = Fault::CorrelatedLoss;
  delivered(call, d, 30 * kMillisecond);  // an executor that waits half of it
  const Histogram* latency = histogram_of(world.segment, 0, Fault::Latency, Direction::Uplink);
  const Histogram* loss = histogram_of(world.segment, 0, Fault::CorrelatedLoss, Direction::Uplink);
  CHECK(latency->count == 1);
  CHECK(latency->sum_ns == 10 * kMillisecond);
  CHECK(latency->asked_sum_ns == 20 * kMillisecond);
  CHECK(loss->sum_ns == 20 * kMillisecond);
  CHECK(world.applied(Fault::Latency, Direction::Uplink) == 1);
  CHECK(loss->count == 1);
  CHECK(world.applied(Fault::CorrelatedLoss, Direction::Uplink) == 0);  // commit() counts lost segments, one by one
  CHECK(world.applied(Fault::Latency, Direction::Downlink) == 0);
  delivered(call, {}, 30 * kMillisecond);  // nothing asked, nothing delivered
  CHECK(latency->count == 1);

  applied(call, Fault::PacketDuplicate, 3);
  CHECK(world.applied(Fault::PacketDuplicate, Direction::Uplink) == 3);
  applied_wait(call, Fault::SessionBudget, 7 * kMillisecond, 5 * kMillisecond);
  const Histogram* wait = histogram_of(world.segment, 0, Fault::SessionBudget, Direction::Uplink);
  CHECK(wait->sum_ns == 7 * kMillisecond);
  CHECK(wait->asked_sum_ns == 5 * kMillisecond);
  finish(&call);
}

TEST_CASE("times that only a broken segment holds are bounded each, so that their sum stays a time") {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter, Fault::PacketLoss});
  row.up.latency_ns = row.up.jitter_ns = row.down.latency_ns = ~u64{0};
  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  for (OpKind kind : {OpKind::Connect, OpKind::Send}) {
    i64 delay = decide(world, world.open(), kind).decision.delay_ns();
    CHECK(delay >= 0);
    CHECK(delay < i64{1} << 60);
  }
}

TEST_CASE("a flow whose numbers were overwritten decides something, and ends") {
  World world;
  world.publish(everything(8));
  for (u64 progress : {u64{2047}, u64{1448}, ~u64{0}}) {
    Flow* flow = world.open();
    memset(&flow->up, 0xff, sizeof(flow->up));
    flow->up.progress = progress;
    u64 bytes = 0;
    for (const Step& step : carry(world, flow, OpKind::Send, 100000)) bytes += step.bytes;
    CHECK(bytes == 100000);
  }
}

TEST_CASE("hashes of names: the same for the same, spread for the rest") {
  CHECK(hash_bytes(0, "api.internal", 12) == hash_bytes(0, "api.internal", 12));
  CHECK(hash_bytes(1, "api.internal", 12) != hash_bytes(0, "api.internal", 12));
  std::set<u64> low_bits;
  for (u64 i = 0; i < 10000; i++) low_bits.insert(hash_bytes(0, &i, sizeof(i)) & 0xffffffff);
  CHECK(low_bits.size() > 9990);
}
