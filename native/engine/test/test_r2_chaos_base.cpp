// R2: latency, the three models of loss, and what a loss costs on a stream.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

constexpr u64 kSeeds[] = {1, 2, 3, 0x7f3a, ~u64{0}};

bool dropped(const Step& step) { return step.decision.outcome == Verdict::Drop; }

// Sends datagrams of one flow; true where one was lost.
std::vector<bool> losses(const Row& row, u64 datagrams, Fault* last_fault = nullptr) {
  World world;
  world.publish(row);
  world.segment.header->flags = 0;
  Flow* flow = world.open(kDatagram);
  std::vector<bool> lost;
  for (u64 i = 0; i < datagrams; i++) {
    Step step = carry(world, flow, OpKind::Send, 100)[0];
    lost.push_back(dropped(step));
    if (lost.back() && last_fault) *last_fault = step.decision.fault;
  }
  return lost;
}

u64 count(const std::vector<bool>& bits) {
  u64 n = 0;
  for (bool b : bits) n += b;
  return n;
}

}  // namespace

TEST_CASE("latency holds one way in each direction, and a connect takes both ways") {
  World world;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 30 * kMillisecond;
  row.down.latency_ns = 70 * kMillisecond;
  world.publish(row);
  for (FlowKind kind : {kStream, kAccepted, kDatagram}) {
    Flow* flow = world.open(kind);
    CHECK(decide(world, flow, OpKind::Send).decision.delay_ns() == 30 * kMillisecond);
    CHECK(decide(world, flow, OpKind::Send).decision.answer_ns == 0);
    CHECK(decide(world, flow, OpKind::Recv).decision.delay_ns() == 70 * kMillisecond);
  }
  Step connect = decide(world, world.open(), OpKind::Connect);
  CHECK(connect.decision.delay_ns() == 30 * kMillisecond);
  CHECK(connect.decision.answer_ns == 70 * kMillisecond);
}

TEST_CASE("a ramp scales latency and loss") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PacketLoss});
  row.up.latency_ns = 100 * kMillisecond;
  row.up.loss_ppm = kCertainPpm;
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  u64 lost = 0;
  for (u64 i = 0; i < 20000; i++) {
    Step step = carry(world, flow, OpKind::Send, 1, kNow + kSecond)[0];
    CHECK(part(step.decision, Part::Latency) == 10 * kMillisecond);
    lost += dropped(step);
  }
  check_binomial(lost, 20000, 0.1);
}

TEST_CASE("random loss of datagrams: the asked rate, for each of five seeds and both directions") {
  for (u32 ppm : {10000, 100000, 500}) {
    for (u64 seed : kSeeds) {
      CAPTURE(seed);
      World world;
      Row row = row_of({Fault::PacketLoss}, seed);
      row.up.loss_ppm = row.down.loss_ppm = ppm;
      world.publish(row);
      world.segment.header->flags = 0;
      Flow* flow = world.open(kDatagram);
      for (OpKind kind : {OpKind::Send, OpKind::Recv}) {
        u64 lost = 0;
        for (u64 i = 0; i < 100000; i++) lost += dropped(carry(world, flow, kind, 100)[0]);
        check_binomial(lost, 100000, ppm / 1e6);
      }
      CHECK(world.verdicts(Stage::ChaosBase, Verdict::Drop) > 0);
    }
  }
}

TEST_CASE("the direction that asks for no loss has none") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK(dropped(decide(world, flow, OpKind::Send)));
  CHECK(decide(world, flow, OpKind::Recv).decision.untouched());
}

TEST_CASE("burst loss: exactly this many losses in a row, then a new draw") {
  Row row = row_of({Fault::PacketLoss, Fault::BurstLoss});
  row.up.loss_ppm = 10000;
  row.up.burst_length = 4;
  Fault last = Fault::Latency;
  auto lost = losses(row, 200000, &last);
  u64 bursts = 0, run = 0;
  for (size_t i = 0; i < lost.size(); i++) {
    if (lost[i]) {
      run++;
      continue;
    }
    CHECK(run % 4 == 0);  // bursts may touch, but each is whole
    bursts += run / 4;
    run = 0;
  }
  check_binomial(bursts, lost.size() - 3 * bursts, 0.01);  // a draw for every unit that is not inside a burst
  CHECK(last == Fault::BurstLoss);
}

