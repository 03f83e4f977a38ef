// What a script answered decides for as long as it stands, and no longer; behind it come the flow's answer and the policy's own
// fields.
#include "world.h"

namespace mishap::engine::test {
namespace {

constexpr u64 kOwnNs = 1 * kMillisecond;

struct Scripted : World {
  explicit Scripted(u8 asks) : rows(kAnswers) {
    // As in World: copies are kept by address and sequence.
    static u32 made = 0;
    first = ++made << 12;
    for (Row& row : rows) row.seq = first;
    segment.answers = rows.data();
    Row own = row_of({Fault::Latency});
    own.up.latency_ns = own.down.latency_ns = kOwnNs;
    own.script_asks = asks;
    publish(own);
  }

  // An answer that delays by so much.
  ScriptAnswer slow(u32 index, u64 latency_ns, Standing standing = Standing::Op, u64 amount = 0) {
    Row row = row_of({Fault::Latency});
    row.up.latency_ns = row.down.latency_ns = latency_ns;
    row.seq = rows[index].seq + 2;
    rows[index] = row;
    ScriptAnswer answer = {};
    answer.row = index;
    answer.generation = row.seq >> 1;
    answer.standing = static_cast<u8>(standing);
    answer.amount = amount;
    return answer;
  }

  bool asks(Flow* flow, OpKind kind, u64 bytes = 100, u64 ahead = 0, u64 now_ns = kNow) {
    return must_ask_about_op(segment, flow, kind, way(kind), ahead, bytes, now_ns);
  }
  void answer(Flow* flow, OpKind kind, const ScriptAnswer& answer, u64 bytes = 100, u64 now_ns = kNow) {
    answer_op(segment, flow, kind, way(kind), bytes, now_ns, answer);
  }
  i64 latency_of(Flow* flow, OpKind kind, u64 now_ns = kNow) { return part(decide(*this, flow, kind, 100, now_ns).decision, Part::Latency); }

  std::vector<Row> rows;
  u32 first;
};

TEST_CASE("a policy without a script asks nobody") {
  Scripted world(0);
  Flow* flow = world.open();
  CHECK_FALSE(must_ask_about_flow(world.segment, flow));
  CHECK_FALSE(world.asks(flow, OpKind::Send));
}

TEST_CASE("a flow is asked about once, and its answer decides for all of it") {
  Scripted world(kAsksFlow);
  Flow* flow = world.open();
  CHECK(must_ask_about_flow(world.segment, flow));
  CHECK(world.latency_of(flow, OpKind::Send) == kOwnNs);
  answer_flow(flow, world.slow(7, 50 * kMillisecond));
  CHECK_FALSE(must_ask_about_flow(world.segment, flow));
  CHECK_FALSE(world.asks(flow, OpKind::Send));
  for (u32 i = 0; i < 3; i++) {
    CHECK(part(carry(world, flow, OpKind::Send, 5000).front().decision, Part::Latency) == 50 * kMillisecond);
    CHECK(part(carry(world, flow, OpKind::Recv, 5000).front().decision, Part::Latency) == 50 * kMillisecond);
  }
  CHECK(wants(world.segment, flow).delays);
  forget_answers(flow);
  CHECK(must_ask_about_flow(world.segment, flow));
}

TEST_CASE("no opinion leaves the policy's own fields, and is not asked for again") {
  Scripted world(kAsksFlow);
  Flow* flow = world.open();
  answer_flow(flow, {});
  CHECK_FALSE(must_ask_about_flow(world.segment, flow));
  CHECK(world.latency_of(flow, OpKind::Send) == kOwnNs);
}

TEST_CASE("a row that was given to another answer is this one's no more") {
  Scripted world(kAsksFlow);
  Flow* flow = world.open();
  answer_flow(flow, world.slow(7, 50 * kMillisecond));
  world.slow(7, 90 * kMillisecond);
  CHECK(world.latency_of(flow, OpKind::Send) == kOwnNs);
  CHECK(must_ask_about_flow(world.segment, flow));
}

TEST_CASE("an answer for an op stands until that op made progress") {
  Scripted world(kAsksOps);
  for (FlowKind kind : {kStream, kDatagram}) {
    Flow* flow = world.open(kind);
    CHECK(world.asks(flow, OpKind::Send));
    world.answer(flow, OpKind::Send, world.slow(7, 50 * kMillisecond));
    CHECK_FALSE(world.asks(flow, OpKind::Send));  // tried in vain, and again
    CHECK(world.latency_of(flow, OpKind::Send) == 50 * kMillisecond);
    CHECK_FALSE(world.asks(flow, OpKind::Send));
    CHECK(world.asks(flow, OpKind::Recv));
    CHECK(part(carry(world, flow, OpKind::Send, 100).front().decision, Part::Latency) == 50 * kMillisecond);
    CHECK(world.asks(flow, OpKind::Send));
    CHECK(world.latency_of(flow, OpKind::Send) == kOwnNs);
  }
}

TEST_CASE("what arrives behind bytes that were not received yet is of the same op") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  CHECK(world.asks(flow, OpKind::Recv, 100));
  world.answer(flow, OpKind::Recv, world.slow(7, 50 * kMillisecond), 100);
  CHECK_FALSE(world.asks(flow, OpKind::Recv, 200, 100));
  carry(world, flow, OpKind::Recv, 100);
  CHECK_FALSE(world.asks(flow, OpKind::Recv, 200));
  carry(world, flow, OpKind::Recv, 150);
  CHECK_FALSE(world.asks(flow, OpKind::Recv, 50));
  carry(world, flow, OpKind::Recv, 50);
  CHECK(world.asks(flow, OpKind::Recv, 100));
}

TEST_CASE("an answer stands for as many units as it says") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  world.answer(flow, OpKind::Send, world.slow(7, 50 * kMillisecond, Standing::Units, 3));
  for (u32 unit = 0; unit < 3; unit++) {
    CHECK_FALSE(world.asks(flow, OpKind::Send));
    carry(world, flow, OpKind::Send, kStreamUnitBytes);
  }
  CHECK(world.asks(flow, OpKind::Send));
}

