// What leaves a delay line, when, and in which order.
#include <doctest/doctest.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "link/line.h"

using namespace mishap;
using namespace mishap::link;

namespace {

constexpr u64 kPlenty = 1 << 20;

Parcel parcel_due(u64 due_ns, u64 sent_ns = 1) {
  Parcel parcel = {};
  parcel.magic = kParcelMagic;
  parcel.sent_ns = sent_ns;
  parcel.due_ns = due_ns;
  return parcel;
}

bool push(DelayLine* line, const Parcel& parcel, const std::string& text, u64 sender = 1) {
  return line->push(parcel, reinterpret_cast<const u8*>(text.data()), static_cast<u32>(text.size()), sender);
}

std::string text_of(const Unit* unit) { return {reinterpret_cast<const char*>(unit->data), unit->bytes}; }

// Everything, in the order it leaves.
std::string drain(DelayLine* line) {
  std::string all;
  u64 last_due_ns = 0;
  while (const Unit* unit = line->head()) {
    CHECK(unit->parcel.due_ns >= last_due_ns);
    last_due_ns = unit->parcel.due_ns;
    all += text_of(unit);
    while (!line->left(unit->bytes)) all += text_of(unit);
    line->drop_head();
  }
  return all;
}

}  // namespace

TEST_CASE("a stream leaves in the order it came, however its delays vary") {
  Budget budget = {kPlenty};
  DelayLine line(true, &budget);
  CHECK(line.empty());
  CHECK(line.head() == nullptr);
  CHECK(line.next_due_ns() == 0);
  for (auto [text, due_ns] : {std::pair{"a", u64{50}}, {"b", u64{40}}, {"c", u64{70}}, {"d", u64{70}}, {"e", u64{10}}})
    REQUIRE(push(&line, parcel_due(due_ns), text));
  CHECK(line.bytes() == 5);
  CHECK(line.next_due_ns() == 50);
  CHECK(drain(&line) == "abcde");
  CHECK(line.bytes() == 0);
  CHECK(budget.used_bytes == 0);
}

TEST_CASE("a shutdown without a time of its own stays behind the stream's bytes") {
  Budget budget = {kPlenty};
  DelayLine line(true, &budget);
  REQUIRE(push(&line, parcel_due(50, 7), "bytes"));
  Parcel shutdown = parcel_due(0, 0);
  shutdown.kind = ParcelKind::Shutdown;
  REQUIRE(push(&line, shutdown, ""));
  CHECK(line.head()->parcel.kind == ParcelKind::Data);
  CHECK(line.left(5));
  line.drop_head();
  CHECK(line.head()->parcel.kind == ParcelKind::Shutdown);
  CHECK(line.next_due_ns() == 50);
}

TEST_CASE("senders that share a stream leave in the order they sent, also when the later one is read first") {
  Budget budget = {kPlenty};
  DelayLine line(true, &budget);
  REQUIRE(push(&line, parcel_due(60, 20), "second", 2));
  REQUIRE(push(&line, parcel_due(50, 10), "first ", 1));
  CHECK(drain(&line) == "first second");
  REQUIRE(push(&line, parcel_due(60, 20), "second", 2));
  REQUIRE(push(&line, parcel_due(60, 10), "first ", 1));
  CHECK(drain(&line) == "first second");
}

TEST_CASE("datagrams overtake when they are due earlier; equal ones keep their order") {
  Budget budget = {kPlenty};
  DelayLine line(false, &budget);
  for (auto [text, due_ns] : {std::pair{"a", u64{50}}, {"b", u64{40}}, {"c", u64{50}}, {"d", u64{45}}, {"e", u64{50}}})
    REQUIRE(push(&line, parcel_due(due_ns, 100 - due_ns), text));
  CHECK(drain(&line) == "bdace");
}

TEST_CASE("thousands of datagrams leave sorted by due time") {
  Budget budget = {u64{1} << 30};
  DelayLine line(false, &budget);
  std::mt19937_64 random(1);
  std::vector<std::pair<u64, u32>> expected;
  for (u32 i = 0; i < 5000; i++) {
    u64 due_ns = 1 + random() % 500;
    REQUIRE(line.push(parcel_due(due_ns), reinterpret_cast<const u8*>(&i), sizeof(i), 1));
    expected.emplace_back(due_ns, i);
  }
  std::sort(expected.begin(), expected.end());
  for (auto [due_ns, number] : expected) {
    u32 found;
    memcpy(&found, line.head()->data, sizeof(found));
    REQUIRE(line.next_due_ns() == due_ns);
    REQUIRE(found == number);
    REQUIRE(line.left(sizeof(found)));
    line.drop_head();
  }
  CHECK(line.empty());
}

