// R8: units held back for others to overtake, and units sent again.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

TEST_CASE("reorder holds a unit by chance, with its window and its bound in time") {
  World world;
  Row row = row_of({Fault::PacketReorder});
  row.reorder_ppm = 250000;
  row.reorder_window = 3;
  row.reorder_max_delay_ns = 20 * kMillisecond;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  for (OpKind kind : {OpKind::Send, OpKind::Recv}) {
    u64 held = 0;
    for (u64 i = 0; i < 10000; i++) {
      Step step = carry(world, flow, kind, 100)[0];
      CHECK(step.decision.outcome == Verdict::Continue);
      CHECK(step.decision.delay_ns() == 0);
      CHECK(step.decision.plain() != step.decision.hold);
      if (!step.decision.hold) continue;
      held++;
      CHECK(step.decision.hold_window == 3);
      CHECK(step.decision.hold_ns == 20 * kMillisecond);
    }
    check_binomial(held, 10000, 0.25);
  }
}

TEST_CASE("duplicate draws each extra copy by itself") {
  World world;
  Row row = row_of({Fault::PacketDuplicate});
  row.duplicate_ppm = 300000;
  row.duplicate_max_extra = 3;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  u64 of_copies[4] = {};
  for (u64 i = 0; i < 50000; i++) {
    Decision d = carry(world, flow, OpKind::Send, 100)[0].decision;
    REQUIRE(d.copies <= 3);
    of_copies[d.copies]++;
  }
  for (u64 k = 0; k < 4; k++) {
    double ways = k == 0 || k == 3 ? 1 : 3;
    check_binomial(of_copies[k], 50000, ways * std::pow(0.3, k) * std::pow(0.7, 3.0 - static_cast<double>(k)));
  }
}

TEST_CASE("certain duplication makes every copy asked for, within reason") {
  World world;
  Row row = row_of({Fault::PacketDuplicate});
  row.duplicate_ppm = kCertainPpm;
  for (u32 extra : {1, 5, 64}) {
    row.duplicate_max_extra = extra;
    world.publish(row);
    CHECK(decide(world, world.open(kDatagram), OpKind::Send).decision.copies == extra);
  }
  row.duplicate_max_extra = ~0u;
  world.publish(row);
  CHECK(decide(world, world.open(kDatagram), OpKind::Send).decision.copies == 64);
}

TEST_CASE("holding and copying are drawn apart") {
  World world;
  Row row = row_of({Fault::PacketReorder, Fault::PacketDuplicate});
  row.reorder_ppm = row.duplicate_ppm = 500000;
  row.reorder_window = row.duplicate_max_extra = 1;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  u64 both = 0;
  for (u64 i = 0; i < 10000; i++) {
    Decision d = carry(world, flow, OpKind::Send)[0].decision;
    both += d.hold && d.copies;
  }
  check_binomial(both, 10000, 0.25);
}

TEST_CASE("on a stream a unit that is held or doubled is a step of its own, drawn where the unit begins") {
  World world;
  Row row = row_of({Fault::PacketReorder});
  row.reorder_ppm = 200000;
  row.reorder_window = 1;
  world.publish(row);
  Flow* flow = world.open();
  u64 held = 0;
  for (int call = 0; call < 100; call++) {
    for (const Step& step : carry(world, flow, OpKind::Send, 50 * kStreamUnitBytes)) {
      if (!step.decision.hold) continue;
      CHECK(step.bytes == kStreamUnitBytes);
      held++;
    }
  }
  check_binomial(held, 5000, 0.2);
  row.reorder_ppm = kCertainPpm;
  world.publish(row);
  CHECK(carry(world, flow, OpKind::Send, 100)[0].decision.hold);
  CHECK_FALSE(decide(world, flow, OpKind::Send, 100).decision.hold);
}

TEST_CASE("connects and lookups are neither held nor doubled") {
  World world;
  Row row = row_of({Fault::PacketReorder, Fault::PacketDuplicate});
  row.reorder_ppm = row.duplicate_ppm = kCertainPpm;
  row.reorder_window = row.duplicate_max_extra = 1;
  world.publish(row);
  CHECK(decide(world, world.open(), OpKind::Connect).decision.untouched());
  CHECK(decide(world, world.open(kResolver), OpKind::Dns).decision.untouched());
}
