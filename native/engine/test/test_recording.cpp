// What a recording needs to know of each op: when, how much, and, with every op recorded, that it continued.
#include "world.h"

namespace mishap::engine::test {
namespace {

void record_all(World* world) { world->segment.header->flags = kHeaderJournal | kHeaderRecord | kHeaderRecordAll; }

}  // namespace

TEST_CASE("a decision is told with its unit's bytes and the time of its call") {
  World world;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 5 * kMillisecond;
  world.publish(row);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 2000, kNow + 3);
  const std::vector<Event> events = world.journal();
  REQUIRE(events.size() == 2);
  CHECK(events[0].bytes == kStreamUnitBytes);
  CHECK(events[1].bytes == 2000 - kStreamUnitBytes);
  for (const Event& event : events) CHECK(event.at_ns == kNow + 3);
}

TEST_CASE("a connect is told without bytes, a mutation with those of its call") {
  World world;
  Row row = row_of({Fault::Latency, Fault::PayloadMutation});
  row.up.latency_ns = kMillisecond;
  row.mutation_ppm = kCertainPpm;
  row.mutation_type = static_cast<u8>(MutationType::Truncate);
  world.publish(row);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Connect);
  std::vector<Event> events = world.journal();
  REQUIRE(events.size() == 1);
  CHECK(events[0].bytes == 0);
  Call call;
  must_begin(&call, world, flow, OpKind::Send);
  commit_mutation(&call, plan_mutation(call, 700));
  events = world.journal();
  REQUIRE(events.size() == 1);
  CHECK(events[0].bytes == 700);
}

TEST_CASE("with every op recorded, one that continued is one event: where it began, and its bytes") {
  World world;
  record_all(&world);
  world.publish(row_of({}));
  CHECK(wants(world.segment, 0).anything);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Connect, 1, kNow);
  carry(world, flow, OpKind::Send, 4000, kNow + 1);
  carry(world, flow, OpKind::Send, 10, kNow + 2);
  Passing passing;
  CHECK_FALSE(pass_whole(&passing, world.segment, flow, Direction::Uplink, 10, kNow + 2));  // the stages tell
  carry(world, flow, OpKind::Recv, 5, kNow + 3);
  decide(world, flow, OpKind::Send, 10);  // made no progress: never was
  const std::vector<Event> events = world.journal();
  REQUIRE(events.size() == 4);
  const OpKind ops[] = {OpKind::Connect, OpKind::Send, OpKind::Send, OpKind::Recv};
  const u64 units[] = {0, 0, 4000 / kStreamUnitBytes, 0}, bytes[] = {0, 4000, 10, 5};
  for (u32 i = 0; i < 4; i++) {
    CAPTURE(i);
    CHECK(events[i].key == flow->key);
    CHECK(events[i].op == static_cast<u8>(ops[i]));
    CHECK(events[i].direction == static_cast<u8>(way(ops[i])));
    CHECK(events[i].stage == static_cast<u8>(Stage::Resolve));
    CHECK(events[i].verdict == static_cast<u8>(Verdict::Continue));
    CHECK(events[i].unit == units[i]);
    CHECK(events[i].bytes == bytes[i]);
    CHECK(events[i].at_ns == kNow + i);
  }
}

TEST_CASE("with every op recorded, one that met a decision is that decision, and one that a schedule spared is skipped") {
  World world;
  record_all(&world);
  Row row = row_of({Fault::PacketLoss});
  row.loss_mode = static_cast<u8>(LossMode::Drop);
  row.up.loss_ppm = 300000;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  constexpr u64 kOps = 500;
  for (u64 i = 0; i < kOps; i++) carry(world, flow, OpKind::Send, 100);
  u64 lost = 0, unit = 0;
  const std::vector<Event> events = world.journal();
  for (const Event& event : events) {
    CHECK(event.unit == unit++);
    lost += event.verdict == static_cast<u8>(Verdict::Drop);
  }
  CHECK(events.size() == kOps);
  CHECK(lost == world.verdicts(Stage::ChaosBase, Verdict::Drop));
  CHECK(lost > kOps / 5);
  count_gated(world.segment, flow, Direction::Downlink, 77);
  const std::vector<Event> spared = world.journal();
  REQUIRE(spared.size() == 1);
  CHECK(spared[0].verdict == static_cast<u8>(Verdict::Skipped));
  CHECK(spared[0].op == static_cast<u8>(OpKind::Recv));
  CHECK(spared[0].bytes == 77);
}

TEST_CASE("an op of many decisions has patience once, however many events it writes") {
  World world(4);
  world.segment.header->flags = kHeaderJournal | kHeaderRecord;
  world.segment.header->owner_lock[0] = 1;
  world.segment.header->lease_expiry_ns = ~u64{0};
  world.segment.header->state = static_cast<u32>(State::Active);
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = kMillisecond;
  world.publish(row);
  Call call;
  must_begin(&call, world, world.open(), OpKind::Send);
  call.room_patience_ns = 10 * kMillisecond;
  Step step = next_step(&call, 20 * kStreamUnitBytes);
  commit(&call, step, step.bytes);
  finish(&call);
  CHECK(call.room_patience_ns == 0);
  CHECK(world.segment.header->journal_dropped == 16);
  CHECK(world.journal().size() == 4);
}

}  // namespace mishap::engine::test
