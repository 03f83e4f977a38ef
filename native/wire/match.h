// Whether a host name or an address falls under a target rule. Both are called for every new flow and with
// whatever a segment holds, so they are linear in practice, never worse than pattern times name, and
// allocate nothing.
#pragma once

#include "contract/types.h"

namespace mishap::wire {

// `*` stands for any run of characters, dots and nothing at all included. ASCII letters match in either
// case; a trailing dot, which only says that a name is complete, is ignored on both sides.
bool name_matches(const char* pattern, const char* name);

// Addresses are IPv6 or IPv4-mapped. A prefix of 0 bits matches every address; one of more than 128, which
// no rule can ask for, matches none.
bool address_matches(const u8 rule[16], u8 prefix_length, const u8 address[16]);

}  // namespace mishap::wire
