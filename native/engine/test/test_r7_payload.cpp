// R7: which calls are mutated, and what each primitive does to the bytes.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

Row mutation(MutationType type) {
  Row row = row_of({Fault::PayloadMutation});
  row.mutation_type = static_cast<u8>(type);
  row.mutation_ppm = kCertainPpm;
  row.mutation_every_n = 1;
  row.mutation_max_buffer = 64000;
  return row;
}

// Plans for one call and carries it, as an executor does.
Mutation plan(const World& world, Flow* flow, OpKind kind, u64 bytes, u64 now_ns = kNow, bool inside_sender = false) {
  Call call;
  REQUIRE(begin(&call, world.segment, flow, kind, way(kind), now_ns, inside_sender) == Begun::Ready);
  Mutation m = plan_mutation(call, bytes);
  Step step = next_step(&call, bytes);
  commit(&call, step, step.bytes);
  finish(&call);
  return m;
}
bool hit(const Mutation& m) { return m.type != MutationType::None; }

// The bytes after a mutation with this much room. A guard behind the room shows what is written past it.
std::string after(const Mutation& m, const std::string& before, u64 capacity) {
  std::string bytes = before;
  bytes.resize(capacity + 16, '#');
  u64 length = mutate(m, reinterpret_cast<u8*>(bytes.data()), before.size(), capacity);
  REQUIRE(length <= capacity);
  CHECK(bytes.substr(capacity) == std::string(16, '#'));
  return bytes.substr(0, length);
}
std::string after(const Row& row, const std::string& before) {
  World world;
  world.publish(row);
  return after(plan(world, world.open(), OpKind::Send, before.size()), before, before.size() + kMaxGrowth);
}

template <size_t N>
u8 fill(u8 (&to)[N], const std::string& text) {
  REQUIRE(text.size() <= N);
  memcpy(to, text.data(), text.size());
  return static_cast<u8>(text.size());
}

u64 differing(const std::string& a, const std::string& b) {
  u64 n = 0;
  for (size_t i = 0; i < a.size(); i++) n += a[i] != b[i];
  return n;
}

}  // namespace

TEST_CASE("gate: only data, only policies that ask") {
  World world;
  world.publish(mutation(MutationType::Truncate));
  Flow* flow = world.open();
  CHECK(hit(plan(world, flow, OpKind::Send, 10)));
  CHECK(hit(plan(world, flow, OpKind::Recv, 10)));
  CHECK_FALSE(hit(plan(world, flow, OpKind::Connect, 1)));
  CHECK_FALSE(hit(plan(world, world.open(kResolver), OpKind::Dns, 1)));
  Row row = mutation(MutationType::Truncate);
  row.faults = bit(Fault::Latency);
  world.publish(row);
  CHECK_FALSE(hit(plan(world, flow, OpKind::Send, 10)));
}

TEST_CASE("gate: direction") {
  World world;
  Row row = mutation(MutationType::Truncate);
  row.mutation_target = static_cast<u8>(MutationTarget::UplinkOnly);
  world.publish(row);
  Flow* flow = world.open();
  CHECK(hit(plan(world, flow, OpKind::Send, 10)));
  CHECK_FALSE(hit(plan(world, flow, OpKind::Recv, 10)));
  row.mutation_target = static_cast<u8>(MutationTarget::DownlinkOnly);
  world.publish(row);
  CHECK_FALSE(hit(plan(world, flow, OpKind::Send, 10)));
  CHECK(hit(plan(world, flow, OpKind::Recv, 10)));
}

TEST_CASE("gate: a datagram from inside the project is mutated on receipt only when the downlink alone was asked for") {
  World world;
  Row row = mutation(MutationType::Truncate);
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  CHECK_FALSE(hit(plan(world, flow, OpKind::Recv, 10, kNow, true)));
  row.mutation_target = static_cast<u8>(MutationTarget::DownlinkOnly);
  world.publish(row);
  CHECK(hit(plan(world, flow, OpKind::Recv, 10, kNow, true)));
}

TEST_CASE("gate: size, from the least to the most, and no more than a mutation may hold") {
  World world;
  Row row = mutation(MutationType::Truncate);
  row.mutation_min_size = 10;
  row.mutation_max_size = 20;
  world.publish(row);
  Flow* flow = world.open();
  for (u64 bytes : {10, 15, 20}) CHECK(hit(plan(world, flow, OpKind::Send, bytes)));
  for (u64 bytes : {0, 9, 21}) CHECK_FALSE(hit(plan(world, flow, OpKind::Send, bytes)));
  row.mutation_max_size = 0;
  row.mutation_max_buffer = 100;
  world.publish(row);
  CHECK(hit(plan(world, flow, OpKind::Send, 100)));
  CHECK_FALSE(hit(plan(world, flow, OpKind::Send, 101)));
}

