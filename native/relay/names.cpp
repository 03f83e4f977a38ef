// Names of addresses; see names.h.
#include "names.h"

#include <string.h>

namespace mishap::relay {
namespace {

constexpr size_t kMostNames = 65536;  // then all are forgotten: an address is soon asked for again

std::array<u8, 16> key_of(const u8 address[16]) {
  std::array<u8, 16> key;
  memcpy(key.data(), address, key.size());
  return key;
}

}  // namespace

void Names::learn(const u8 address[16], const char* host) {
  if (names_.size() >= kMostNames) names_.clear();
  names_[key_of(address)] = host;
}

const char* Names::of(const u8 address[16]) const {
  const auto found = names_.find(key_of(address));
  return found == names_.end() ? "" : found->second.c_str();
}

}  // namespace mishap::relay
