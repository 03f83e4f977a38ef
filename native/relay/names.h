// What addresses were called, from the answers to look-ups that the relay carries, so that targets can speak of hosts.
#pragma once

#include <array>
#include <map>
#include <string>

#include "contract/types.h"

namespace mishap::relay {

class Names {
 public:
  // `address` as IPv6 or mapped IPv4.
  void learn(const u8 address[16], const char* host);
  // Empty: nobody asked for it by name. Valid until the next learn().
  const char* of(const u8 address[16]) const;

 private:
  using Address = std::array<u8, 16>;
  std::map<Address, std::string> names_;
};

}  // namespace mishap::relay
