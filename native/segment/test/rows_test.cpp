// Rows are published under a sequence lock: whole, or not at all.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "image.h"

using namespace mishap;

namespace {

// A row and a rule all of whose parts say the same number.
Row row_of(u64 number) {
  Row row = {};
  row.faults = static_cast<u32>(number);
  row.seed = number;
  row.up.latency_ns = number;
  row.down.rate_bps = number;
  row.mutation_max_buffer = number;
  row.target_count = 1;
  return row;
}
Target rule_of(u64 number) {
  Target rule = {};
  rule.priority = static_cast<u32>(number);
  rule.name[200] = static_cast<char>(number & 127);
  return rule;
}

}  // namespace

TEST_CASE("a row reads back as it was published, with its rules") {
  Image image;
  Row row = row_of(7), read;
  Target rule = rule_of(7), read_rule;
  CHECK_FALSE(read_row(image.segment, 1, &read));
  const u32 generation = image.header()->generation;
  REQUIRE(publish_row(image.segment, 1, row, &rule, 1));
  REQUIRE(read_row(image.segment, 1, &read));
  row.seq = read.seq;
  CHECK(memcmp(&row, &read, sizeof(row)) == 0);
  CHECK(read.seq % 2 == 0);
  CHECK(read_target(image.segment, 1, 0, read.seq, &read_rule));
  CHECK(read_rule.priority == 7);
  CHECK(image.header()->generation == generation + 1);

  REQUIRE(publish_row(image.segment, 1, row_of(8), &rule, 1));
  CHECK_FALSE(read_target(image.segment, 1, 0, read.seq, &read_rule));  // those were the former row's
}

TEST_CASE("an index outside the segment reads nothing and is counted") {
  Image image;
  Row row;
  for (i32 policy : {-1, 2, 1000000}) CHECK_FALSE(read_row(image.segment, policy, &row));
  CHECK(image.fallbacks(Fallback::BadIndex) == 3);
  CHECK_FALSE(publish_row(image.segment, 2, row_of(1), nullptr, 0));
  CHECK_FALSE(publish_row(image.segment, 0, row_of(1), nullptr, kTargetsPerPolicy + 1));
}

TEST_CASE("lengths inside a row are not believed") {
  Image image;
  Row read;
  for (int field = 0; field < 4; field++) {
    Row row = row_of(1);
    if (field == 0) row.inject_length = 65;
    if (field == 1) row.find_length = 33;
    if (field == 2) row.replace_length = 33;
    if (field == 3) row.target_count = kTargetsPerPolicy + 1;
    REQUIRE(publish_row(image.segment, 0, row, nullptr, 0));
    CHECK_FALSE(read_row(image.segment, 0, &read));
    CHECK(image.fallbacks(Fallback::BadIndex) == static_cast<u64>(field) + 1);
  }
}

TEST_CASE("a writer that died midway harms nobody, and the next one heals the row") {
  Image image;
  Row read;
  REQUIRE(publish_row(image.segment, 0, row_of(1), nullptr, 0));
  image.segment.rows[0].seq |= 1;
  CHECK_FALSE(read_row(image.segment, 0, &read));
  CHECK(image.fallbacks(Fallback::RowBusy) == 1);
  REQUIRE(publish_row(image.segment, 0, row_of(2), nullptr, 0));
  REQUIRE(read_row(image.segment, 0, &read));
  CHECK(read.seed == 2);
}

TEST_CASE("a reader that races a writer never sees half of one row and half of another") {
  Image image;
  Target first_rule = rule_of(1);
  publish_row(image.segment, 0, row_of(1), &first_rule, 1);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (u64 number = 2; !stop.load(); number++) {
      Target rule = rule_of(number);
      publish_row(image.segment, 0, row_of(number), &rule, 1);
      if (number % 16 == 0) std::this_thread::yield();
    }
  });
  u32 rows = 0, torn = 0, rules = 0, torn_rules = 0;
  for (u32 i = 0; i < 2'000'000 && (rows < 20000 || rules < 1000); i++) {
    Row row;
    if (!read_row(image.segment, 0, &row)) continue;
    rows++;
    const u64 number = row.seed;
    torn += row.up.latency_ns != number || row.down.rate_bps != number || row.mutation_max_buffer != number ||
            row.faults != static_cast<u32>(number);
    Target rule;
    if (!read_target(image.segment, 0, 0, row.seq, &rule)) continue;
    rules++;
    torn_rules += rule.priority != static_cast<u32>(number) || rule.name[200] != static_cast<char>(number & 127);
  }
  stop = true;
  writer.join();
  CHECK(rows > 0);
  CHECK(rules > 0);
  CHECK(torn == 0);
  CHECK(torn_rules == 0);
}