TEST_CASE("a burst goes on across calls and conversations of one flow, not of another") {
  World world;
  Row row = row_of({Fault::PacketLoss, Fault::BurstLoss});
  row.up.loss_ppm = kCertainPpm;
  row.up.burst_length = 3;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  Flow* other = world.open(kDatagram);
  CHECK(carry(world, flow, OpKind::Send)[0].decision.fault == Fault::PacketLoss);
  CHECK(carry(world, other, OpKind::Send)[0].decision.fault == Fault::PacketLoss);
  CHECK(carry(world, flow, OpKind::Send)[0].decision.fault == Fault::BurstLoss);
  CHECK(carry(world, flow, OpKind::Send)[0].decision.fault == Fault::BurstLoss);
  CHECK(carry(world, flow, OpKind::Send)[0].decision.fault == Fault::PacketLoss);
}

TEST_CASE("correlated loss: Gilbert and Elliott's long-run rate") {
  struct Chain {
    u32 to_bad, to_good, good, bad;
  };
  constexpr Chain chains[] = {
      {10000, 200000, 0, kCertainPpm}, {50000, 100000, 10000, 300000}, {500000, 500000, 0, 200000}};
  for (const Chain& c : chains) {
    for (u64 seed : kSeeds) {
      CAPTURE(seed);
      Row row = row_of({Fault::CorrelatedLoss}, seed);
      row.p_good_to_bad_ppm = c.to_bad;
      row.p_bad_to_good_ppm = c.to_good;
      row.loss_good_ppm = c.good;
      row.loss_bad_ppm = c.bad;
      constexpr double n = 100000;
      double lost = static_cast<double>(count(losses(row, static_cast<u64>(n))));
      double p = c.to_bad / 1e6, r = c.to_good / 1e6, bad = p / (p + r), lg = c.good / 1e6, lb = c.bad / 1e6;
      double rate = (1 - bad) * lg + bad * lb, memory = 1 - p - r;
      // The variance of a mean over a two-state chain: each lag adds its covariance, a geometric series.
      double variance = rate * (1 - rate) + 2 * (lb - lg) * (lb - lg) * bad * (1 - bad) * memory / (1 - memory);
      INFO(lost << " lost, theory " << n * rate);
      CHECK(std::abs(lost - n * rate) <= kSigmas * std::sqrt(n * variance));
    }
  }
}

TEST_CASE("correlated loss comes in runs as long as the bad state lasts") {
  Row row = row_of({Fault::CorrelatedLoss});
  row.p_good_to_bad_ppm = 20000;
  row.p_bad_to_good_ppm = 250000;
  row.loss_bad_ppm = kCertainPpm;
  auto lost = losses(row, 200000);
  u64 runs = 0;
  for (size_t i = 0; i < lost.size(); i++) runs += lost[i] && (i == 0 || !lost[i - 1]);
  check_binomial(runs, count(lost), 0.25);  // every lost unit but the last of its run stays: runs end with chance 25 %
}

TEST_CASE("a chain that forgets its state at once loses units independently of each other") {
  Row row = row_of({Fault::CorrelatedLoss});
  row.p_good_to_bad_ppm = row.p_bad_to_good_ppm = 500000;
  row.loss_bad_ppm = 200000;
  auto lost = losses(row, 200000);
  check_binomial(count(lost), 200000, 0.1);
  u64 pairs = 0;
  for (size_t i = 0; i < lost.size(); i += 2) pairs += lost[i] && lost[i + 1];
  check_binomial(pairs, 100000, 0.01);
}

TEST_CASE("both models together lose what either loses, each on its own account") {
  Row row = row_of({Fault::CorrelatedLoss, Fault::PacketLoss});
  row.loss_good_ppm = 200000;
  row.up.loss_ppm = 100000;
  check_binomial(count(losses(row, 100000)), 100000, 1 - 0.8 * 0.9);
}

TEST_CASE("loss_mode drop swallows the whole unit of a stream, however it is cut, and nothing of the next") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.loss_mode = static_cast<u8>(LossMode::Drop);
  row.up.loss_ppm = 300000;
  world.publish(row);
  Flow* pieces = world.open({.key = 77});
  Flow* whole = world.open({.key = 77});
  std::vector<bool> lost;
  for (u64 unit = 0; unit < 300; unit++)
    lost.push_back(dropped(carry(world, whole, OpKind::Send, kStreamUnitBytes)[0]));
  CHECK(count(lost) > 0);
  for (u64 offset = 0; offset < 300 * kStreamUnitBytes; offset += 181) {  // 1,448 = 8 * 181
    Step step = carry(world, pieces, OpKind::Send, 181)[0];
    CHECK(dropped(step) == lost[offset / kStreamUnitBytes]);
    CHECK(step.decision.continued == (dropped(step) && offset % kStreamUnitBytes != 0));  // counted at its start
  }
}