TEST_CASE("an answer stands for as long as it says") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  world.answer(flow, OpKind::Send, world.slow(7, 50 * kMillisecond, Standing::Time, 20));
  CHECK_FALSE(world.asks(flow, OpKind::Send, 100, 0, kNow + 19 * kMillisecond));
  CHECK(world.latency_of(flow, OpKind::Send, kNow + 19 * kMillisecond) == 50 * kMillisecond);
  CHECK(world.asks(flow, OpKind::Send, 100, 0, kNow + 20 * kMillisecond));
  CHECK(world.latency_of(flow, OpKind::Send, kNow + 20 * kMillisecond) == kOwnNs);
}

TEST_CASE("a connect is answered for itself alone") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  world.answer(flow, OpKind::Connect, world.slow(7, 50 * kMillisecond, Standing::Flow), 1);
  carry(world, flow, OpKind::Connect);
  CHECK(world.asks(flow, OpKind::Send));
}

TEST_CASE("an op's answer comes before its flow's, which comes before the policy's own fields") {
  Scripted world(kAsksFlow | kAsksOps);
  Flow* flow = world.open();
  answer_flow(flow, world.slow(7, 50 * kMillisecond));
  CHECK(world.latency_of(flow, OpKind::Send) == 50 * kMillisecond);
  world.answer(flow, OpKind::Send, world.slow(9, 70 * kMillisecond, Standing::Flow));
  CHECK(world.latency_of(flow, OpKind::Send) == 70 * kMillisecond);
  CHECK(world.latency_of(flow, OpKind::Recv) == 50 * kMillisecond);
  world.answer(flow, OpKind::Send, {});
  CHECK(world.latency_of(flow, OpKind::Send) == 50 * kMillisecond);
}

TEST_CASE("a whole call passes by a standing answer, and asks where there is none") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  carry(world, flow, OpKind::Send, 100);
  Passing passing;
  const auto passes = [&] { return pass_whole(&passing, world.segment, flow, Direction::Uplink, 100, kNow); };
  CHECK_FALSE(passes());
  ScriptAnswer nothing = world.slow(7, 0, Standing::Flow);
  world.answer(flow, OpKind::Send, nothing);
  CHECK(passes());
  passed(passing, 100);
  world.answer(flow, OpKind::Send, world.slow(8, 0));  // for one op: the long way sees to its end
  CHECK_FALSE(passes());
  world.answer(flow, OpKind::Send, world.slow(8, 5 * kMillisecond, Standing::Flow));
  CHECK_FALSE(passes());
}

TEST_CASE("a flow wants anything until it is answered for good") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  CHECK(wants(world.segment, flow).delays);
  world.answer(flow, OpKind::Send, world.slow(7, 0, Standing::Flow));
  CHECK_FALSE(answered_for_good(world.segment, flow));
  CHECK(wants(world.segment, flow).delays);
  world.answer(flow, OpKind::Recv, world.slow(8, 0, Standing::Flow));
  CHECK(answered_for_good(world.segment, flow));
  CHECK_FALSE(wants(world.segment, flow).delays);
  CHECK(wants(world.segment, flow).undated);
  world.answer(flow, OpKind::Recv, world.slow(9, 5 * kMillisecond, Standing::Flow));
  CHECK(wants(world.segment, flow).delays);
}

TEST_CASE("answers hold faults alone: neither a schedule nor a question of their own") {
  Scripted world(kAsksOps);
  Flow* flow = world.open();
  world.answer(flow, OpKind::Send, world.slow(7, 50 * kMillisecond, Standing::Flow));
  world.rows[7].schedule_kind = static_cast<u8>(ScheduleKind::Flapping);
  world.rows[7].schedule_first_ns = 1;
  world.rows[7].schedule_second_ns = ~0ull;
  CHECK(world.latency_of(flow, OpKind::Send, kNow + kSecond) == 50 * kMillisecond);
}

TEST_CASE("a decided run asks nobody") {
  Scripted world(kAsksFlow | kAsksOps);
  world.segment.header->flags |= kHeaderDecided;
  Flow* flow = world.open();
  CHECK_FALSE(must_ask_about_flow(world.segment, flow));
  CHECK_FALSE(world.asks(flow, OpKind::Send));
}

}  // namespace
}  // namespace mishap::engine::test
