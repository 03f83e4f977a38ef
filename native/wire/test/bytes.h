// Packets for the tests, put together byte by byte, and copies that end where their heap block ends, so that
// AddressSanitizer sees a read of one byte too many.
#pragma once

#include <string.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "contract/types.h"

namespace mishap::wire {

using Bytes = std::vector<u8>;

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes text(const std::string& s) { return Bytes(s.begin(), s.end()); }
inline Bytes big_endian(u32 value, u32 bytes) {
  Bytes out;
  while (bytes-- > 0) out.push_back(static_cast<u8>(value >> (8 * bytes)));
  return out;
}
// A vector as TLS writes it: the length in so many bytes, then the content.
inline Bytes with_length(u32 bytes, const Bytes& content) {
  return big_endian(static_cast<u32>(content.size()), bytes) + content;
}

struct Exact {
  std::unique_ptr<u8[]> data;
  size_t size;
  explicit Exact(const Bytes& bytes, size_t keep = SIZE_MAX)
      : data(new u8[keep < bytes.size() ? keep : bytes.size()]), size(keep < bytes.size() ? keep : bytes.size()) {
    if (size > 0) memcpy(data.get(), bytes.data(), size);
  }
};

}  // namespace mishap::wire
