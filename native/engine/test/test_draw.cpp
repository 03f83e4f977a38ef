// The draws: what replays rest on (the numbers are fixed), and what probabilities rest on (they look random: right
// rates, no relation between neighbours of any kind).
#include <functional>

#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

using Draws = std::function<u64(u64)>;

// Correlation of two sequences of uniforms; its standard deviation is 1 / sqrt(n) when they have none.
void check_unrelated(const Draws& a, const Draws& b) {
  constexpr u64 n = 100000;
  double sum = 0;
  for (u64 i = 0; i < n; i++) sum += (unit_interval(a(i)) - 0.5) * (unit_interval(b(i)) - 0.5);
  CHECK(std::abs(12 * sum / n) <= kSigmas / std::sqrt(n));
}

}  // namespace

TEST_CASE("the mixing function is SplitMix64's: its published first outputs for seed 0") {
  CHECK(mix(0x9e3779b97f4a7c15ull) == 0xe220a8397b1dcdafull);
  CHECK(mix(2 * 0x9e3779b97f4a7c15ull) == 0x6e789e6aa1b965f4ull);
  CHECK(mix(3 * 0x9e3779b97f4a7c15ull) == 0x06c45d188009454full);
}

TEST_CASE("a draw hangs on every one of its coordinates and on nothing else") {
  auto at = [](u64 seed, u64 flow, OpKind kind, Direction direction, Stage stage, u64 unit, u32 nth) {
    return draw(draw_key(seed, flow, kind, direction), stage, unit, nth);
  };
  u64 here = at(1, 2, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 3, 0);
  CHECK(here == at(1, 2, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 3, 0));
  std::set<u64> around = {
      here,
      at(2, 2, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 3, 0),
      at(1, 3, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 3, 0),
      at(1, 2, OpKind::Recv, Direction::Uplink, Stage::ChaosBase, 3, 0),
      at(1, 2, OpKind::Send, Direction::Downlink, Stage::ChaosBase, 3, 0),
      at(1, 2, OpKind::Send, Direction::Uplink, Stage::Timing, 3, 0),
      at(1, 2, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 4, 0),
      at(1, 2, OpKind::Send, Direction::Uplink, Stage::ChaosBase, 3, 1),
  };
  CHECK(around.size() == 8);
}

TEST_CASE("no two draws of one flow share a number: stages, units and nths do not run into each other") {
  std::set<u64> seen;
  u64 key = draw_key(7, 11, OpKind::Send, Direction::Uplink);
  u64 made = 0;
  for (u32 stage = 0; stage < kStages; stage++)
    for (u64 unit = 0; unit < 100; unit++)
      for (u32 nth = 0; nth < 256; nth++, made++) seen.insert(draw(key, static_cast<Stage>(stage), unit, nth));
  CHECK(seen.size() == made);
}

TEST_CASE("chance is never at 0 ppm and always at 1,000,000") {
  for (u64 drawn : {u64{0}, u64{1}, u64{1} << 32, ~u64{0}}) {
    CHECK_FALSE(chance(drawn, 0));
    CHECK(chance(drawn, kCertainPpm));
  }
  CHECK(chance(0, 1));
  CHECK_FALSE(chance(~u64{0}, kCertainPpm - 1));
}

TEST_CASE("chance hits as often as asked, for five seeds") {
  for (u64 ppm : {10000, 100000, 500}) {
    for (u64 units : {100000, 1000000}) {
      for (u64 seed : {1, 2, 3, 0x7f3a, -1}) {
        CAPTURE(seed);
        u64 key = draw_key(seed, 42, OpKind::Send, Direction::Uplink), hits = 0;
        for (u64 unit = 0; unit < units; unit++) hits += chance(draw(key, Stage::ChaosBase, unit), ppm);
        check_binomial(hits, units, static_cast<double>(ppm) / kCertainPpm);
      }
    }
  }
}

TEST_CASE("every bit of a draw is set half of the time") {
  constexpr u64 n = 100000;
  u64 set[64] = {};
  u64 key = draw_key(3, 4, OpKind::Recv, Direction::Downlink);
  for (u64 unit = 0; unit < n; unit++) {
    u64 drawn = draw(key, Stage::Payload, unit);
    for (u32 b = 0; b < 64; b++) set[b] += (drawn >> b) & 1;
  }
  for (u64 count : set) check_binomial(count, n, 0.5);
}

TEST_CASE("uniforms fill [0, 1) evenly") {
  constexpr u64 n = 256000;
  u64 bins[256] = {};
  u64 key = draw_key(5, 6, OpKind::Send, Direction::Uplink);
  for (u64 unit = 0; unit < n; unit++) {
    double u = unit_interval(draw(key, Stage::Timing, unit));
    bins[static_cast<u32>(u * 256)]++;
  }
  double chi_square = 0, expected = n / 256.0;
  for (u64 count : bins) chi_square += std::pow(static_cast<double>(count) - expected, 2) / expected;
  CHECK(std::abs(chi_square - 255) <= kSigmas * std::sqrt(2.0 * 255));
  CHECK(unit_interval(~u64{0}) < 1.0);
  CHECK(unit_interval(0) == 0.0);
}

TEST_CASE("neighbours tell nothing about each other") {
  u64 key = draw_key(9, 10, OpKind::Send, Direction::Uplink);
  Draws base = [&](u64 i) { return draw(key, Stage::ChaosBase, i); };
  check_unrelated(base, [&](u64 i) { return draw(key, Stage::ChaosBase, i + 1); });
  check_unrelated(base, [&](u64 i) { return draw(key, Stage::ChaosBase, i + 2); });
  check_unrelated(base, [&](u64 i) { return draw(key, Stage::ChaosBase, i, 1); });
  for (Stage stage : {Stage::Timing, Stage::Transport, Stage::Resolver, Stage::Payload, Stage::PostRouting})
    check_unrelated(base, [&](u64 i) { return draw(key, stage, i); });
  u64 back = draw_key(9, 10, OpKind::Recv, Direction::Downlink);
  check_unrelated(base, [&](u64 i) { return draw(back, Stage::ChaosBase, i); });
  // The same unit of flows and of seeds next to each other.
  auto connect_of = [](u64 seed, u64 flow) {
    return draw(draw_key(seed, flow, OpKind::Connect, Direction::Uplink), Stage::Transport, 0);
  };
  auto of_flow = [&](u64 flow) { return connect_of(9, flow); };
  check_unrelated(of_flow, [&](u64 i) { return of_flow(i + 1); });
  auto of_seed = [&](u64 seed) { return connect_of(seed, 10); };
  check_unrelated(of_seed, [&](u64 i) { return of_seed(i + 1); });
}

TEST_CASE("hits come neither in pairs nor apart: two in a row are as likely as chance has it") {
  constexpr u64 n = 1000000;
  u64 key = draw_key(13, 14, OpKind::Send, Direction::Uplink), next_too = 0, stage_too = 0;
  for (u64 unit = 0; unit < n; unit++) {
    bool hit = chance(draw(key, Stage::ChaosBase, unit), 100000);
    next_too += hit && chance(draw(key, Stage::ChaosBase, unit + 1), 100000);
    stage_too += hit && chance(draw(key, Stage::PostRouting, unit), 100000);
  }
  check_binomial(next_too, n, 0.01);
  check_binomial(stage_too, n, 0.01);
}