TEST_CASE("by default a stream loses nothing: a lost unit takes the time of its repair") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PacketLoss});
  row.up.latency_ns = 20 * kMillisecond;
  row.down.latency_ns = 30 * kMillisecond;
  row.up.loss_ppm = 1000;
  world.publish(row);
  Flow* flow = world.open();
  flow->rtt_ns = kMillisecond;
  u64 lost = 0;
  for (u64 i = 0; i < 100000; i++) {
    Step step = carry(world, flow, OpKind::Send, kStreamUnitBytes)[0];
    if (step.decision.outcome != Verdict::Continue) FAIL("a unit of a stream was lost");
    i64 repair = part(step.decision, Part::Loss);
    if (repair == 0) continue;
    lost++;
    CHECK(repair >= static_cast<i64>(251 * kMillisecond));  // alone: the round trip of 51 ms and 200 ms
    CHECK(step.decision.loss_fault == Fault::PacketLoss);
  }
  check_binomial(lost, 100000, 0.001);
  CHECK(world.applied(Fault::PacketLoss, Direction::Uplink) == lost);
}

TEST_CASE("a repair depends on what follows the lost segment in its call") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PacketLoss});
  row.up.latency_ns = row.down.latency_ns = 50 * kMillisecond;
  row.up.loss_ppm = 100000;
  world.publish(row);
  // Flows of many keys, until each place in a call of five segments was lost once, its repeat not lost.
  std::set<u64> seen;
  for (u64 key = 1; key < 2000 && seen.size() < 5; key++) {
    Call call;
    Flow flow = {};
    flow.key = key;
    must_begin(&call, world, &flow, OpKind::Send);
    std::vector<i64> repairs;
    u64 left = 4 * kStreamUnitBytes + 1;  // a short segment counts like a full one
    while (left) {
      Step step = next_step(&call, left, true);
      commit(&call, step, step.bytes);
      left -= step.bytes;
      repairs.push_back(part(step.decision, Part::Loss));
    }
    REQUIRE(repairs.size() == 5);
    for (u64 place = 0; place < 5; place++) {
      if (repairs[place] == 0 || repairs[place] > static_cast<i64>(202 * kMillisecond)) continue;
      seen.insert(place);
      u64 rtt = 100 * kMillisecond;
      CHECK(repairs[place] == static_cast<i64>(place < 2 ? rtt : 2 * rtt + 2 * kMillisecond));
    }
  }
  CHECK(seen.size() == 5);
}

TEST_CASE("segments lost in one call wait once, and each is counted: none hides for want of a known round trip") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = kCertainPpm - 1;
  world.publish(row);
  carry(world, world.open(), OpKind::Send, 10 * kStreamUnitBytes);
  CHECK(world.applied(Fault::PacketLoss, Direction::Uplink) == 10);
  auto events = world.journal();
  REQUIRE(events.size() == 10);
  for (const Event& e : events) {
    CHECK(e.verdict == static_cast<u8>(Verdict::Delay));  // nothing is lost to the program: it waits
    CHECK(e.fault == static_cast<u8>(Fault::PacketLoss));
  }
}

TEST_CASE("how long TCP takes to repair a loss") {
  constexpr u64 rtt = 100 * kMillisecond, rto = rtt + 200 * kMillisecond, probe = 2 * rtt + 2 * kMillisecond;
  SUBCASE("three segments follow: fast retransmit after a round trip") {
    CHECK(recovery_ns(rtt, 3, 0, 0) == rtt);
    CHECK(recovery_ns(rtt, 40, 7, 0) == rtt);
  }
  SUBCASE("at the tail of several: the loss probe after two") {
    CHECK(recovery_ns(rtt, 2, 0, 0) == probe);
    CHECK(recovery_ns(rtt, 1, 0, 0) == probe);
    CHECK(recovery_ns(rtt, 0, 5, 0) == probe);
  }
  SUBCASE("alone: the timer") { CHECK(recovery_ns(rtt, 0, 0, 0) == rto); }
  SUBCASE("the timer, too, where the probe would come later") {
    CHECK(recovery_ns(300 * kMillisecond, 0, 5, 0) == 500 * kMillisecond);
  }
  SUBCASE("repeats that are lost wait for the timer, which doubles") {
    CHECK(recovery_ns(rtt, 3, 0, 1) == rtt + rto);
    CHECK(recovery_ns(rtt, 3, 0, 2) == rtt + rto + 2 * rto);
    CHECK(recovery_ns(rtt, 0, 5, 1) == probe + rto);
    // Alone the first wait is a loss probe's as well, only with the timer's length, so it doubles nothing
    // (tcp_output.c, tcp_schedule_loss_probe).
    CHECK(recovery_ns(rtt, 0, 0, 1) == rto + rto);
    CHECK(recovery_ns(rtt, 0, 0, 3) == rto + rto + 2 * rto + 4 * rto);
  }
  SUBCASE("the timer never exceeds two minutes") {
    u64 before = recovery_ns(rtt, 0, 0, 14), after = recovery_ns(rtt, 0, 0, 15);
    CHECK(after - before == 120 * kSecond);
  }
}

