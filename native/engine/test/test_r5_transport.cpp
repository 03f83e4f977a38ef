// R5: time limits, connection errors, half-open connections.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

Row errors(ErrorKind kind, u32 ppm) {
  Row row = row_of({Fault::ConnectionError});
  row.error_kind = static_cast<u8>(kind);
  row.error_ppm = ppm;
  return row;
}

bool failed(const Step& step, Fault fault, ErrorKind kind) {
  const Decision& d = step.decision;
  return d.outcome == Verdict::Error && d.stage == Stage::Transport && d.fault == fault && d.error == kind;
}

}  // namespace

TEST_CASE("each limit holds for its own op") {
  World world;
  Row row = row_of({Fault::ConnectTimeout, Fault::RecvTimeout});
  row.connect_timeout_ns = 200 * kMillisecond;
  row.recv_timeout_ns = 700 * kMillisecond;
  world.publish(row);
  Flow* flow = world.open();
  CHECK(decide(world, flow, OpKind::Connect).decision.limit_ns == 200 * kMillisecond);
  CHECK(decide(world, flow, OpKind::Recv).decision.limit_ns == 700 * kMillisecond);
  CHECK(decide(world, flow, OpKind::Send).decision.untouched());
  row.faults = bit(Fault::RecvTimeout);
  world.publish(row);
  CHECK(decide(world, flow, OpKind::Connect).decision.untouched());
}

TEST_CASE("a limit is a limit, not a delay or an outcome; a ramp starts it long") {
  World world;
  Row row = row_of({Fault::ConnectTimeout, Fault::Latency});
  row.connect_timeout_ns = kSecond;
  row.up.latency_ns = 3 * kSecond;
  world.publish(row);
  Step step = decide(world, world.open(), OpKind::Connect);
  CHECK(step.decision.plain());
  CHECK(step.decision.delay_ns() == 3 * kSecond);
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  CHECK(decide(world, world.open(), OpKind::Connect, 1, kNow + 5 * kSecond).decision.limit_ns == 2 * kSecond);
}

TEST_CASE("refused and unreachable are drawn once a connect, and nowhere else on a stream") {
  for (ErrorKind kind : {ErrorKind::Refused, ErrorKind::Unreachable}) {
    World world;
    world.publish(errors(kind, 300000));
    u64 hits = 0;
    for (u64 key = 1; key <= 20000; key++) {
      Flow flow = {};
      flow.key = key;
      hits += failed(decide(world, &flow, OpKind::Connect), Fault::ConnectionError, kind);
    }
    check_binomial(hits, 20000, 0.3);
    world.publish(errors(kind, kCertainPpm));
    CHECK(decide(world, world.open(), OpKind::Send, 100000).decision.untouched());
    CHECK(decide(world, world.open(), OpKind::Recv, 100000).decision.untouched());
  }
}

TEST_CASE("on datagrams they are drawn once a send, not when the socket is connected or received from") {
  for (ErrorKind kind : {ErrorKind::Refused, ErrorKind::Unreachable}) {
    World world;
    world.publish(errors(kind, 300000));
    Flow* flow = world.open(kDatagram);
    u64 hits = 0;
    for (u64 i = 0; i < 20000; i++) hits += failed(carry(world, flow, OpKind::Send)[0], Fault::ConnectionError, kind);
    check_binomial(hits, 20000, 0.3);
    world.publish(errors(kind, kCertainPpm));
    CHECK(decide(world, flow, OpKind::Connect).decision.untouched());
    CHECK(decide(world, flow, OpKind::Recv).decision.untouched());
  }
}

TEST_CASE("reset is drawn once a unit after connect, in both directions, and never on datagrams") {
  World world;
  world.publish(errors(ErrorKind::Reset, 100000));
  world.segment.header->flags = 0;
  Flow* flow = world.open();
  CHECK(decide(world, flow, OpKind::Connect).decision.untouched());
  for (OpKind kind : {OpKind::Send, OpKind::Recv}) {
    u64 hits = 0;
    for (u64 i = 0; i < 8 * 5000; i++)  // eight calls a unit
      hits += failed(carry(world, flow, kind, kStreamUnitBytes / 8)[0], Fault::ConnectionError, ErrorKind::Reset);
    check_binomial(hits, 5000, 0.1);
  }
  world.publish(errors(ErrorKind::Reset, kCertainPpm));
  for (OpKind kind : {OpKind::Connect, OpKind::Send, OpKind::Recv})
    CHECK(decide(world, world.open(kDatagram), kind).decision.untouched());
}

TEST_CASE("a reset comes between whole steps: what lies before its unit is carried") {
  World world;
  world.publish(errors(ErrorKind::Reset, 100000));
  auto steps = carry(world, world.open(), OpKind::Send, 100 * kStreamUnitBytes);
  REQUIRE(steps.size() > 2);
  u64 units = 0;
  for (const Step& step : steps) {
    CHECK(step.bytes % kStreamUnitBytes == 0);
    units += step.bytes / kStreamUnitBytes;
    if (step.decision.outcome == Verdict::Error) CHECK(step.bytes == kStreamUnitBytes);
    else CHECK(step.decision.untouched());
  }
  CHECK(units == 100);
}

TEST_CASE("half-open: both directions together, to the byte") {
  World world;
  Row row = row_of({Fault::HalfOpen});
  row.half_open_bytes = 5000;
  row.half_open_error = static_cast<u8>(ErrorKind::Unreachable);
  world.publish(row);
  Flow* flow = world.open();
  CHECK(carry(world, flow, OpKind::Send, 2000)[0].decision.untouched());
  CHECK(carry(world, flow, OpKind::Recv, 2900)[0].decision.untouched());
  auto steps = carry(world, flow, OpKind::Send, 500);
  REQUIRE(steps.size() >= 2);
  CHECK(steps[0].bytes == 100);
  CHECK(steps[0].decision.untouched());
  CHECK(failed(steps[1], Fault::HalfOpen, ErrorKind::Unreachable));
  CHECK(failed(decide(world, flow, OpKind::Recv), Fault::HalfOpen, ErrorKind::Unreachable));
  CHECK(decide(world, flow, OpKind::Connect).decision.untouched());
}

TEST_CASE("half-open within a unit is counted and journaled there") {
  World world;
  Row row = row_of({Fault::HalfOpen});
  row.half_open_bytes = 100;
  world.publish(row);
  carry(world, world.open(), OpKind::Send, 150);
  CHECK(world.verdicts(Stage::Transport, Verdict::Error) == 1);
  CHECK(world.journal().size() == 1);
}

TEST_CASE("half-open on datagrams: one that would cross the limit fails whole") {
  World world;
  Row row = row_of({Fault::HalfOpen});
  row.half_open_bytes = 1000;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK(carry(world, flow, OpKind::Send, 600)[0].decision.untouched());
  CHECK(decide(world, flow, OpKind::Recv, 400).decision.untouched());
  CHECK(failed(decide(world, flow, OpKind::Recv, 401), Fault::HalfOpen, ErrorKind::Reset));
}
