// Decided runs: what one world drew, told by its journal, happens again in another that draws nothing, however the second cuts
// its calls, whatever its clock says, and with any entry left out nothing else changes.
#include <algorithm>
#include <map>

#include "world.h"

namespace mishap::engine::test {
namespace {

// Of an event what repeats, without what hangs on calls and clocks.
using Told = std::tuple<u8, u64, u8, u8, u8, u8, i64>;
Told told(const Event& e) { return {e.op, e.unit, e.direction, e.stage, e.verdict, e.fault, e.value}; }

bool ends(const Event& e) { return e.fault == static_cast<u8>(Fault::SessionBudget) || e.fault == static_cast<u8>(Fault::HalfOpen); }

// Events as entries: each end of a conversation once, where it was first met.
std::vector<Decided> entries_of(const std::vector<Event>& events) {
  std::vector<Decided> entries;
  std::set<u8> ended;
  for (const Event& e : events) {
    if (ends(e) && !ended.insert(e.op).second) continue;
    Decided d = {};
    d.key = e.key;
    d.unit = e.unit;
    d.value = e.value;
    d.offset = static_cast<u16>(e.offset);
    d.op = e.op;
    d.direction = e.direction;
    d.stage = e.stage;
    d.verdict = e.verdict;
    d.fault = e.fault;
    entries.push_back(d);
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Decided& a, const Decided& b) { return std::tie(a.key, a.op, a.unit) < std::tie(b.key, b.op, b.unit); });
  return entries;
}

struct DecidedWorld : World {
  explicit DecidedWorld(const std::vector<Decided>& entries) : World(1 << 14, static_cast<u32>(std::max<size_t>(entries.size(), 1))) {
    segment.header->flags = kHeaderJournal | kHeaderDecided;
    Decided nobodys = {};
    nobodys.key = ~u64{0};
    Decided* to = const_cast<Decided*>(segment.decided);
    if (entries.empty()) to[0] = nobodys;
    else std::copy(entries.begin(), entries.end(), to);
  }
};

// A dialogue of a stream: connect, then `turns` of a request and an answer, in calls of at most `chunk` bytes.
void converse(const World& world, Flow* flow, u32 turns, u64 chunk, u64 now_ns) {
  carry(world, flow, OpKind::Connect, 1, now_ns);
  for (u32 turn = 0; turn < turns; turn++)
    for (OpKind kind : {OpKind::Send, OpKind::Recv})
      for (u64 left = 700 + 1500 * (turn % 4); left;) {
        const u64 bytes = std::min(left, chunk);
        carry(world, flow, kind, bytes, now_ns += kMillisecond);
        left -= bytes;
      }
}

std::vector<Told> sorted(const std::vector<Event>& events, bool with_ends = true) {
  std::vector<Told> all;
  for (const Event& e : events)
    if (with_ends || !ends(e)) all.push_back(told(e));
  std::sort(all.begin(), all.end());
  return all;
}

Row stormy(u64 seed) {
  Row row = row_of({Fault::Latency, Fault::Jitter, Fault::PacketLoss, Fault::BurstLoss, Fault::CorrelatedLoss, Fault::ConnectionError, Fault::PacketReorder, Fault::PacketDuplicate}, seed);
  row.up.latency_ns = 3 * kMillisecond;
  row.down.latency_ns = 2 * kMillisecond;
  for (RowDirection* line : {&row.up, &row.down}) {
    line->jitter_ns = 4 * kMillisecond;
    line->loss_ppm = 100000;
    line->burst_length = 3;
  }
  row.p_good_to_bad_ppm = 50000;
  row.p_bad_to_good_ppm = 300000;
  row.loss_bad_ppm = 500000;
  row.error_kind = static_cast<u8>(ErrorKind::Reset);
  row.error_ppm = 20000;
  row.reorder_ppm = 50000;
  row.reorder_window = 2;
  row.duplicate_ppm = 50000;
  row.duplicate_max_extra = 3;
  return row;
}

}  // namespace

TEST_CASE("what was drawn happens again, however calls are cut, whenever they come") {
  for (u64 seed = 1; seed <= 20; seed++)
    for (LossMode mode : {LossMode::Retransmit, LossMode::Drop}) {
      CAPTURE(seed);
      Row row = stormy(seed);
      row.loss_mode = static_cast<u8>(mode);
      World drawn;
      drawn.publish(row);
      converse(drawn, drawn.open(), 40, 100000, kNow);
      const std::vector<Event> events = drawn.journal();
      REQUIRE(events.size() > 50);

      row.seed = 0;
      for (u64 chunk : {u64{100000}, u64{1448}, u64{333}}) {
        DecidedWorld again(entries_of(events));
        again.publish(row);
        converse(again, again.open(), 40, chunk, kNow + chunk * kSecond);
        CHECK(sorted(again.journal()) == sorted(events));
      }
    }
}

TEST_CASE("with an entry left out nothing else changes") {
  Row row = stormy(7);
  World drawn;
  drawn.publish(row);
  converse(drawn, drawn.open(), 20, 100000, kNow);
  const std::vector<Event> events = drawn.journal();
  const std::vector<Decided> entries = entries_of(events);
  for (size_t without = 0; without < entries.size(); without++) {
    std::vector<Decided> fewer = entries;
    fewer.erase(fewer.begin() + static_cast<long>(without));
    DecidedWorld again(fewer);
    again.publish(row);
    converse(again, again.open(), 20, 100000, kNow);
    CHECK(again.journal().size() == events.size() - 1);
  }
}

