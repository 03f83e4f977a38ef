// DNS messages as they cross the wire (RFC 1035, section 4): which name a program asks for, which addresses an
// answer gives it, and how to tell it that the name does not exist.
//
// This folder reads bytes of strangers inside any process: no allocation, no libc but memcpy and memcmp, every
// loop bounded, every length checked. It knows nothing of sockets, policies or the segment.
#pragma once

#include "contract/types.h"

namespace mishap::wire {

constexpr size_t kNameCapacity = 256;  // 255 bytes on the wire are at most 253 of dotted text
constexpr u32 kMaxAddresses = 16;

constexpr u16 kDnsTypeA = 1;
constexpr u16 kDnsTypeAaaa = 28;

struct Query {
  u16 id;
  u16 qtype;
  size_t end;                // offset just past the question
  char name[kNameCapacity];  // lower case, no trailing dot; empty for the root
};

struct Response {
  u16 id;
  u16 qtype;
  u8 rcode;
  u32 address_count;
  u8 addresses[kMaxAddresses][16];  // IPv6 or IPv4-mapped, in the order of the answer
  char name[kNameCapacity];         // as asked, lower case, no trailing dot
};

// A standard query with one question of class IN. Names that dotted text cannot hold (a dot or a NUL inside a
// label) are not accepted.
bool parse_query(const u8* data, size_t size, Query* out);

// The answer to such a query. Every address of the answer section counts for the name asked: resolvers put the
// CNAME chain in front of them. Addresses past kMaxAddresses are left out.
bool parse_response(const u8* data, size_t size, Response* out);

// Writes an NXDOMAIN answer to a query, or in place of a response: the same id and question, byte for byte,
// nothing else. `out` may be the message itself. Returns the bytes written, 0 when it cannot.
size_t make_nxdomain(const u8* message, size_t size, u8* out, size_t capacity);

// DNS over TCP puts two bytes of length before each message (RFC 1035, 4.2.2). Returns the size of the first
// message, which then lies at data + 2, or 0 while it is not complete.
size_t tcp_message_size(const u8* data, size_t size);

}  // namespace mishap::wire
