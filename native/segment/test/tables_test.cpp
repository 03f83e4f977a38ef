// Flows, owners, processes and bindings: found again, and counted when there is no room.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "image.h"

using namespace mishap;

TEST_CASE("a flow is opened once and found again") {
  Image image;
  bool fresh = false;
  Flow* flow = open_flow(image.segment, opening_of(42), &fresh);
  REQUIRE(flow != nullptr);
  CHECK(fresh);
  CHECK(open_flow(image.segment, opening_of(42), &fresh) == flow);
  CHECK_FALSE(fresh);
  CHECK(find_flow(image.segment, 42) == flow);
  CHECK(find_flow(image.segment, 43) == nullptr);
  CHECK(image.header()->flows_opened == 1);
}

TEST_CASE("a full table is counted, not overrun") {
  Image image;
  bool fresh;
  u32 opened = 0;
  for (u64 cookie = 1; cookie <= 200; cookie++)
    opened += open_flow(image.segment, opening_of(cookie), &fresh) != nullptr;
  CHECK(opened == 64);
  CHECK(image.fallbacks(Fallback::TableFull) == 200 - 64);

  // One process, so that every start time hashes to the same window of slots.
  u32 registered = 0;
  for (u64 start = 1; start <= 100; start++)
    registered += register_process(image.segment, getpid(), start, "0", "program", 0) != nullptr;
  CHECK(registered == kProbeWindow);
  CHECK(image.fallbacks(Fallback::TableFull) == 200 - 64 + 100 - kProbeWindow);
}

TEST_CASE("an idle slot is taken over, and what it counted is folded into its policy's stats") {
  Image image({2, 64, 64, 64, 1, 64, 1, 1});  // one slot, so that the next flow must take it
  bool fresh;
  Flow* flow = open_flow(image.segment, opening_of(1), &fresh);
  REQUIRE(flow != nullptr);
  flow->policy = 1;
  flow->up.progress = 5u << 11;
  flow->up.ops = 4;
  flow->down.progress = (2u << 11) + 100;  // into its third unit, which was drawn for
  flow->down.ops = 3;
  CHECK(open_flow(image.segment, opening_of(2), &fresh) == nullptr);

  flow->state = static_cast<u8>(FlowState::Idle);
  fold_flow(image.segment, flow);
  fold_flow(image.segment, flow);  // counts nothing twice
  REQUIRE(open_flow(image.segment, opening_of(2), &fresh) == flow);
  CHECK(fresh);
  CHECK(find_flow(image.segment, 1) == nullptr);
  CHECK(flow->up.ops == 0);
  CHECK(flow->policy == -1);
  const Stats& stats = image.segment.stats[1];
  CHECK(stats.folded_units[0] == 5);
  CHECK(stats.folded_units[1] == 3);
  CHECK(stats.folded_ops[0] == 4);
  CHECK(stats.folded_ops[1] == 3);
  CHECK(image.header()->folded_ops == 7);
  CHECK(image.header()->flows_opened == 2);
}

