// R3: the rate's virtual clock, alone and as calls book on it.
#include <thread>

#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

Row line(u64 rate_bps, u64 burst_bytes) {
  Row row = row_of({Fault::Rate});
  row.up.rate_bps = row.down.rate_bps = rate_bps;
  row.up.rate_burst_bytes = row.down.rate_burst_bytes = burst_bytes;
  return row;
}

// Books a call's bytes as an executor does; the wait.
i64 wait_ns(const World& world, Flow* flow, OpKind kind, u64 bytes, u64 now_ns = kNow) {
  Call call;
  must_begin(&call, world, flow, kind, now_ns);
  Step step = next_step(&call, bytes);
  book_rate(&call, &step);
  commit(&call, step, step.bytes);
  finish(&call);
  return part(step.decision, Part::Rate);
}

}  // namespace

TEST_CASE("in the long run the rate is exact: a sender that always has more, woken late each time") {
  for (u64 rate_bps : {u64{1000000}, u64{10000000}, u64{100000000}, u64{1000000000}, u64{3333333}}) {
    for (u64 chunk : {u64{65536}, u64{1400}}) {
      CAPTURE(rate_bps);
      CAPTURE(chunk);
      u64 burst = rate_bps / 8 / 100;
      if (burst < 65536) burst = 65536;
      u64 clock = 0, now = kNow;
      flow_control(&clock, now, burst, rate_bps, burst);  // the burst is spent first
      u64 start = clock, bytes = 0, late = 0;
      for (u64 i = 0; i < 100000; i++) {
        u64 through = flow_control(&clock, now, chunk, rate_bps, burst);
        bytes += chunk;
        late = mix(i) % kMillisecond;  // below what the burst covers
        if (through > now) now = through + late;
      }
      double asked_s = static_cast<double>(bytes) * 8 / static_cast<double>(rate_bps);
      double took_s = static_cast<double>(clock - start) / 1e9;
      CHECK(std::abs(took_s / asked_s - 1) <= 1e-6);
      CHECK(now - clock <= late);  // and so do the deliveries, but for the last wake-up
    }
  }
}

TEST_CASE("an idle line gathers no more than its burst, however long it was idle") {
  constexpr u64 rate_bps = 8000000, burst = 10000;  // a byte a microsecond
  for (u64 idle : {kSecond, 3600 * kSecond, 1000000 * kSecond}) {
    u64 clock = kNow, now = kNow + idle, at_once = 0;
    while (flow_control(&clock, now, 100, rate_bps, burst) <= now) at_once += 100;
    CHECK(at_once == burst);
  }
}

TEST_CASE("credit comes back at the line's rate") {
  constexpr u64 rate_bps = 8000000, burst = 10000;
  u64 clock = 0;
  CHECK(flow_control(&clock, kNow, burst, rate_bps, burst) == kNow);
  u64 later = kNow + 4000 * kMicrosecond;
  CHECK(flow_control(&clock, later, 4000, rate_bps, burst) == later);
  CHECK(flow_control(&clock, later, 1000, rate_bps, burst) == later + 1000 * kMicrosecond);
}

TEST_CASE("a clock young as the machine's does not wrap below zero") {
  u64 clock = 0;
  CHECK(flow_control(&clock, 5, 1000, 8000000, 1000000) == 1000 * kMicrosecond);
}

TEST_CASE("threads that share a clock lose none of it") {
  u64 clock = kNow;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; i++) flow_control(&clock, kNow, 100, 8000000, 0);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(clock == kNow + 4 * 20000 * 100 * kMicrosecond);
}

TEST_CASE("by default the flows of a policy share the line, a direction each") {
  World world;
  world.publish(line(8000000, 0));
  Flow* one = world.open();
  Flow* two = world.open(kDatagram);
  CHECK(wait_ns(world, one, OpKind::Send, 1000) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, two, OpKind::Send, 1000) == 2000 * kMicrosecond);
  CHECK(wait_ns(world, one, OpKind::Recv, 1000) == 1000 * kMicrosecond);
}

TEST_CASE("two policies have a line each, and rate_scope flow gives every flow its own") {
  World world;
  Row row = line(8000000, 0);
  world.publish(row);
  world.publish(row, {}, 1);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 1000) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, world.open({.policy = 1}), OpKind::Send, 1000) == 1000 * kMicrosecond);
  row.rate_scope = static_cast<u8>(RateScope::Flow);
  world.publish(row);
  Flow* one = world.open();
  CHECK(wait_ns(world, one, OpKind::Send, 1000) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 1000) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, one, OpKind::Recv, 1000) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, one, OpKind::Send, 1000) == 2000 * kMicrosecond);
}

TEST_CASE("what was booked and not carried is given back") {
  World world;
  world.publish(line(8000000, 0));
  Flow* flow = world.open();
  Call call;
  must_begin(&call, world, flow, OpKind::Send);
  Step step = next_step(&call, 1000);
  book_rate(&call, &step);
  unbook_rate(&call, 600);
  commit(&call, step, 400);
  finish(&call);
  CHECK(wait_ns(world, flow, OpKind::Send, 1000) == 1400 * kMicrosecond);
  CHECK(unit_number(flow->up) == 0);
  CHECK(flow->up.bytes == 1400);
}

TEST_CASE("the wait for the line comes on top of the other delays") {
  World world;
  Row row = line(8000000, 0);
  row.faults |= bit(Fault::Latency);
  row.up.latency_ns = 5 * kMillisecond;
  world.publish(row);
  Call call;
  must_begin(&call, world, world.open(), OpKind::Send);
  Step step = next_step(&call, 1000);
  book_rate(&call, &step);
  CHECK(step.decision.delay_ns() == 6 * kMillisecond);
}

TEST_CASE("connects and lookups carry no bytes, a line without a rate or a policy without the fault limits none") {
  World world;
  Row row = line(8000000, 0);
  world.publish(row);
  CHECK(wait_ns(world, world.open(), OpKind::Connect, 1) == 0);
  CHECK(wait_ns(world, world.open(kResolver), OpKind::Dns, 1) == 0);
  row.up.rate_bps = 0;
  world.publish(row);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 1000000) == 0);
  row = line(8000000, 0);
  row.faults = bit(Fault::Latency);
  world.publish(row);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 1000000) == 0);
}

TEST_CASE("a ramp narrows the line from wide open to its rate") {
  World world;
  Row row = line(8000000, 0);
  row.rate_scope = static_cast<u8>(RateScope::Flow);
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 10000, kNow + kSecond) == 1000 * kMicrosecond);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 10000, kNow + 5 * kSecond) == 5000 * kMicrosecond);
  CHECK(wait_ns(world, world.open(), OpKind::Send, 10000, kNow + 10 * kSecond) == 10000 * kMicrosecond);
}
