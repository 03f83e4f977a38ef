// R6: lookups delayed, answered with NXDOMAIN, or left without an answer.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

TEST_CASE("every lookup is delayed") {
  World world;
  Row row = row_of({Fault::DnsDelay});
  row.dns_delay_ns = 300 * kMillisecond;
  world.publish(row);
  Step step = decide(world, world.open(kResolver), OpKind::Dns);
  CHECK(step.decision.plain());
  CHECK(step.decision.delay_ns() == 300 * kMillisecond);
  CHECK(part(step.decision, Part::Dns) == 300 * kMillisecond);
}

TEST_CASE("NXDOMAIN by chance a lookup, after the delay") {
  World world;
  Row row = row_of({Fault::DnsDelay, Fault::DnsNxdomain});
  row.dns_delay_ns = kMillisecond;
  row.dns_nxdomain_ppm = 30000;
  world.publish(row);
  world.segment.header->flags = 0;
  Flow* flow = world.open(kResolver);
  u64 hits = 0;
  for (u64 i = 0; i < 100000; i++) {
    Step step = carry(world, flow, OpKind::Dns)[0];
    CHECK(part(step.decision, Part::Dns) == static_cast<i64>(kMillisecond));
    if (step.decision.outcome == Verdict::Continue) continue;
    CHECK(step.decision.outcome == Verdict::NxDomain);
    CHECK(step.decision.stage == Stage::Resolver);
    CHECK(step.decision.fault == Fault::DnsNxdomain);
    hits++;
  }
  check_binomial(hits, 100000, 0.03);
  CHECK(world.verdicts(Stage::Resolver, Verdict::NxDomain) == hits);
  CHECK(world.verdicts(Stage::Resolver, Verdict::Delay) == 100000);
  CHECK(world.segment.stats[0].lookups == 100000);
}

TEST_CASE("a timeout holds for every lookup that NXDOMAIN does not answer") {
  World world;
  Row row = row_of({Fault::DnsTimeout, Fault::DnsNxdomain});
  row.dns_timeout_ns = 5 * kSecond;
  row.dns_nxdomain_ppm = 500000;
  world.publish(row);
  Flow* flow = world.open(kResolver);
  u64 timeouts = 0;
  for (u64 i = 0; i < 2000; i++) {
    Decision d = carry(world, flow, OpKind::Dns)[0].decision;
    if (d.outcome != Verdict::Timeout) {
      CHECK(d.outcome == Verdict::NxDomain);
      continue;
    }
    timeouts++;
    CHECK(d.stage == Stage::Resolver);
    CHECK(d.fault == Fault::DnsTimeout);
    CHECK(d.timeout_ns == 5 * kSecond);
  }
  check_binomial(timeouts, 2000, 0.5);
}

TEST_CASE("the other stages leave lookups alone, and R6 leaves all else alone") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PacketLoss, Fault::ConnectionError, Fault::PacketDuplicate});
  row.up.latency_ns = kSecond;
  row.up.loss_ppm = row.error_ppm = row.duplicate_ppm = kCertainPpm;
  row.duplicate_max_extra = 1;
  world.publish(row);
  CHECK(decide(world, world.open(kResolver), OpKind::Dns).decision.untouched());
  row = row_of({Fault::DnsDelay, Fault::DnsNxdomain});
  row.dns_delay_ns = kSecond;
  row.dns_nxdomain_ppm = kCertainPpm;
  world.publish(row);
  for (OpKind kind : {OpKind::Connect, OpKind::Send, OpKind::Recv})
    for (FlowKind flow : {kStream, kDatagram}) CHECK(decide(world, world.open(flow), kind).decision.untouched());
}

TEST_CASE("a ramp scales the delay and the chance") {
  World world;
  Row row = row_of({Fault::DnsDelay, Fault::DnsNxdomain});
  row.dns_delay_ns = kSecond;
  row.dns_nxdomain_ppm = kCertainPpm;
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  Flow* flow = world.open(kResolver);
  u64 hits = 0;
  for (u64 i = 0; i < 5000; i++) {
    Step step = carry(world, flow, OpKind::Dns, 1, kNow + 2 * kSecond)[0];
    CHECK(step.decision.delay_ns() == 200 * kMillisecond);
    hits += step.decision.outcome == Verdict::NxDomain;
  }
  check_binomial(hits, 5000, 0.2);
}

TEST_CASE("a lookup that was not made draws nothing: the next has its number") {
  World world;
  Row row = row_of({Fault::DnsNxdomain});
  row.dns_nxdomain_ppm = 500000;
  world.publish(row);
  Flow* flow = world.open(kResolver);
  for (u64 i = 0; i < 100; i++) {
    Verdict first = decide(world, flow, OpKind::Dns).decision.outcome;
    CHECK(carry(world, flow, OpKind::Dns)[0].decision.outcome == first);
    CHECK(unit_number(flow->up) == i + 1);
  }
}