TEST_CASE("threads that open the same flow at the same moment share one slot") {
  constexpr u64 kFlows = 3000;
  constexpr u32 kThreads = 3;
  Image image({1, 64, 64, 64, 8192, 64, 1, 1});
  std::atomic<u64> arrived{0};
  std::atomic<u32> different{0};
  std::vector<std::atomic<Flow*>> first(kFlows + 1);
  std::vector<std::thread> threads;
  for (u32 t = 0; t < kThreads; t++)
    threads.emplace_back([&] {
      for (u64 cookie = 1; cookie <= kFlows; cookie++) {
        arrived++;
        while (arrived.load() < cookie * kThreads) std::this_thread::yield();
        bool fresh;
        Flow* flow = open_flow(image.segment, opening_of(cookie), &fresh);
        Flow* expected = nullptr;
        if (!first[cookie].compare_exchange_strong(expected, flow)) different += expected != flow;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(different == 0);
  CHECK(image.header()->flows_opened == kFlows);
  CHECK(image.fallbacks(Fallback::TableFull) == 0);
}

TEST_CASE("slots whose process died while it filled them are passed by") {
  Image image;
  bool fresh;
  for (u32 i = 0; i < 64; i += 2) {
    image.segment.flows[i].claim = 1;
    if (i % 4) image.segment.flows[i].cookie = ~u64{0};
  }
  u32 opened = 0;
  for (u64 cookie = 1; cookie <= 10; cookie++)
    opened += open_flow(image.segment, opening_of(cookie), &fresh) != nullptr;
  CHECK(opened == 10);
}

TEST_CASE("an owner is found by its cookie; a full window gives up its oldest") {
  Image image;
  for (u64 cookie = 1; cookie <= 65; cookie++) {
    Owner owner = {};
    owner.cookie = cookie;
    owner.pid = static_cast<i32>(cookie);
    owner.created_ns = cookie;
    publish_owner(image.segment, owner);
    REQUIRE(find_owner(image.segment, cookie) != nullptr);
    CHECK(find_owner(image.segment, cookie)->pid == static_cast<i32>(cookie));
  }
  Owner again = {};
  again.cookie = 65;
  again.pid = 99;
  publish_owner(image.segment, again);
  CHECK(find_owner(image.segment, 65)->pid == 99);
}

TEST_CASE("a process is known by pid and start time, and its slot serves another once it is gone") {
  Image image;
  const std::string program(100, 'x');
  Process* process = register_process(image.segment, 10, 77, "0.1", (program + "/end").c_str(), 5);
  REQUIRE(process != nullptr);
  CHECK(std::string(process->program) == std::string(59, 'x') + "/end");
  CHECK(find_process(image.segment, 10, 77) == process);
  CHECK(find_process(image.segment, 10, 78) == nullptr);  // the number, reused
  CHECK(register_process(image.segment, 10, 77, "0.1", "other", 6) == process);
  process->state = static_cast<u32>(ProcessState::Gone);
  CHECK(register_process(image.segment, 10, 78, "0.2", "next", 7) == process);
}

TEST_CASE("what a flow accounts for goes to its process when its row goes to another, where the kernel watches") {
  for (const bool watched : {false, true}) {
    Image image;
    if (watched) image.header()->flags |= kHeaderKernel;
    REQUIRE(publish_row(image.segment, 1, {}, nullptr, 0));
    Process* process = register_process(image.segment, 10, 77, "0", "p", 5);
    bool fresh;
    constexpr u64 kOpened = 300;  // far more than there are rows
    for (u64 cookie = 1; cookie <= kOpened; cookie++) {
      FlowOpening opening = opening_of(cookie);
      opening.pid = 10;
      Flow* flow = open_flow(image.segment, opening, &fresh);
      REQUIRE(flow != nullptr);
      flow->policy = 1;
      flow->up.called = 100;
      flow->down.called = 1000;
      account(image.segment, flow, Direction::Uplink, Account::Dropped, 7);
      account(image.segment, flow, Direction::Uplink, Account::Duplicated, 2);
      account(image.segment, flow, Direction::Downlink, Account::Injected, 3);
      flow->state = static_cast<u8>(FlowState::Idle);
    }
    u64 rows = 0, called[2] = {};
    i64 adjusted[2] = {};
    for (u32 i = 0; i < image.segment.count.flows; i++) {
      Flow* flow = &image.segment.flows[i];
      rows += flow->cookie != 0;
      for (u32 d = 0; d < kDirections; d++) {
        called[d] += side_of(flow, static_cast<Direction>(d))->called;
        adjusted[d] += side_of(flow, static_cast<Direction>(d))->adjusted;
      }
    }
    const u64 gone = watched ? kOpened - rows : 0;
    CHECK(process->folded_flows == gone);
    CHECK(process->folded_called[0] == gone * 100);
    CHECK(process->folded_called[1] == gone * 1000);
    CHECK(process->folded_adjusted[0] == -5 * static_cast<i64>(gone));
    CHECK(process->folded_adjusted[1] == 3 * static_cast<i64>(gone));
    CHECK(called[0] == rows * 100);
    CHECK(adjusted[0] == -5 * static_cast<i64>(rows));
    const u64* accounts = image.segment.stats[1].accounts;
    CHECK(accounts[static_cast<u32>(Account::Dropped) * kDirections] == kOpened * 7);
    CHECK(accounts[static_cast<u32>(Account::Injected) * kDirections + 1] == kOpened * 3);
    process->state = static_cast<u32>(ProcessState::Gone);
    register_process(image.segment, 10, 78, "0", "next", 7);
    CHECK(process->folded_flows == 0);  // another process's
  }
}

TEST_CASE("a thread's binding wins over its process's, and that over the project's") {
  Image image;
  for (u32 policy : {0u, 1u}) REQUIRE(publish_row(image.segment, policy, {}, nullptr, 0));
  const u64 process = process_key(getpid(), 5), other = process_key(getpid(), 6);
  image.header()->default_policy = 0;
  CHECK(bound_policy(image.segment, {process, 6}) == 0);
  REQUIRE(bind(image.segment, {process, 0}, 1));
  CHECK(bound_policy(image.segment, {process, 6}) == 1);
  CHECK(bound_policy(image.segment, {other, 6}) == 0);  // the same pid at another time
  REQUIRE(bind(image.segment, {process, 6}, -1));
  CHECK(bound_policy(image.segment, {process, 6}) == -1);
  CHECK(bound_policy(image.segment, {process, 7}) == 1);
  REQUIRE(bind(image.segment, {process, 6}, kUnbound));
  CHECK(bound_policy(image.segment, {process, 6}) == 1);
  CHECK((image.header()->flags & kHeaderThreads) != 0);
}

TEST_CASE("bindings that ended, and those of processes that died, make room; a full table is counted") {
  Image image({2, 4, 64, 64, 64, 64, 1, 1});
  REQUIRE(publish_row(image.segment, 0, {}, nullptr, 0));
  const u64 process = process_key(getpid(), 1);
  for (i32 tid : {1, 2, 3, 4}) REQUIRE(bind(image.segment, {process, tid}, 0));
  CHECK_FALSE(bind(image.segment, {process, 5}, 0));
  CHECK(image.fallbacks(Fallback::TableFull) == 1);
  REQUIRE(bind(image.segment, {process, 2}, kUnbound));
  CHECK(bind(image.segment, {process, 5}, 0));
  CHECK(bound_policy(image.segment, {process, 5}) == 0);

  Image left({2, 1, 64, 64, 64, 64, 1, 1});
  REQUIRE(publish_row(left.segment, 0, {}, nullptr, 0));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  REQUIRE(bind(left.segment, {process_key(child, 1), 1}, 0));
  CHECK(bind(left.segment, {process, 1}, 0));
}

TEST_CASE("threads that bind at once each get what they asked for") {
  Image image({2, 256, 64, 64, 64, 64, 1, 1});
  REQUIRE(publish_row(image.segment, 0, {}, nullptr, 0));
  REQUIRE(publish_row(image.segment, 1, {}, nullptr, 0));
  const u64 process = process_key(getpid(), 1);
  std::vector<std::thread> threads;
  std::atomic<u32> wrong{0};
  for (i32 tid = 1; tid <= 4; tid++)
    threads.emplace_back([&, tid] {
      for (i32 i = 0; i < 2000; i++) {
        const i32 policy = i % 3 - 1;
        if (!bind(image.segment, {process, tid}, policy) || bound_policy(image.segment, {process, tid}) != policy) wrong++;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a slot is held by one process, given back, and then held again with what its last policy did counted apart") {
  Image image({3, 64, 64, 64, 64, 64, 48, 1});
  const u64 here = process_key(getpid(), 1), other = process_key(getppid(), 1);
  CHECK(claim_policy(image.segment, here, 1) == 1);
  image.segment.rows[1].holder = here;
  CHECK(claim_policy(image.segment, other, 1) == 0);
  CHECK(claim_policy(image.segment, other, 0) == -1);  // the last slot is nobody's

  Row row = {};
  row.holder = here;
  row.faults = bit(Fault::Latency);
  REQUIRE(publish_row(image.segment, 1, row, nullptr, 0));
  record_time(image.segment, 1, Fault::Latency, Direction::Uplink, 5000, 4000);
  bool fresh;
  Flow* flow = open_flow(image.segment, opening_of(7), &fresh);
  flow->policy = 1;
  flow->up.ops = 3;
  release_policy(image.segment, 1, other);  // not theirs to give
  CHECK(image.segment.rows[1].holder == here);
  release_policy(image.segment, 1, here);
  CHECK_FALSE(in_use(image.segment, 1));
  CHECK(image.segment.stats[1].applied[0] == 1);  // kept for evidence

  CHECK(claim_policy(image.segment, other, 0) == 1);
  CHECK(image.segment.stats[1].applied[0] == 0);
  CHECK(histogram_of(image.segment, 1, Fault::Latency, Direction::Uplink)->count == 0);
  const Stats& earlier = image.segment.stats[2];
  CHECK(earlier.applied[0] == 1);
  CHECK(earlier.folded_ops[0] == 3);
  CHECK(flow->policy == -1);
  const Histogram* times = histogram_of(image.segment, 2, Fault::Latency, Direction::Uplink);
  REQUIRE(times);
  CHECK(times->count == 1);
  CHECK(times->sum_ns == 5000);
  CHECK(times->buckets[histogram_bucket(5000)] == 1);
}

TEST_CASE("a process that died holds nothing") {
  Image image;
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  CHECK(claim_policy(image.segment, process_key(child, 1), 0) == 0);
  Row row = {};
  row.holder = process_key(child, 1);
  REQUIRE(publish_row(image.segment, 0, row, nullptr, 0));
  CHECK(claim_policy(image.segment, process_key(getpid(), 1), 0) == 0);
}

TEST_CASE("a socket bound by name is found by whoever opens its flow, and an open flow follows at once") {
  Image image;
  const Caller owner = {process_key(getpid(), 1), 9};
  bind_socket(image.segment, 70, 5, 1, owner, 1);
  const Owner* row = find_owner(image.segment, 70);
  REQUIRE(row);
  CHECK(row->bound_policy == 1);
  CHECK(row->tid == 9);
  bool fresh;
  Flow* flow = open_flow(image.segment, opening_of(70), &fresh);
  const u32 generation = image.header()->generation;
  bind_socket(image.segment, 70, 5, -1, {0, 0}, 2);
  CHECK(flow->bound_policy == -1);
  CHECK(flow->owner_tid == 0);
  CHECK(image.header()->generation == generation + 1);
}

TEST_CASE("in a full table, processes that were killed make room for new ones") {
  Image image({1, 64, 1, 64, 64, 64, 1, 1});
  const pid_t child = fork();
  if (child == 0) pause();
  CHECK(register_process(image.segment, child, 1, "0.1", "program", 0) != nullptr);
  CHECK(register_process(image.segment, getpid(), 1, "0", "program", 0) == nullptr);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  Process* process = register_process(image.segment, getpid(), 1, "0", "program", 0);
  REQUIRE(process != nullptr);
  CHECK(process->pid == getpid());
}
