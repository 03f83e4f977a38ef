// R4: jitter's three shapes, around the latency and never before the send.
#include <algorithm>

#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

constexpr u64 kSamples = 200000;

// Jitter as multiples of what was asked for, one datagram each, far from the floor.
std::vector<double> shape(JitterDistribution distribution, u64 seed = 1) {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter}, seed);
  row.up.latency_ns = kSecond;
  row.up.jitter_ns = 10 * kMillisecond;
  row.jitter_distribution = static_cast<u8>(distribution);
  world.publish(row);
  world.segment.header->flags = 0;
  Flow* flow = world.open(kDatagram);
  std::vector<double> values;
  for (u64 i = 0; i < kSamples; i++)
    values.push_back(static_cast<double>(part(carry(world, flow, OpKind::Send)[0].decision, Part::Jitter)) / 1e7);
  return values;
}

struct Moments {
  double mean = 0, variance = 0, low = 1e9, high = -1e9;
};
Moments moments(const std::vector<double>& values) {
  Moments m;
  for (double v : values) {
    m.mean += v / static_cast<double>(values.size());
    m.low = std::min(m.low, v);
    m.high = std::max(m.high, v);
  }
  for (double v : values) m.variance += (v - m.mean) * (v - m.mean) / static_cast<double>(values.size());
  return m;
}

u64 below(const std::vector<double>& values, double limit) {
  u64 n = 0;
  for (double v : values) n += v < limit;
  return n;
}

const double kRoot = std::sqrt(static_cast<double>(kSamples));

}  // namespace

TEST_CASE("uniform: anything from minus to plus jitter, evenly") {
  auto values = shape(JitterDistribution::Uniform);
  Moments m = moments(values);
  CHECK(m.low >= -1);
  CHECK(m.low < -0.999);
  CHECK(m.high <= 1);
  CHECK(m.high > 0.999);
  CHECK(std::abs(m.mean) <= kSigmas * std::sqrt(1.0 / 3) / kRoot);
  CHECK(m.variance == doctest::Approx(1.0 / 3).epsilon(0.01));
  for (double limit : {-0.5, 0.0, 0.8}) check_binomial(below(values, limit), kSamples, (limit + 1) / 2);
}

TEST_CASE("normal: jitter is one standard deviation") {
  auto values = shape(JitterDistribution::Normal);
  Moments m = moments(values);
  CHECK(std::abs(m.mean) <= kSigmas / kRoot);
  CHECK(std::abs(m.variance - 1) <= kSigmas * std::sqrt(2.0) / kRoot);
  // A sum of twelve uniforms is close to normal, not quite: within half a percent at one, two and three deviations.
  for (double limit : {-2.0, -1.0, 0.0, 1.0, 2.0, 3.0}) {
    double share = static_cast<double>(below(values, limit)) / kSamples;
    CHECK(std::abs(share - 0.5 * std::erfc(-limit / std::sqrt(2.0))) < 0.005);
  }
  CHECK(m.high > 3.5);
  CHECK(m.low < -3.5);
}

TEST_CASE("pareto: tc-netem's table, a short side below and a long one above, cut at four") {
  auto values = shape(JitterDistribution::Pareto);
  Moments m = moments(values);
  CHECK(m.low >= -2.0 / 3 - 1e-6);
  CHECK(m.low < -0.666);
  CHECK(m.high == doctest::Approx(4.0));
  // (u^(-1/3) - 3/2) * 4/3 has mean 0; the cut at 4, where u^(-1/3) is 4.5, takes 4/3 of the tail's 1 / (2 * 4.5^2).
  double mean = -4.0 / 3 / (2 * 4.5 * 4.5);
  CHECK(std::abs(m.mean - mean) <= kSigmas * std::sqrt(m.variance) / kRoot);
  for (double limit : {-0.5, 0.0, 1.0, 3.9})
    check_binomial(below(values, limit), kSamples, 1 - std::pow(limit * 0.75 + 1.5, -3));
}

TEST_CASE("another seed draws another jitter of the same shape") {
  auto one = shape(JitterDistribution::Uniform, 1), two = shape(JitterDistribution::Uniform, 2);
  double product = 0;
  for (u64 i = 0; i < kSamples; i++) product += one[i] * two[i];
  CHECK(std::abs(3 * product / kSamples) <= kSigmas / kRoot);
}

TEST_CASE("jitter never reaches below no delay at all") {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter});
  row.up.latency_ns = kMillisecond;
  row.up.jitter_ns = 10 * kMillisecond;
  world.publish(row);
  world.segment.header->flags = 0;
  Flow* flow = world.open(kDatagram);
  u64 floored = 0;
  for (u64 i = 0; i < 100000; i++) {
    Step step = carry(world, flow, OpKind::Send)[0];
    CHECK(step.decision.delay_ns() >= 0);
    CHECK(step.decision.delay_ns() == part(step.decision, Part::Latency) + part(step.decision, Part::Jitter));
    floored += step.decision.delay_ns() == 0;
  }
  check_binomial(floored, 100000, 0.45);  // from -10 to -1 of -10 to +10
}

TEST_CASE("jitter alone adds its positive half; it holds for connects and in its own direction only") {
  World world;
  Row row = row_of({Fault::Jitter});
  row.up.jitter_ns = kMillisecond;
  world.publish(row);
  Flow* flow = world.open();
  u64 delayed = 0;
  for (u64 i = 0; i < 1000; i++) {
    i64 delay = carry(world, flow, OpKind::Send, kStreamUnitBytes)[0].decision.delay_ns();
    CHECK(delay >= 0);
    CHECK(delay <= static_cast<i64>(kMillisecond));
    delayed += delay > 0;
    CHECK(decide(world, flow, OpKind::Recv).decision.untouched());
  }
  check_binomial(delayed, 1000, 0.5);
  u64 connects = 0;
  for (u64 i = 0; i < 100; i++) connects += decide(world, world.open(), OpKind::Connect).decision.delay_ns() > 0;
  check_binomial(connects, 100, 0.5);
}

TEST_CASE("on a ramp jitter grows with it") {
  World world;
  Row row = row_of({Fault::Latency, Fault::Jitter});
  row.up.latency_ns = kSecond;
  row.up.jitter_ns = 100 * kMillisecond;
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  world.publish(row);
  Flow* flow = world.open(kDatagram);
  for (u64 i = 0; i < 1000; i++) {
    i64 jitter = part(carry(world, flow, OpKind::Send, 1, kNow + kSecond)[0].decision, Part::Jitter);
    CHECK(std::abs(jitter) <= static_cast<i64>(10 * kMillisecond));
  }
}
