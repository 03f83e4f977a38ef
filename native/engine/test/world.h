// A project in memory for the engine's tests: a segment without a file behind it, policies published as rows, flows
// opened by hand, and calls carried out without a socket. Tests set the row's fields directly and say the time.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <initializer_list>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "engine/stages.h"

namespace mishap::engine::test {

constexpr u64 kMicrosecond = 1000, kMillisecond = 1000000, kSecond = 1000000000;
constexpr u64 kNow = 1000 * kSecond;  // when calls happen unless a test says otherwise; schedules start here too

// A row that asks for these faults, with a seed. What they amount to, the test fills in.
inline Row row_of(std::initializer_list<Fault> faults, u64 seed = 1) {
  Row row = {};
  row.seed = seed;
  for (Fault fault : faults) row.faults |= bit(fault);
  return row;
}

struct FlowKind {
  Role role = Role::Connector;
  Protocol protocol = Protocol::Tcp;
  i32 policy = 0;
  u64 key = 0;  // 0: one of its own, the same in every run
};
inline constexpr FlowKind kStream = {};
inline constexpr FlowKind kAccepted = {.role = Role::Acceptor};
inline constexpr FlowKind kDatagram = {.role = Role::Datagram, .protocol = Protocol::Udp};
inline constexpr FlowKind kResolver = {.role = Role::Resolver, .protocol = Protocol::Dns};

class World {
 public:
  explicit World(u32 events = 1 << 14, u32 decided = 1) {
    Capacities capacities = {
        .policies = 4, .bindings = 16, .processes = 16, .owners = 16, .flows = 256, .events = events, .histograms = 4 * kTimedFaults * kDirections, .decided = decided};
    u64 size = segment_size(capacities);
    memory_ = static_cast<u8*>(aligned_alloc(64, size));
    memset(memory_, 0, size);
    format(memory_, size, capacities);
    REQUIRE(check(memory_, size, &segment) == AttachError::None);
    segment.header->flags = kHeaderJournal;
    segment.header->epoch_ns = kNow;
    segment.header->default_policy = 0;
    // Threads keep copies of rows by address and sequence. A process maps one segment in its life; the tests make many,
    // at the same addresses, so each starts its sequences where no other has been.
    static u32 worlds = 0;
    first_sequence_ = ++worlds << 12;
  }
  ~World() { free(memory_); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void publish(const Row& row, const std::vector<Target>& rules = {}, u32 policy = 0) {
    if (segment.rows[policy].seq == 0) segment.rows[policy].seq = first_sequence_;
    Row published = row;
    published.target_count = static_cast<u32>(rules.size());
    REQUIRE(publish_row(segment, policy, published, rules.data(), published.target_count));
  }

  Flow* open(FlowKind kind = kStream) {
    FlowOpening opening = {};
    opening.cookie = ++cookies_;
    opening.key = kind.key ? kind.key : mix(opening.cookie);
    opening.role = kind.role;
    opening.protocol = kind.protocol;
    opening.bound_policy = -1;
    bool fresh = false;
    Flow* flow = open_flow(segment, opening, &fresh);
    REQUIRE(fresh);
    flow->policy = kind.policy;
    return flow;
  }

  // What the journal holds, in order; it is empty afterwards.
  std::vector<Event> journal() {
    std::vector<Event> events;
    Event event;
    u32 patience = 0;
    while (pop_event(segment, &event, &patience)) events.push_back(event);
    return events;
  }

  u64 verdicts(Stage stage, Verdict verdict, i32 policy = 0) const {
    return segment.stats[policy].verdicts[static_cast<u32>(stage) * kVerdicts + static_cast<u32>(verdict)];
  }
  u64 applied(Fault fault, Direction direction, i32 policy = 0) const {
    return segment.stats[policy].applied[static_cast<u32>(fault) * kDirections + static_cast<u32>(direction)];
  }

  Segment segment;

 private:
  u8* memory_ = nullptr;
  u64 cookies_ = 0;
  u32 first_sequence_ = 0;
};

constexpr Direction way(OpKind kind) { return kind == OpKind::Recv ? Direction::Downlink : Direction::Uplink; }

// Begins a call that a policy must hold for. Tests make calls by the million, so only a failure goes through doctest.
inline void must_begin(Call* call, const World& world, Flow* flow, OpKind kind, u64 now_ns = kNow) {
  if (begin(call, world.segment, flow, kind, way(kind), now_ns) != Begun::Ready) FAIL("no policy holds for this call");
}

// What the engine decides for the first step of a call that is then not made.
inline Step decide(const World& world, Flow* flow, OpKind kind, u64 bytes = 1, u64 now_ns = kNow) {
  Call call;
  must_begin(&call, world, flow, kind, now_ns);
  Step step = next_step(&call, bytes);
  finish(&call);
  return step;
}

// A call carried out whole: every step is committed, terminal ones too, as a program does that goes on regardless.
inline std::vector<Step> carry(const World& world, Flow* flow, OpKind kind, u64 bytes = 1, u64 now_ns = kNow) {
  Call call;
  must_begin(&call, world, flow, kind, now_ns);
  std::vector<Step> steps;
  do {
    Step step = next_step(&call, bytes);
    commit(&call, step, step.bytes);
    bytes -= step.bytes;
    steps.push_back(step);
  } while (bytes);
  finish(&call);
  return steps;
}

inline i64 part(const Decision& decision, Part part) { return decision.part_ns[static_cast<u32>(part)]; }
inline u64 unit_number(const FlowDirection& side) { return side.progress >> 11; }

// How far a count may lie from its expectation. Seeds are fixed: what passes once passes always.
constexpr double kSigmas = 4.5;
inline void check_binomial(u64 hits, u64 draws, double probability) {
  double n = static_cast<double>(draws);
  double deviation = (static_cast<double>(hits) - n * probability) / std::sqrt(n * probability * (1 - probability));
  INFO(hits << " of " << draws << ", expected " << n * probability);
  CHECK(std::abs(deviation) <= kSigmas);
}

}  // namespace mishap::engine::test