TEST_CASE("what began to leave ends before anything else, even what turns out to be due earlier") {
  Budget budget = {kPlenty};
  DelayLine line(true, &budget);
  REQUIRE(push(&line, parcel_due(60, 20), "half and half", 2));
  CHECK_FALSE(line.left(4));
  REQUIRE(push(&line, parcel_due(50, 10), "early", 1));
  CHECK(line.head()->gone == 4);
  CHECK(line.next_due_ns() == 60);
  CHECK(line.bytes() == 18);
  CHECK(line.left(9));
  line.drop_head();
  CHECK(text_of(line.head()) == "early");
}

TEST_CASE("copies leave with their original") {
  Budget budget = {kPlenty};
  DelayLine line(false, &budget);
  Parcel twice = parcel_due(10);
  twice.copies = 2;
  REQUIRE(push(&line, twice, "x"));
  REQUIRE(push(&line, parcel_due(11), "y"));
  CHECK(drain(&line) == "xxxy");
}

TEST_CASE("what has not left is known to the byte, its copies included") {
  Budget budget = {kPlenty};
  DelayLine line(false, &budget);
  Parcel twice = parcel_due(10), connect = parcel_due(30);
  twice.copies = 1;
  connect.kind = ParcelKind::Connect;
  REQUIRE(push(&line, twice, "abcd"));
  REQUIRE(push(&line, parcel_due(20), "xyz"));
  REQUIRE(push(&line, connect, "-"));  // its byte is nobody's
  CHECK(line.unsent_bytes() == 4 + 4 + 3);
  CHECK_FALSE(line.left(3));
  CHECK(line.unsent_bytes() == 1 + 4 + 3);
  CHECK_FALSE(line.left(1));
  CHECK(line.unsent_bytes() == 4 + 3);
  CHECK(line.left(4));
  line.drop_head();
  CHECK(line.unsent_bytes() == 3);
  line.clear();
  CHECK(line.unsent_bytes() == 0);
}

TEST_CASE("lines hold together what their budget allows, and room comes back") {
  Budget budget = {2 * DelayLine::cost(100)};
  DelayLine one(true, &budget);
  std::string text(100, 'x');
  {
    DelayLine other(false, &budget);
    CHECK(push(&one, parcel_due(10), text));
    CHECK(push(&other, parcel_due(10), text));
    CHECK_FALSE(push(&other, parcel_due(10), ""));
    CHECK_FALSE(push(&one, parcel_due(10), text));
    CHECK(one.bytes() == 100);
  }
  CHECK(push(&one, parcel_due(10), text));
  CHECK(drain(&one) == text + text);
  CHECK(budget.used_bytes == 0);
}TEST_CASE("bytes in a block of an outbox are not copied, and the block is free again when they have left") {
  auto outbox = std::make_shared<Outbox>();
  Budget budget{1 << 20};
  DelayLine line(true, &budget);
  const u32 block = take_block(outbox.get()), next = take_block(outbox.get());
  CHECK(block == 1);
  CHECK(next == 2);
  Parcel parcel = parcel_due(50);
  parcel.block = block;
  REQUIRE(line.push(parcel, outbox->blocks[block - 1], kParcelBytes, 1, outbox));
  CHECK(line.head()->data == outbox->blocks[block - 1]);
  CHECK(line.bytes() == kParcelBytes);
  CHECK(budget.used_bytes < kParcelBytes);
  CHECK(!line.left(100));
  CHECK(take_block(outbox.get()) == 3);
  REQUIRE(line.left(kParcelBytes - 100));
  line.drop_head();
  CHECK(take_block(outbox.get()) == block);
  CHECK(budget.used_bytes == 0);
  CHECK(outbox.use_count() == 1);
  for (u32 i = 3; i < kBlocks; i++) REQUIRE(take_block(outbox.get()) == i + 1);
  CHECK(take_block(outbox.get()) == 0);
}


