// Threads that decide at once, on flows of their own and on shared ones, while the owner publishes the row anew all the
// time: no unit is drawn twice or lost, and interleaving changes no decision. Meant for the thread sanitizer, too.
#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

constexpr u32 kThreads = 4;
constexpr u64 kCalls = 1000;
constexpr u64 kSharedFlows = 3;

Row faults() {
  Row row = row_of({Fault::PacketLoss, Fault::Jitter, Fault::PacketDuplicate, Fault::ConnectionError}, 77);
  row.up.loss_ppm = 200000;
  row.up.jitter_ns = kMillisecond;
  row.down = row.up;
  row.duplicate_ppm = 100000;
  row.duplicate_max_extra = 1;
  row.error_kind = static_cast<u8>(ErrorKind::Refused);
  row.error_ppm = 100000;
  return row;
}

void carry_when_ready(const World& world, Flow* flow, OpKind kind, u64 bytes) {
  Call call;
  while (begin(&call, world.segment, flow, kind, way(kind), kNow) != Begun::Ready) std::this_thread::yield();
  while (bytes) {
    Step step = next_step(&call, bytes);
    book_rate(&call, &step);
    commit(&call, step, step.bytes);
    bytes -= step.bytes;
  }
  finish(&call);
}

using Told = std::tuple<u8, u64, u8, u8, u64>;

struct Run {
  std::map<u64, std::multiset<Told>> of_flow;  // by key
  u64 shared_ops = 0, shared_units = 0, shared_bytes = 0;
};

// The same calls by four threads at once, or one thread's calls after the other's.
Run run(bool at_once) {
  World world(1 << 16);
  world.publish(faults());
  Flow* own[kThreads];
  Flow* shared[kSharedFlows];
  for (u32 t = 0; t < kThreads; t++) own[t] = world.open({.key = 100 + t});
  for (u64 s = 0; s < kSharedFlows; s++)
    shared[s] = world.open({.role = Role::Datagram, .protocol = Protocol::Udp, .key = 200 + s});

  auto work = [&](u32 t) {
    for (u64 i = 0; i < kCalls; i++) {
      carry_when_ready(world, own[t], i % 3 ? OpKind::Send : OpKind::Recv, 1 + mix(t * kCalls + i) % 3000);
      carry_when_ready(world, shared[i % kSharedFlows], OpKind::Send, 10);
    }
  };
  std::atomic<bool> done = false;
  std::thread owner;
  if (at_once) {
    owner = std::thread([&] {
      Row row = faults();
      while (!done) {
        publish_row(world.segment, 0, row, nullptr, 0);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
  }
  std::vector<std::thread> threads;
  for (u32 t = 0; t < kThreads; t++) {
    if (at_once) threads.emplace_back(work, t);
    else work(t);
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  if (owner.joinable()) owner.join();

  Run result;
  for (const Event& e : world.journal())
    result.of_flow[e.key].insert({e.direction, e.unit, e.stage, e.verdict, e.value});
  CHECK(world.segment.header->journal_dropped == 0);
  CHECK(world.segment.header->determinism == 0);
  for (Flow* flow : shared) {
    result.shared_ops += flow->up.ops;
    result.shared_units += unit_number(flow->up);
    result.shared_bytes += flow->up.bytes;
  }
  return result;
}

}  // namespace

TEST_CASE("four threads at once decide what one thread decides") {
  Run apart = run(false), at_once = run(true);
  CHECK(apart.of_flow.size() == kThreads + kSharedFlows);
  for (auto& flow : apart.of_flow) {
    CAPTURE(flow.first);
    CHECK(flow.second.size() > 500);
    CHECK(flow.second == at_once.of_flow[flow.first]);
  }
  for (const Run& r : {apart, at_once}) {
    CHECK(r.shared_ops == kThreads * kCalls);
    CHECK(r.shared_units == kThreads * kCalls);
    CHECK(r.shared_bytes == kThreads * kCalls * 10);
  }
}

TEST_CASE("a row read while it is written is one row or the other, never half of each") {
  World world;
  Row slow = row_of({Fault::Latency}), slower = slow;
  slow.up.latency_ns = slow.down.latency_ns = kMillisecond;
  slower.up.latency_ns = slower.down.latency_ns = 2 * kMillisecond;
  world.publish(slow);
  Flow* flow = world.open(kDatagram);
  std::atomic<bool> done = false;
  std::atomic<u32> torn = 0, seen[2] = {};
  std::vector<std::thread> threads;
  for (u32 t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      while (!done) {
        Call call;
        if (begin(&call, world.segment, flow, OpKind::Send, Direction::Uplink, kNow) != Begun::Ready) continue;
        u64 up = call.row->up.latency_ns, down = call.row->down.latency_ns;
        if (up == down) seen[up == kMillisecond ? 0 : 1]++;
        else torn++;
        finish(&call);
        std::this_thread::yield();
      }
    });
  }
  // At least a thousand rounds, more where the readers were not given a processor before they saw both rows.
  for (u32 round = 0; round < 1000 || (round < 1000000 && (seen[0] == 0 || seen[1] == 0)); round++) {
    publish_row(world.segment, 0, round % 2 ? slow : slower, nullptr, 0);
    std::this_thread::yield();
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(torn == 0);
  CHECK(seen[0] > 0);
  CHECK(seen[1] > 0);
  CHECK(unit_number(flow->up) == 0);
}