TEST_CASE("nothing decided is nothing done, whatever the policy asks for") {
  DecidedWorld world({});
  Row row = stormy(3);
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = kSecond;
  world.publish(row);
  converse(world, world.open(), 20, 1448, kNow);
  CHECK(world.journal().empty());
}

TEST_CASE("a schedule keeps the rate away, and no decision") {
  Row row = row_of({Fault::Latency, Fault::Rate});
  row.up.latency_ns = kMillisecond;
  row.up.rate_bps = 8000;
  World drawn;
  drawn.publish(row);
  carry(drawn, drawn.open(), OpKind::Send, 500);
  row.schedule_kind = static_cast<u8>(ScheduleKind::Flapping);
  row.schedule_first_ns = row.schedule_second_ns = kSecond;
  DecidedWorld again(entries_of(drawn.journal()));
  again.publish(row);
  for (bool on : {true, false}) {
    Call call;
    must_begin(&call, again, again.open({.key = mix(1)}), OpKind::Send, kNow + (on ? 0 : kSecond + 1));
    Step step = next_step(&call, 500);
    book_rate(&call, &step);
    CHECK(part(step.decision, Part::Latency) == static_cast<i64>(kMillisecond));
    CHECK((part(step.decision, Part::Rate) > 0) == on);
    finish(&call);
  }
}

TEST_CASE("a conversation ends where it ended, to the byte, and stays ended") {
  Row row = row_of({Fault::SessionBudget});
  row.budget_max_tx = 4000;
  row.budget_max_duration_ns = 0;
  World drawn;
  drawn.publish(row);
  Flow* first = drawn.open();
  for (u32 i = 0; i < 10; i++) carry(drawn, first, OpKind::Send, 900);
  const std::vector<Decided> entries = entries_of(drawn.journal());
  REQUIRE(entries.size() == 1);

  row.budget_max_tx = 1;  // not asked any more
  DecidedWorld again(entries);
  again.publish(row);
  Flow* flow = again.open();
  u64 passed = 0, dropped = 0;
  for (u32 i = 0; i < 30; i++)
    for (const Step& step : carry(again, flow, OpKind::Send, 300)) (step.decision.outcome == Verdict::Drop ? dropped : passed) += step.bytes;
  CHECK(passed == 4000);
  CHECK(dropped == 5000);
}

TEST_CASE("a conversation that time ended ends at the same byte, and a receive learns of it before anything arrives") {
  Row row = row_of({Fault::SessionBudget});
  row.budget_max_duration_ns = 5 * kSecond;
  row.budget_action = static_cast<u8>(BudgetAction::ConnectionError);
  World drawn;
  drawn.publish(row);
  Flow* first = drawn.open();
  for (u64 i = 0; i < 8; i++) carry(drawn, first, OpKind::Recv, 1000, kNow + i * kSecond);
  const std::vector<Decided> entries = entries_of(drawn.journal());
  REQUIRE(entries.size() == 1);

  DecidedWorld again(entries);
  again.publish(row);
  Flow* flow = again.open();
  for (u64 i = 0; i < 5; i++) {
    CHECK_FALSE(may_be_over(again.segment, flow, kNow + 100 * kSecond));
    for (const Step& step : carry(again, flow, OpKind::Recv, 1000, kNow + i)) CHECK(step.decision.outcome == Verdict::Continue);
  }
  CHECK(may_be_over(again.segment, flow, kNow));
  CHECK(decide(again, flow, OpKind::Recv, 1000, kNow).decision.outcome == Verdict::Error);
}

TEST_CASE("lost SYNs are lost as often again, and one that never came through never does") {
  Row row = row_of({Fault::PacketLoss}, 5);
  row.up.loss_ppm = 700000;
  for (u64 key = 1; key < 200; key++) {
    World drawn;
    drawn.publish(row);
    const FlowKind kind = {.key = key};
    const Step was = carry(drawn, drawn.open(kind), OpKind::Connect)[0];
    Row other = row;
    other.seed = 99;
    DecidedWorld again(entries_of(drawn.journal()));
    again.publish(other);
    const Step is = carry(again, again.open(kind), OpKind::Connect)[0];
    CHECK(is.decision.outcome == was.decision.outcome);
    CHECK(is.decision.timeout_ns == was.decision.timeout_ns);
    CHECK(part(is.decision, Part::Loss) == part(was.decision, Part::Loss));
  }
}

TEST_CASE("mutations happen to the same calls") {
  Row row = row_of({Fault::PayloadMutation}, 11);
  row.mutation_type = static_cast<u8>(MutationType::CorruptBytes);
  row.mutation_ppm = 300000;
  World drawn;
  drawn.publish(row);
  auto mutated = [&](World& world) {
    Flow* flow = world.open();
    std::set<u64> calls;
    for (u64 i = 0; i < 200; i++) {
      Call call;
      must_begin(&call, world, flow, OpKind::Send);
      const Step step = next_step(&call, 50);
      if (const Mutation plan = plan_mutation(call, 50); plan.type != MutationType::None) {
        commit_mutation(&call, plan);
        calls.insert(i);
      }
      commit(&call, step, 50);
      finish(&call);
    }
    return calls;
  };
  const std::set<u64> first = mutated(drawn);
  CHECK(first.size() > 30);
  row.seed = 12;
  DecidedWorld again(entries_of(drawn.journal()));
  again.publish(row);
  CHECK(mutated(again) == first);
}

}  // namespace mishap::engine::test
