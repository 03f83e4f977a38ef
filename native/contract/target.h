// One rule that narrows a policy to some flows. Rules of a policy lie side by side, highest priority first.
#pragma once

#include "fields.h"

namespace mishap {

constexpr u32 kPortRanges = 8;

#define MISHAP_TARGET(FIELD, ARRAY)                                                              \
  ARRAY(u8, address, 16, "IPv6, or IPv4 mapped (::ffff:a.b.c.d)")                                \
  FIELD(u8, prefix_length, "bits of address that must match; 0 any (IPv4 prefixes count from 96)") \
  FIELD(u8, protocol, "Protocol: any, tcp, udp, unix")                                           \
  FIELD(u8, name_kind, "NameKind")                                                               \
  FIELD(u8, port_ranges, "ranges in use; 0 any port")                                            \
  FIELD(u32, priority, "as written; the order in memory decides")                                \
  ARRAY(u16, port_low, 8, "first port of each range")                                            \
  ARRAY(u16, port_high, 8, "last port of each range")                                            \
  ARRAY(char, name, 256, "host, sni or path pattern, NUL-terminated; * matches any run of characters")
MISHAP_STRUCT(Target, 312, "A target rule.", MISHAP_TARGET)

}  // namespace mishap