TEST_CASE("gate: every n-th call of each direction") {
  World world;
  Row row = mutation(MutationType::Truncate);
  row.mutation_every_n = 3;
  world.publish(row);
  for (FlowKind kind : {kStream, kDatagram}) {
    Flow* flow = world.open(kind);
    for (u64 call = 1; call <= 12; call++) {
      CHECK(hit(plan(world, flow, OpKind::Send, 10)) == (call % 3 == 0));
      if (call % 2) continue;
      CHECK(hit(plan(world, flow, OpKind::Recv, 10)) == (call / 2 % 3 == 0));
    }
  }
}

TEST_CASE("gate: probability, scaled by a ramp") {
  World world;
  Row row = mutation(MutationType::Truncate);
  row.mutation_ppm = 200000;
  world.publish(row);
  Flow* flow = world.open();
  u64 hits = 0;
  for (u64 i = 0; i < 20000; i++) hits += hit(plan(world, flow, OpKind::Send, 10));
  check_binomial(hits, 20000, 0.2);
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  hits = 0;
  for (u64 i = 0; i < 20000; i++) hits += hit(plan(world, flow, OpKind::Send, 10, kNow + 5 * kSecond));
  check_binomial(hits, 20000, 0.1);
}

TEST_CASE("a mutation carried out is counted and journaled with its call") {
  World world;
  world.publish(mutation(MutationType::Truncate));
  Flow* flow = world.open();
  plan(world, flow, OpKind::Send, 10);
  Call call;
  must_begin(&call, world, flow, OpKind::Send);
  commit_mutation(&call, plan_mutation(call, 10));
  CHECK(world.verdicts(Stage::Payload, Verdict::Mutate) == 1);
  auto events = world.journal();
  REQUIRE(events.size() == 1);
  CHECK(events[0].unit == 1);
  CHECK(events[0].stage == static_cast<u8>(Stage::Payload));
  CHECK(events[0].verdict == static_cast<u8>(Verdict::Mutate));
  CHECK(events[0].value == static_cast<i64>(MutationType::Truncate));
}

TEST_CASE("none leaves the bytes, and so does a dry run of anything") {
  CHECK(after(mutation(MutationType::None), "hello") == "hello");
  for (MutationType type : {MutationType::Truncate, MutationType::CorruptBytes, MutationType::InjectBytes,
                            MutationType::ReplacePattern, MutationType::CorruptEncoding, MutationType::SwapBytes}) {
    Row row = mutation(type);
    row.corrupt_count = 3;
    row.swap_second = 1;
    row.inject_length = fill(row.inject_data, "xyz");
    row.find_length = fill(row.replace_find, "l");
    row.replace_length = fill(row.replace_with, "L");
    CHECK(after(row, "hello") != "hello");
    row.mutation_dry_run = 1;
    CHECK(after(row, "hello") == "hello");
    World world;
    world.publish(row);
    Mutation decided = plan(world, world.open(), OpKind::Send, 5);
    CHECK(decided.type == type);
    CHECK(decided.dry_run);
  }
}

TEST_CASE("truncate keeps the first bytes") {
  Row row = mutation(MutationType::Truncate);
  row.truncate_size = 3;
  CHECK(after(row, "hello") == "hel");
  CHECK(after(row, "he") == "he");
  row.truncate_size = 0;
  CHECK(after(row, "hello").empty());
}

TEST_CASE("corrupt_bytes changes so many drawn bytes and nothing else about them") {
  Row row = mutation(MutationType::CorruptBytes);
  const std::string before(10000, 'a');
  row.corrupt_count = 1;
  CHECK(differing(after(row, before), before) == 1);
  for (u32 count : {20, 500}) {  // two may meet at one place
    row.corrupt_count = count;
    u64 changed = differing(after(row, before), before);
    CHECK(changed <= count);
    CHECK(changed >= count * 9 / 10);
  }
  row.corrupt_count = 1000;
  CHECK(after(row, "x").size() == 1);
  CHECK(after(row, "x") != "x");
}

TEST_CASE("corrupt_bytes picks its places evenly, others for each call") {
  World world;
  Row row = mutation(MutationType::CorruptBytes);
  row.corrupt_count = 1;
  world.publish(row);
  Flow* flow = world.open();
  const std::string before(10, 'a');
  u64 places[10] = {};
  for (u64 i = 0; i < 20000; i++) {
    std::string changed = after(plan(world, flow, OpKind::Send, 10), before, 10);
    places[changed.find_first_not_of('a')]++;
  }
  for (u64 count : places) check_binomial(count, 20000, 0.1);
}

