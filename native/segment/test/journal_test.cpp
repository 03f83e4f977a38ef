// The journal: many writers, one reader; a full ring drops and says so, and where it is recorded its writers wait first.
#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "image.h"

using namespace mishap;

TEST_CASE("events come out once and in order") {
  Image image;
  Event event = {};
  u32 patience = 0;
  CHECK_FALSE(pop_event(image.segment, &event, &patience));
  for (u64 round = 0; round < 5; round++) {
    for (u64 i = 0; i < 50; i++) {
      Event pushed = {};
      pushed.key = round * 50 + i;
      REQUIRE(push_event(image.segment, pushed));
    }
    for (u64 i = 0; i < 50; i++) {
      REQUIRE(pop_event(image.segment, &event, &patience));
      CHECK(event.key == round * 50 + i);
    }
    CHECK_FALSE(pop_event(image.segment, &event, &patience));
  }
  CHECK(image.header()->journal_dropped == 0);
}

TEST_CASE("a full ring drops and counts, and goes on once there is room") {
  Image image;
  Event event = {};
  u32 patience = 0;
  for (u64 i = 0; i < 64; i++) CHECK(push_event(image.segment, event));
  for (u64 i = 0; i < 10; i++) CHECK_FALSE(push_event(image.segment, event));
  CHECK(image.header()->journal_dropped == 10);
  CHECK(pop_event(image.segment, &event, &patience));
  CHECK(push_event(image.segment, event));
}

TEST_CASE("a writer that died before publishing its slot is skipped in the end, and counted") {
  Image image;
  Event event = {};
  event.key = 1;
  image.header()->journal_head = 1;  // position 0 was taken and never filled
  REQUIRE(push_event(image.segment, event));
  u32 patience = 0, looks = 0;
  while (!pop_event(image.segment, &event, &patience)) REQUIRE(++looks < 200);
  CHECK(looks == 100);
  CHECK(event.key == 1);
  CHECK(image.header()->journal_dropped == 1);
}

TEST_CASE("four writers and a reader lose nothing but what was counted, and keep each writer's order") {
  Image image;
  constexpr u64 kEach = 20000;
  std::atomic<u32> running{4};
  std::vector<std::thread> writers;
  for (u64 w = 0; w < 4; w++)
    writers.emplace_back([&, w] {
      for (u64 i = 1; i <= kEach; i++) {
        Event event = {};
        event.key = w;
        event.unit = i;
        event.value = static_cast<i64>(i ^ w);
        push_event(image.segment, event);
      }
      running--;
    });
  u64 read = 0, last[4] = {}, wrong = 0;
  u32 patience = 0;
  for (;;) {
    const bool finished = running.load() == 0;
    Event event;
    if (pop_event(image.segment, &event, &patience)) {
      read++;
      wrong += event.key > 3 || event.unit <= last[event.key & 3] || static_cast<u64>(event.value) != (event.unit ^ event.key);
      last[event.key & 3] = event.unit;
    } else if (finished) {
      break;
    } else {
      patience = 0;  // slow, not dead: this test may run under a sanitizer
      std::this_thread::yield();
    }
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(wrong == 0);
  CHECK(read + image.header()->journal_dropped == 4 * kEach);
  CHECK(read > 0);
}

namespace {

constexpr u64 kLongNs = 60'000'000'000;

// A ring that is recorded, by an owner that lives.
struct Recorded : Image {
  Recorded() {
    header()->flags = kHeaderJournal | kHeaderRecord;
    header()->owner_lock[0] = 1;
    header()->lease_expiry_ns = ~u64{0};
    header()->state = static_cast<u32>(State::Active);
  }
  void fill() {
    for (u32 i = 0; i < segment.count.events; i++) REQUIRE(push_event(segment, {}));
  }
};

}  // namespace

TEST_CASE("writers of a recorded ring wait for the reader, however slow, and lose nothing") {
  Recorded image;
  constexpr u64 kEach = 2000;
  std::atomic<u32> running{4};
  std::vector<std::thread> writers;
  for (u64 w = 0; w < 4; w++)
    writers.emplace_back([&, w] {
      for (u64 i = 0; i < kEach; i++) {
        Event event = {};
        event.key = w;
        event.unit = i;
        u64 patience_ns = kLongNs;
        push_event(image.segment, event, &patience_ns);
      }
      running--;
    });
  u64 read = 0, next[4] = {}, wrong = 0;
  for (bool finished = false; !finished;) {
    finished = running.load() == 0;
    u32 patience = 0;
    for (Event event; pop_event(image.segment, &event, &patience); read++) {
      wrong += event.key > 3 || event.unit != next[event.key & 3]++;
      finished = false;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // the ring of 64 is full most of the time
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(wrong == 0);
  CHECK(read == 4 * kEach);
  CHECK(image.header()->journal_dropped == 0);
}

TEST_CASE("a reader that is stuck is waited for once; then writers drop at once until it moves") {
  Recorded image;
  image.fill();
  u64 patience_ns = 20'000'000;
  CHECK_FALSE(push_event(image.segment, {}, &patience_ns));
  CHECK(patience_ns == 0);
  u64 untouched = kLongNs;
  CHECK_FALSE(push_event(image.segment, {}, &untouched));
  CHECK(untouched == kLongNs);
  CHECK(image.header()->journal_dropped == 2);

  Event event;
  u32 looks = 0;
  REQUIRE(pop_event(image.segment, &event, &looks));
  CHECK(push_event(image.segment, {}));
  u64 again = 20'000'000;
  CHECK_FALSE(push_event(image.segment, {}, &again));  // full once more, behind a reader that had moved: waited for
  CHECK(again == 0);
}

TEST_CASE("nobody waits for room when faults are not in force, nor once they end") {
  u64 patience_ns = kLongNs;
  Recorded dead;
  dead.fill();
  dead.header()->owner_lock[0] = 0;
  CHECK_FALSE(push_event(dead.segment, {}, &patience_ns));

  Recorded lapsed;
  lapsed.fill();
  lapsed.header()->lease_expiry_ns = 1;
  CHECK_FALSE(push_event(lapsed.segment, {}, &patience_ns));
  CHECK(patience_ns > kLongNs / 2);

  Recorded stopped;
  stopped.fill();
  std::thread stop([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    store(&stopped.header()->state, static_cast<u32>(State::Retired));
    syscall(SYS_futex, &stopped.header()->state, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0);
  });
  CHECK_FALSE(push_event(stopped.segment, {}, &patience_ns));
  stop.join();
  CHECK(patience_ns > kLongNs / 2);
  CHECK(stopped.header()->journal_dropped == 1);
  CHECK(stopped.header()->journal_stalled == 0);
}

TEST_CASE("an event says when it happened; the ring does where its writer did not") {
  Image image;
  Event early = {}, late = {};
  early.at_ns = 7;
  REQUIRE(push_event(image.segment, early));
  REQUIRE(push_event(image.segment, late));
  u32 patience = 0;
  REQUIRE(pop_event(image.segment, &early, &patience));
  REQUIRE(pop_event(image.segment, &late, &patience));
  CHECK(early.at_ns == 7);
  CHECK(late.at_ns > 7);
}
