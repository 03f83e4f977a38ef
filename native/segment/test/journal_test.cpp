// The journal: many writers, one reader; a full ring drops and says so.
#include <doctest/doctest.h>

#include <atomic>
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
        event.value = i ^ w;
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
      wrong += event.key > 3 || event.unit <= last[event.key & 3] || event.value != (event.unit ^ event.key);
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
