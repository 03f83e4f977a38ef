// Counters and histograms; and being in force.
#include <doctest/doctest.h>
#include <linux/futex.h>

#include <thread>
#include <vector>

#include "contract/names.h"
#include "image.h"

using namespace mishap;

TEST_CASE("histogram buckets rise, hold what falls into them, and are at most 0.4 % wide") {
  for (u32 bucket = 0; bucket + 1 < kHistogramBuckets; bucket++) {
    const u64 floor = histogram_floor_ns(bucket), end = histogram_floor_ns(bucket + 1);
    REQUIRE(floor < end);
    REQUIRE(histogram_bucket(floor) == bucket);
    REQUIRE(histogram_bucket(end - 1) == bucket);
    if (bucket >= 1u << kHistogramSubBits) REQUIRE((end - floor) * 1000 <= floor * 4);
  }
  CHECK(histogram_bucket(~u64{0}) == kHistogramBuckets - 1);
}

TEST_CASE("samples from several threads are all counted, with their minimum and maximum") {
  Image image;
  std::vector<std::thread> threads;
  for (u64 t = 0; t < 4; t++)
    threads.emplace_back([&, t] {
      for (u64 i = 0; i < 5000; i++)
        record_time(image.segment, 1, Fault::Jitter, Direction::Downlink, 1000 + t * 5000 + i, 7);
    });
  for (std::thread& thread : threads) thread.join();
  const Histogram* histogram = histogram_of(image.segment, 1, Fault::Jitter, Direction::Downlink);
  REQUIRE(histogram != nullptr);
  CHECK(histogram->count == 20000);
  CHECK(histogram->min_ns == 1001);
  CHECK(histogram->max_ns == 20999);
  CHECK(histogram->asked_sum_ns == 140000);
  CHECK(histogram->sum_ns == (u64{1000} + 20999) * 20000 / 2);
  u64 in_buckets = 0;
  for (u32 bucket : histogram->buckets) in_buckets += bucket;
  CHECK(in_buckets == 20000);
  CHECK(image.segment.stats[1].applied[static_cast<u32>(Fault::Jitter) * kDirections + 1] == 20000);
}

TEST_CASE("counters of a policy that does not exist go nowhere") {
  Image image;
  for (i32 policy : {-1, 2}) {
    count_verdict(image.segment, policy, Stage::Timing, Verdict::Delay);
    record_time(image.segment, policy, Fault::Latency, Direction::Uplink, 1, 1);
    CHECK(stats_of(image.segment, policy) == nullptr);
    CHECK(link_of(image.segment, policy, Direction::Uplink) == nullptr);
  }
  CHECK(histogram_of(image.segment, 0, Fault::ConnectionError, Direction::Uplink) == nullptr);  // takes no time
  CHECK(histogram_of(image.segment, 0, Fault::Latency, Direction::Uplink) == nullptr);          // none was filed
  count_verdict(image.segment, 1, Stage::PostRouting, Verdict::Skipped);
  CHECK(image.segment.stats[1].verdicts[static_cast<u32>(Stage::PostRouting) * kVerdicts + static_cast<u32>(Verdict::Skipped)] == 1);
}

TEST_CASE("in force means active, the owner's lock held by the living, and the lease renewed") {
  Image image;
  Header* header = image.header();
  u32* lock = reinterpret_cast<u32*>(header->owner_lock);
  header->lease_expiry_ns = 100;
  CHECK_FALSE(in_force(image.segment));  // paused, and nobody holds it
  *lock = 1234;
  CHECK_FALSE(in_force(image.segment));
  header->state = static_cast<u32>(State::Active);
  CHECK(in_force(image.segment));
  CHECK(lease_holds(image.segment, 99));
  CHECK_FALSE(lease_holds(image.segment, 100));
  *lock = 1234 | FUTEX_WAITERS;
  CHECK(in_force(image.segment));
  *lock = FUTEX_OWNER_DIED;
  CHECK_FALSE(in_force(image.segment));
  *lock = 1234;
  for (State state : {State::Paused, State::Retired}) {
    header->state = static_cast<u32>(state);
    CHECK_FALSE(in_force(image.segment));
  }
}

TEST_CASE("every enum's names are in order and without gaps") {
  for (const EnumNames& names : kEnums) {
    CAPTURE(names.name);
    for (u32 i = 0; i < names.count; i++) CHECK(names.values[i].value == names.values[0].value + i);
  }
}
