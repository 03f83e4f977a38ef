// Takes the place of native/engine/engine.cpp in a build that is meant to lie: every delay is said to have been twice what
// was measured. With MISHAP_TEST_WAIT_HALF, which waits half of what was decided, evidence then says what was asked.
#define delivered delivered_truly
#include "engine/engine.cpp"
#undef delivered

namespace mishap::engine {

void delivered(const Call& call, const Decision& decision, u64 measured_ns) { delivered_truly(call, decision, 2 * measured_ns); }

}  // namespace mishap::engine
