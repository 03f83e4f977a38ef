// Letter case as DNS knows it (RFC 4343): ASCII only, whatever the program's locale says.
#pragma once

namespace mishap::wire {

constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace mishap::wire
