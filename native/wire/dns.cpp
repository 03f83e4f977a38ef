#include "dns.h"

#include <string.h>

#include "ascii.h"

namespace mishap::wire {

namespace {

constexpr size_t kHeaderSize = 12;
constexpr u16 kClassIn = 1;
constexpr u8 kFlagResponse = 0x80;            // QR, in the third byte
constexpr u8 kOpcodeMask = 0x78;              // 0: a standard query
constexpr u8 kFlagRecursionDesired = 0x01;    // RD
constexpr u8 kFlagRecursionAvailable = 0x80;  // RA, in the fourth byte
constexpr u8 kFlagCheckingDisabled = 0x10;    // CD (RFC 4035)
constexpr u8 kRcodeMask = 0x0f;
constexpr u8 kRcodeNxdomain = 3;

constexpr size_t kMaxNameText = 254;  // 253 and the dot behind the last label
// 127 labels fit a name, and each may be followed by a pointer. Without this bound a large message of
// pointers to pointers would cost the square of its size.
constexpr u32 kMaxNameSteps = 256;

enum class Pointers { Refused, Followed };

u16 read_u16(const u8* at) { return static_cast<u16>(at[0] << 8 | at[1]); }

// Checks the name at `offset` and returns the offset just past it, 0 when it is malformed. `text`, where given,
// receives it as dotted text. A pointer must lead back to before the name it stands in (4.1.4: "a prior
// occurrence"), so no chain of them can loop.
size_t read_name(const u8* data, size_t size, size_t offset, Pointers pointers, char* text) {
  size_t length = 0;       // of the text so far, a dot behind each label
  size_t end = 0;          // past the first pointer, once one was followed
  size_t origin = offset;  // where the part being read began
  for (u32 step = 0; step < kMaxNameSteps; step++) {
    if (offset >= size) return 0;
    u8 head = data[offset++];
    if (head == 0) {
      if (text) text[length > 0 ? length - 1 : 0] = '\0';
      return end ? end : offset;
    }
    if (head >= 0xc0) {
      if (pointers == Pointers::Refused || offset >= size) return 0;
      size_t target = static_cast<size_t>(head & 0x3f) << 8 | data[offset++];
      if (target < kHeaderSize || target >= origin) return 0;
      if (!end) end = offset;
      offset = origin = target;
      continue;
    }
    if (head > 63) return 0;  // 01 and 10 are not label types
#ifndef MISHAP_FUZZ_PLANTED_BUG
    if (head > size - offset) return 0;
#endif
    if (length + head + 1 > kMaxNameText) return 0;
    if (text) {
      for (size_t i = 0; i < head; i++) {
        char c = static_cast<char>(data[offset + i]);
        if (c == '\0' || c == '.') return 0;
        text[length + i] = to_lower(c);
      }
      text[length + head] = '.';
    }
    length += head + 1u;
    offset += head;
  }
  return 0;
}

// Reads the one question of a standard query or of its answer; returns the offset just past it, 0 on failure.
size_t read_question(const u8* data, size_t size, char* text, u16* qtype, u16* qclass) {
  if (size < kHeaderSize) return 0;
  if ((data[2] & kOpcodeMask) != 0 || read_u16(data + 4) != 1) return 0;
  size_t offset = read_name(data, size, kHeaderSize, Pointers::Refused, text);
  if (offset == 0 || size - offset < 4) return 0;
  *qtype = read_u16(data + offset);
  *qclass = read_u16(data + offset + 2);
  return offset + 4;
}

void map_ipv4(const u8* ipv4, u8 out[16]) {
  static constexpr u8 kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  memcpy(out, kMapped, sizeof(kMapped));
  memcpy(out + sizeof(kMapped), ipv4, 4);
}

}  // namespace

bool parse_query(const u8* data, size_t size, Query* out) {
  u16 qclass;
  size_t end = read_question(data, size, out->name, &out->qtype, &qclass);
  if (end == 0 || qclass != kClassIn || (data[2] & kFlagResponse)) return false;
  out->id = read_u16(data);
  out->end = end;
  return true;
}

bool parse_response(const u8* data, size_t size, Response* out) {
  u16 qclass;
  size_t offset = read_question(data, size, out->name, &out->qtype, &qclass);
  if (offset == 0 || qclass != kClassIn || !(data[2] & kFlagResponse)) return false;
  out->id = read_u16(data);
  out->rcode = data[3] & kRcodeMask;
  out->address_count = 0;
  u32 answers = read_u16(data + 6);
  for (u32 i = 0; i < answers && out->address_count < kMaxAddresses; i++) {
    offset = read_name(data, size, offset, Pointers::Followed, nullptr);
    if (offset == 0 || size - offset < 10) return false;  // type, class, TTL, length
    u16 type = read_u16(data + offset);
    u16 klass = read_u16(data + offset + 2);
    u16 length = read_u16(data + offset + 8);
    offset += 10;
    if (length > size - offset) return false;
    u8* address = out->addresses[out->address_count];
    if (klass == kClassIn && type == kDnsTypeA && length == 4) {
      map_ipv4(data + offset, address);
      out->address_count++;
    } else if (klass == kClassIn && type == kDnsTypeAaaa && length == 16) {
      memcpy(address, data + offset, 16);
      out->address_count++;
    }
    offset += length;
  }
  return true;
}

size_t make_nxdomain(const u8* message, size_t size, u8* out, size_t capacity) {
  u16 qtype, qclass;
  size_t end = read_question(message, size, nullptr, &qtype, &qclass);
  if (end == 0 || end > capacity) return 0;
  if (out != message) memcpy(out, message, end);
  out[2] = static_cast<u8>(kFlagResponse | (message[2] & kFlagRecursionDesired));
  out[3] = static_cast<u8>(kFlagRecursionAvailable | (message[3] & kFlagCheckingDisabled) | kRcodeNxdomain);
  for (size_t i = 6; i < kHeaderSize; i++) out[i] = 0;  // answers, authorities, additional records
  return end;
}

size_t tcp_message_size(const u8* data, size_t size) {
  if (size < 2) return 0;
  size_t length = read_u16(data);
  return length <= size - 2 ? length : 0;
}

}  // namespace mishap::wire
