// R1: budgets, met to the byte, and what they end in.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

Row budget() { return row_of({Fault::SessionBudget}); }

bool ended(const Step& step, Verdict outcome) {
  const Decision& d = step.decision;
  return d.outcome == outcome && d.stage == Stage::SessionGuard && d.fault == Fault::SessionBudget;
}

}  // namespace

TEST_CASE("a stream's call is cut at the budget's last byte, and what lies behind is dropped") {
  World world;
  Row row = budget();
  row.budget_max_tx = 5000;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 4000).size() == 1);
  auto steps = carry(world, flow, OpKind::Send, 4000);
  REQUIRE(steps.size() == 2);
  CHECK(steps[0].bytes == 1000);
  CHECK(steps[0].decision.untouched());
  CHECK(steps[1].bytes == 3000);  // all of it at once, counted once a call
  CHECK(ended(steps[1], Verdict::Drop));
  CHECK(world.verdicts(Stage::SessionGuard, Verdict::Drop) == 1);
  CHECK(ended(decide(world, flow, OpKind::Send, 1), Verdict::Drop));
}

TEST_CASE("a budget that ends within a unit is counted and journaled there") {
  World world;
  Row row = budget();
  row.budget_max_tx = 100;
  world.publish(row);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 150);
  CHECK(world.verdicts(Stage::SessionGuard, Verdict::Drop) == 1);
  auto events = world.journal();
  REQUIRE(events.size() == 1);
  CHECK(events[0].unit == 0);
  CHECK(events[0].fault == static_cast<u8>(Fault::SessionBudget));
}

TEST_CASE("each direction has its own budget of bytes") {
  World world;
  Row row = budget();
  row.budget_max_rx = 1000;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 100000)[0].decision.untouched());
  auto steps = carry(world, flow, OpKind::Recv, 1001);
  REQUIRE(steps.size() == 2);
  CHECK(steps[0].bytes == 1000);
  CHECK(ended(steps[1], Verdict::Drop));
}

TEST_CASE("a datagram goes whole or not at all, and one that does not fit spends the budget") {
  World world;
  Row row = budget();
  row.budget_max_tx = 1000;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK(carry(world, flow, OpKind::Send, 900)[0].decision.untouched());
  CHECK(decide(world, flow, OpKind::Send, 100).decision.untouched());
  auto steps = carry(world, flow, OpKind::Send, 101);
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].bytes == 101);
  CHECK(ended(steps[0], Verdict::Drop));
}

TEST_CASE("ops of both directions count together; the one past the budget ends, connects too") {
  World world;
  Row row = budget();
  row.budget_max_ops = 4;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(decide(world, flow, OpKind::Connect).decision.untouched());
  for (int i = 0; i < 2; i++) {
    CHECK(carry(world, flow, OpKind::Send, 10)[0].decision.untouched());
    CHECK(carry(world, flow, OpKind::Recv, 10)[0].decision.untouched());
  }
  for (OpKind kind : {OpKind::Send, OpKind::Recv, OpKind::Connect})
    CHECK(ended(decide(world, flow, kind), Verdict::Drop));
}

TEST_CASE("time runs from the flow's first op") {
  World world;
  Row row = budget();
  row.budget_max_duration_ns = kSecond;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 1, kNow + 5 * kSecond)[0].decision.untouched());
  CHECK(carry(world, flow, OpKind::Recv, 1, kNow + 6 * kSecond - 1)[0].decision.untouched());
  CHECK(ended(decide(world, flow, OpKind::Recv, 1, kNow + 6 * kSecond), Verdict::Drop));
}

TEST_CASE("the terminal action: drop, timeout with its length, or a connection error of a kind") {
  World world;
  Row row = budget();
  row.budget_max_ops = 1;
  row.budget_action = static_cast<u8>(BudgetAction::Timeout);
  row.budget_timeout_ns = 3 * kSecond;
  world.publish(row);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 1);
  Step timeout = decide(world, flow, OpKind::Send);
  CHECK(ended(timeout, Verdict::Timeout));
  CHECK(timeout.decision.timeout_ns == 3 * kSecond);
  for (ErrorKind kind : {ErrorKind::Reset, ErrorKind::Refused, ErrorKind::Unreachable}) {
    row.budget_action = static_cast<u8>(BudgetAction::ConnectionError);
    row.budget_error = static_cast<u8>(kind);
    world.publish(row);
    Step error = decide(world, flow, OpKind::Send);
    CHECK(ended(error, Verdict::Error));
    CHECK(error.decision.error == kind);
  }
}

TEST_CASE("an exhausted budget ends the pipeline: no stage behind it adds anything") {
  World world;
  Row row = row_of({Fault::SessionBudget, Fault::Latency, Fault::PacketLoss, Fault::PacketDuplicate});
  row.budget_max_ops = 1;
  row.up.latency_ns = kMillisecond;
  row.duplicate_ppm = kCertainPpm;
  row.duplicate_max_extra = 1;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 1)[0].decision.delay_ns() == kMillisecond);
  Step step = decide(world, flow, OpKind::Send);
  CHECK(ended(step, Verdict::Drop));
  CHECK(step.decision.delay_ns() == 0);
  CHECK(step.decision.copies == 0);
}

TEST_CASE("on a ramp the budget starts wide and narrows") {
  World world;
  Row row = budget();
  row.budget_max_tx = 1000;
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 1500, kNow + 5 * kSecond)[0].decision.untouched());  // half way: 2,000
  CHECK(ended(decide(world, flow, OpKind::Send, 1, kNow + 10 * kSecond), Verdict::Drop));
}