namespace {

struct Syn {
  u64 wait_ns = 0;
  bool gave_up = false;
};
// The connect of the flow with this key, where SYNs are lost with the given chance.
Syn syn_of(const World& world, u64 key, u64 retries, u64 linear) {
  Flow flow = {};
  flow.key = key;
  Call call;
  must_begin(&call, world, &flow, OpKind::Connect);
  call.syn_retries = retries;
  call.syn_linear = linear;
  Step step = next_step(&call, 1);
  const Decision& d = step.decision;
  if (d.outcome == Verdict::Timeout) return {d.timeout_ns, true};
  CHECK(d.outcome == Verdict::Continue);
  return {static_cast<u64>(part(d, Part::Loss)), false};
}

// Every wait seen, in whole seconds, and the one after which the connect gave up.
std::pair<std::set<u64>, u64> schedule_of(u64 retries, u64 linear) {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = 700000;
  world.publish(row);
  std::set<u64> waits;
  u64 end = 0;
  for (u64 key = 1; key <= 20000; key++) {
    Syn syn = syn_of(world, key, retries, linear);
    CHECK(syn.wait_ns % kSecond == 0);
    if (syn.gave_up) {
      CHECK((end == 0 || end == syn.wait_ns / kSecond));
      end = syn.wait_ns / kSecond;
    } else if (syn.wait_ns) {
      waits.insert(syn.wait_ns / kSecond);
    }
  }
  return {waits, end};
}

}  // namespace

TEST_CASE("a lost SYN is repeated on Linux's schedule, and the connect times out after the last") {
  using Waits = std::set<u64>;
  SUBCASE("before Linux 6.5 (and 6.1): doubling from the start, 127 s in all") {
    auto [waits, end] = schedule_of(6, 0);
    CHECK(waits == Waits{1, 3, 7, 15, 31, 63});
    CHECK(end == 127);
  }
  SUBCASE("since: four linear timeouts on top of the six, 131 s in all") {
    auto [waits, end] = schedule_of(6, 4);
    CHECK(waits == Waits{1, 2, 3, 4, 5, 7, 11, 19, 35, 67});
    CHECK(end == 131);
  }
  SUBCASE("fewer retries") {
    auto [waits, end] = schedule_of(1, 0);
    CHECK(waits == Waits{1});
    CHECK(end == 3);
  }
  SUBCASE("linear timeouts are no longer than doubling ones would be") {
    CHECK(schedule_of(1, 4) == std::pair{Waits{1, 2}, u64{3}});
    CHECK(schedule_of(2, 4) == std::pair{Waits{1, 2, 3, 4, 5}, u64{7}});
  }
  SUBCASE("the wait never exceeds two minutes") {
    auto [waits, end] = schedule_of(8, 0);
    CHECK(waits == Waits{1, 3, 7, 15, 31, 63, 127, 247});
    CHECK(end == 367);
  }
}

TEST_CASE("SYNs are lost as often as asked, and certain loss ends in a timeout on the loss's account") {
  World world;
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = 100000;
  world.publish(row);
  u64 lost = 0;
  for (u64 key = 1; key <= 100000; key++) lost += syn_of(world, key, 6, 4).wait_ns != 0;
  check_binomial(lost, 100000, 0.1);

  row.up.loss_ppm = kCertainPpm;
  world.publish(row);
  Step step = decide(world, world.open(), OpKind::Connect);
  CHECK(step.decision.outcome == Verdict::Timeout);
  CHECK(step.decision.stage == Stage::ChaosBase);
  CHECK(step.decision.fault == Fault::PacketLoss);
  for (u64 most : {u64{127}, ~u64{0} >> 1}) {  // whatever the sysctls say, the wait is a sane number
    Syn syn = syn_of(world, 1, most, 127);
    CHECK(syn.gave_up);
    CHECK(syn.wait_ns < 24 * 3600 * kSecond);
  }
}