TEST_CASE("corruption repeats with the seed; corrupt_seed takes its place") {
  auto corrupted = [](u64 seed, u64 corrupt_seed) {
    Row row = mutation(MutationType::CorruptBytes);
    row.seed = seed;
    row.corrupt_count = 5;
    row.corrupt_seed = corrupt_seed;
    return after(row, std::string(1000, 'a'));
  };
  CHECK(corrupted(1, 0) == corrupted(1, 0));
  CHECK(corrupted(1, 0) != corrupted(2, 0));
  CHECK(corrupted(1, 9) == corrupted(2, 9));
  CHECK(corrupted(1, 9) != corrupted(1, 10));
}

TEST_CASE("inject_bytes puts bytes in at a place, or at the end where the call is shorter") {
  Row row = mutation(MutationType::InjectBytes);
  row.inject_length = fill(row.inject_data, "XYZ");
  CHECK(after(row, "hello") == "XYZhello");
  row.inject_position = 2;
  CHECK(after(row, "hello") == "heXYZllo");
  for (u64 end : {u64{5}, u64{6}, ~u64{0}}) {
    row.inject_position = end;
    CHECK(after(row, "hello") == "helloXYZ");
  }
  row.inject_position = 0;
  row.inject_length = fill(row.inject_data, std::string(kMaxGrowth, 'z'));
  CHECK(after(row, "hello") == std::string(kMaxGrowth, 'z') + "hello");
}

TEST_CASE("where there is no room to grow the end is cut, never more written") {
  World world;
  Row row = mutation(MutationType::InjectBytes);
  row.inject_length = fill(row.inject_data, "XYZ");
  row.inject_position = 2;
  world.publish(row);
  Mutation m = plan(world, world.open(), OpKind::Recv, 5);
  CHECK(after(m, "hello", 8) == "heXYZllo");
  CHECK(after(m, "hello", 7) == "heXYZll");
  CHECK(after(m, "hello", 5) == "heXYZ");
  CHECK(after(m, "he", 4) == "heXY");
  CHECK(after(m, "he", 2) == "he");
  row = mutation(MutationType::ReplacePattern);
  row.find_length = fill(row.replace_find, "l");
  row.replace_length = fill(row.replace_with, "1234");
  world.publish(row);
  m = plan(world, world.open(), OpKind::Recv, 5);
  CHECK(after(m, "hello", 5) == "he123");
  CHECK(after(m, "hello", 7) == "he1234l");
}

TEST_CASE("replace_pattern replaces the first match, longer, shorter or by nothing") {
  Row row = mutation(MutationType::ReplacePattern);
  row.find_length = fill(row.replace_find, "lo");
  row.replace_length = fill(row.replace_with, "LOW");
  CHECK(after(row, "hello, hello") == "helLOW, hello");
  CHECK(after(row, "lo") == "LOW");
  CHECK(after(row, "help") == "help");
  CHECK(after(row, "l") == "l");
  row.replace_length = 0;
  CHECK(after(row, "hello, hello") == "hel, hello");
  row.find_length = fill(row.replace_find, std::string("\0\xff", 2));
  row.replace_length = fill(row.replace_with, "-");
  CHECK(after(row, std::string("a\0\xff" "b", 4)) == "a-b");
  row.find_length = 0;
  CHECK(after(row, "hello") == "hello");
}

TEST_CASE("corrupt_encoding breaks one character at its first byte") {
  World world;
  world.publish(mutation(MutationType::CorruptEncoding));
  Flow* flow = world.open();
  const std::string before = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";  // 1, 2, 3 and 4 bytes: a, e acute, euro, a smile
  std::set<size_t> starts;
  for (int i = 0; i < 1000; i++) {
    std::string changed = after(plan(world, flow, OpKind::Send, before.size()), before, before.size());
    REQUIRE(differing(changed, before) == 1);
    size_t at = changed.find('\xff');
    REQUIRE(at != std::string::npos);
    starts.insert(at);
  }
  CHECK(starts == std::set<size_t>{0, 1, 3, 6});
  CHECK(after(plan(world, flow, OpKind::Send, 1), "\x80", 1) == "\xff");  // not UTF-8 to begin with
}

TEST_CASE("swap_bytes swaps two places where the call has both") {
  Row row = mutation(MutationType::SwapBytes);
  row.swap_first = 1;
  row.swap_second = 4;
  CHECK(after(row, "hello") == "holle");
  CHECK(after(row, "hell") == "hell");
  row.swap_second = ~u64{0};
  CHECK(after(row, "hello") == "hello");
}
