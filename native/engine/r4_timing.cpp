// R4 timing variation: jitter, plus or minus around the latency and floored at zero with it. Uniform: +-jitter. Normal: one
// standard deviation, by the Irwin-Hall sum of twelve uniforms (no libm in the preload). Pareto: tc-netem's shape, its
// table's formula (u^(-1/3) - 1.5) * 4/3, capped at 4 as the table is (iproute2, netem/pareto.c).
#include "stages.h"

namespace mishap::engine {
namespace {

double normal(const Unit& unit) {
  u64 sum = 0;
  for (u32 i = 0; i < 3; i++) {
    u64 drawn = unit.drawn(Stage::Timing, i);
    for (u32 k = 0; k < 4; k++) sum += (drawn >> (16 * k)) & 0xffff;
  }
  return (static_cast<double>(sum) + 6.0) / 65536.0 - 6.0;
}

// 1 / cube root of u in (0, 1], by Newton's method on y^-3 = u.
double inverse_cube_root(double u) {
  double y = 1.0;
  while (u * y * y * y < 0.25) y *= 2.0;
  for (u32 i = 0; i < 6; i++) y += y * (1.0 - u * y * y * y) / 3.0;
  return y;
}

double pareto(const Unit& unit) {
  double x = (inverse_cube_root(1.0 - unit_interval(unit.drawn(Stage::Timing))) - 1.5) * (4.0 / 3.0);
  return x < 4.0 ? x : 4.0;
}

}  // namespace

void timing(const Unit& unit, Decision* decision) {
  if (!unit.asked(Fault::Jitter) || unit.line.jitter_ns == 0) return;
  double shape = 0;
  switch (static_cast<JitterDistribution>(unit.row.jitter_distribution)) {
    case JitterDistribution::Uniform: shape = 2.0 * unit_interval(unit.drawn(Stage::Timing)) - 1.0; break;
    case JitterDistribution::Normal: shape = normal(unit); break;
    case JitterDistribution::Pareto: shape = pareto(unit); break;
  }
  i64 jitter = static_cast<i64>(shape * static_cast<double>(unit.scaled(unit.line.jitter_ns)));
  i64 latency = decision->part_ns[static_cast<u32>(Part::Latency)];
  decision->part_ns[static_cast<u32>(Part::Jitter)] = jitter < -latency ? -latency : jitter;
}

}  // namespace mishap::engine
