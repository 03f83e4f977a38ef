// DNS messages as resolvers write them, cut off at every byte, and as no honest one would; see dns.h.
#include "wire/dns.h"

#include <doctest/doctest.h>

#include "bytes.h"

using namespace mishap;
using namespace mishap::wire;

namespace {

constexpr u16 kNs = 2, kCname = 5, kTxt = 16;

Bytes header(u16 id, u16 flags, u16 questions, u16 answers, u16 additional = 0) {
  return big_endian(id, 2) + big_endian(flags, 2) + big_endian(questions, 2) + big_endian(answers, 2) +
         big_endian(0, 2) + big_endian(additional, 2);
}
Bytes labels(const std::string& dotted) {
  Bytes out;
  for (size_t at = 0; at < dotted.size();) {
    size_t dot = dotted.find('.', at);
    if (dot == std::string::npos) dot = dotted.size();
    out.push_back(static_cast<u8>(dot - at));
    out = out + text(dotted.substr(at, dot - at));
    at = dot + 1;
  }
  return out + Bytes{0};
}
Bytes pointer(size_t offset) { return big_endian(0xc000u | static_cast<u32>(offset), 2); }
Bytes question(const Bytes& name, u16 type, u16 klass = 1) { return name + big_endian(type, 2) + big_endian(klass, 2); }
Bytes record(const Bytes& name, u16 type, const Bytes& data, u16 klass = 1) {
  return name + big_endian(type, 2) + big_endian(klass, 2) + big_endian(300, 4) + with_length(2, data);
}
// What EDNS adds to a query: root name, type OPT, 1232 bytes of UDP, a cookie.
Bytes edns() {
  return Bytes{0, 0, 41, 4, 0xd0, 0, 0, 0, 0} + with_length(2, big_endian(10, 2) + with_length(2, text("12345678")));
}

// glibc asking for an A record, with EDNS; case mixed as resolvers do against forgery.
Bytes sample_query() {
  return header(0xbeef, 0x0120, 1, 0, 1) + question(labels("wWw.Example.COM"), kDnsTypeA) + edns();
}

// Its answer: two CNAMEs, the second one compressed into the first one's target, then addresses.
Bytes sample_response() {
  Bytes message = header(0xbeef, 0x8180, 1, 5, 1) + question(labels("wWw.Example.COM"), kDnsTypeA);
  size_t edge = message.size() + 2 + 10;  // where the first CNAME's target begins
  message = message + record(pointer(12), kCname, Bytes{4} + text("edge") + pointer(16));
  size_t far = message.size() + 2 + 10;
  message = message + record(pointer(edge), kCname, Bytes{3} + text("far") + pointer(edge));
  message = message + record(pointer(far), kDnsTypeA, {192, 0, 2, 1});
  message = message + record(pointer(far), kDnsTypeAaaa, {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7});
  return message + record(pointer(far), kDnsTypeA, {192, 0, 2, 2}) + edns();
}

bool query_ok(const Bytes& bytes) {
  Exact m(bytes);
  Query q;
  return parse_query(m.data.get(), m.size, &q);
}
bool response_ok(const Bytes& bytes) {
  Exact m(bytes);
  Response r;
  return parse_response(m.data.get(), m.size, &r);
}

// A name of exactly so many bytes of text, in labels of at most 63.
std::string long_name(size_t length) {
  std::string name;
  while (name.size() < length) name += name.size() % 64 == 63 ? '.' : 'x';
  return name;
}

}  // namespace

TEST_CASE("a query gives id, name, type and where the question ends") {
  Exact m(sample_query());
  Query q;
  REQUIRE(parse_query(m.data.get(), m.size, &q));
  CHECK(q.id == 0xbeef);
  CHECK(std::string(q.name) == "www.example.com");
  CHECK(q.qtype == kDnsTypeA);
  CHECK(q.end == 12 + 17 + 4);
}

TEST_CASE("a query for the root has an empty name") {
  Exact m(header(1, 0, 1, 0) + question(labels(""), kNs));
  Query q;
  REQUIRE(parse_query(m.data.get(), m.size, &q));
  CHECK(std::string(q.name).empty());
  CHECK(q.end == 17);
}

TEST_CASE("only standard queries with one question of class IN are queries") {
  Bytes name = labels("example.com");
  CHECK(query_ok(header(1, 0x0100, 1, 0) + question(name, kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0x8100, 1, 0) + question(name, kDnsTypeA)));  // a response
  CHECK_FALSE(query_ok(header(1, 0x2800, 1, 0) + question(name, kDnsTypeA)));  // UPDATE (RFC 2136)
  CHECK_FALSE(query_ok(header(1, 0x0100, 0, 0)));
  CHECK_FALSE(query_ok(header(1, 0x0100, 2, 0) + question(name, kDnsTypeA) + question(name, kDnsTypeAaaa)));
  CHECK_FALSE(query_ok(header(1, 0x0100, 1, 0) + question(name, kTxt, 3)));  // class CH, as in version.bind
}

TEST_CASE("names are 253 bytes at most, labels 63") {
  for (size_t length : {1u, 63u, 65u, 252u, 253u}) {
    Exact m(header(1, 0, 1, 0) + question(labels(long_name(length)), kDnsTypeA));
    Query q;
    REQUIRE(parse_query(m.data.get(), m.size, &q));
    CHECK(std::string(q.name) == long_name(length));
  }
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(labels(long_name(254)), kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(labels(long_name(400)), kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(labels(std::string(64, 'x')), kDnsTypeA)));
  std::string many = "a";
  while (many.size() < 253) many += ".a";  // 127 labels
  CHECK(query_ok(header(1, 0, 1, 0) + question(labels(many), kDnsTypeA)));
}

TEST_CASE("a name that dotted text cannot hold is refused") {
  CHECK(query_ok(header(1, 0, 1, 0) + question(Bytes{3, 'a', 'b', 'c', 0}, kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(Bytes{3, 'a', '.', 'c', 0}, kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(Bytes{3, 'a', 0, 'c', 0}, kDnsTypeA)));
}

TEST_CASE("a response gives the name asked and every address behind the CNAME chain") {
  Exact m(sample_response());
  Response r;
  REQUIRE(parse_response(m.data.get(), m.size, &r));
  CHECK(r.id == 0xbeef);
  CHECK(r.rcode == 0);
  CHECK(r.qtype == kDnsTypeA);
  CHECK(std::string(r.name) == "www.example.com");
  REQUIRE(r.address_count == 3);
  const u8 first[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};
  const u8 second[16] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7};
  const u8 third[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 2};
  CHECK(memcmp(r.addresses[0], first, 16) == 0);
  CHECK(memcmp(r.addresses[1], second, 16) == 0);
  CHECK(memcmp(r.addresses[2], third, 16) == 0);
}

TEST_CASE("sixteen addresses are kept, further ones left out") {
  Bytes message = header(1, 0x8180, 1, 40) + question(labels("many.example"), kDnsTypeA);
  for (u8 i = 0; i < 40; i++) message = message + record(pointer(12), kDnsTypeA, {10, 0, 0, i});
  Exact m(message);
  Response r;
  REQUIRE(parse_response(m.data.get(), m.size, &r));
  CHECK(r.address_count == kMaxAddresses);
  CHECK(r.addresses[15][15] == 15);
}

TEST_CASE("records of other types, classes and lengths are stepped over") {
  Exact m(header(1, 0x8180, 1, 5) + question(labels("a.example"), kDnsTypeA) + record(pointer(12), kTxt, text("1234")) +
          record(pointer(12), kDnsTypeA, {1, 2, 3, 4}, 3) + record(pointer(12), kDnsTypeA, {1, 2, 3}) +
          record(pointer(12), kDnsTypeAaaa, {1, 2, 3, 4}) + record(pointer(12), kDnsTypeA, {9, 9, 9, 9}));
  Response r;
  REQUIRE(parse_response(m.data.get(), m.size, &r));
  REQUIRE(r.address_count == 1);
  CHECK(r.addresses[0][15] == 9);
}

TEST_CASE("an NXDOMAIN response has its code and no address") {
  Exact m(header(7, 0x8183, 1, 0) + question(labels("nowhere.example"), kDnsTypeA));
  Response r;
  REQUIRE(parse_response(m.data.get(), m.size, &r));
  CHECK(r.rcode == 3);
  CHECK(r.address_count == 0);
}

TEST_CASE("cut off at any byte, a message is refused until what it needs is there") {
  Bytes query = sample_query();
  for (size_t keep = 0; keep <= query.size(); keep++) {
    Exact m(query, keep);
    Query q;
    CHECK(parse_query(m.data.get(), m.size, &q) == (keep >= 33));
  }
  Bytes response = sample_response();
  for (size_t keep = 0; keep <= response.size(); keep++) {
    Exact m(response, keep);
    Response r;
    CHECK(parse_response(m.data.get(), m.size, &r) == (keep >= response.size() - edns().size()));
  }
}

TEST_CASE("hostile pointers are refused") {
  Bytes plain = question(labels("a.example"), kDnsTypeA);
  auto answer_named = [&](const Bytes& name) {
    return header(1, 0x8180, 1, 1) + plain + record(name, kDnsTypeA, {1, 2, 3, 4});
  };
  size_t at = 12 + plain.size();  // where the answer's name begins
  CHECK(response_ok(answer_named(pointer(12))));
  CHECK(response_ok(answer_named(Bytes{1, 'b'} + pointer(14))));
  CHECK_FALSE(response_ok(answer_named(pointer(at))));                    // to itself
  CHECK_FALSE(response_ok(answer_named(Bytes{1, 'b'} + pointer(at))));    // to the name it stands in
  CHECK_FALSE(response_ok(answer_named(pointer(at + 4))));                // ahead
  CHECK_FALSE(response_ok(answer_named(pointer(0x3fff))));                // past the end
  CHECK_FALSE(response_ok(answer_named(pointer(0))));                     // into the header
  CHECK_FALSE(response_ok(answer_named(Bytes{0x40, 1, 2, 0})));           // reserved label types
  CHECK_FALSE(response_ok(answer_named(Bytes{0x80, 1, 2, 0})));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(pointer(12), kDnsTypeA)));
  CHECK_FALSE(query_ok(header(1, 0, 1, 0) + question(Bytes{1, 'a'} + pointer(12), kDnsTypeA)));
  CHECK_FALSE(response_ok(header(1, 0x8180, 1, 0) + question(pointer(4), kDnsTypeA)));
}

TEST_CASE("a long chain of pointers to pointers is given up") {
  // The first record's data holds the chain; its first link leads to the question's name.
  auto chain_of = [](u32 links) {
    Bytes message = header(1, 0x8180, 1, 2) + question(labels("a.example"), kDnsTypeA);
    size_t begin = message.size() + 2 + 10;
    Bytes chain;
    for (u32 i = 0; i < links; i++) chain = chain + pointer(i == 0 ? 12 : begin + 2 * (i - 1));
    message = message + record(pointer(12), kTxt, chain);
    return message + record(pointer(begin + 2 * (links - 1)), kDnsTypeA, {1, 2, 3, 4});
  };
  CHECK(response_ok(chain_of(100)));
  CHECK_FALSE(response_ok(chain_of(1000)));
}

TEST_CASE("a name put together from pointers is no longer than any other") {
  Bytes message = header(1, 0x8180, 1, 1) + question(labels(long_name(253)), kDnsTypeA);
  CHECK(response_ok(message + record(pointer(12), kDnsTypeA, {1, 2, 3, 4})));
  CHECK_FALSE(response_ok(message + record(Bytes{1, 'b'} + pointer(12), kDnsTypeA, {1, 2, 3, 4})));
}

TEST_CASE("an NXDOMAIN answer to a query keeps id and question as they were written") {
  Exact m(sample_query());
  u8 out[512];
  size_t size = make_nxdomain(m.data.get(), m.size, out, sizeof(out));
  REQUIRE(size == 33);
  CHECK(out[2] == 0x81);  // QR, RD
  CHECK(out[3] == 0x83);  // RA, NXDOMAIN
  CHECK(memcmp(out + 12, m.data.get() + 12, 21) == 0);
  Response r;
  REQUIRE(parse_response(out, size, &r));
  CHECK(r.id == 0xbeef);
  CHECK(r.rcode == 3);
  CHECK(r.address_count == 0);
  CHECK(std::string(r.name) == "www.example.com");
  const u8 counts[8] = {0, 1, 0, 0, 0, 0, 0, 0};
  CHECK(memcmp(out + 4, counts, 8) == 0);
}

TEST_CASE("a response becomes NXDOMAIN in place, whatever it said before") {
  Bytes bytes = sample_response();
  bytes[2] |= 0x06;  // AA, TC
  bytes[3] |= 0x30;  // AD, CD
  Exact m(bytes);
  size_t size = make_nxdomain(m.data.get(), m.size, m.data.get(), m.size);
  REQUIRE(size == 33);
  CHECK(m.data[2] == 0x81);
  CHECK(m.data[3] == 0x93);  // RA, CD, NXDOMAIN
  Response r;
  REQUIRE(parse_response(m.data.get(), size, &r));
  CHECK(r.rcode == 3);
}

TEST_CASE("an NXDOMAIN answer is not made where it does not fit or there is no question") {
  Exact m(sample_query());
  u8 out[64] = {};
  CHECK(make_nxdomain(m.data.get(), m.size, out, 32) == 0);
  CHECK(out[0] == 0);
  CHECK(make_nxdomain(m.data.get(), m.size, out, 33) == 33);
  for (size_t keep = 0; keep < 33; keep++) CHECK(make_nxdomain(m.data.get(), keep, out, sizeof(out)) == 0);
  Exact none(header(1, 0x8180, 0, 0));
  CHECK(make_nxdomain(none.data.get(), none.size, out, sizeof(out)) == 0);
}

TEST_CASE("a message over TCP is there once its length says so") {
  Bytes framed = with_length(2, sample_query());
  for (size_t keep = 0; keep < framed.size(); keep++) {
    Exact m(framed, keep);
    CHECK(tcp_message_size(m.data.get(), m.size) == 0);
  }
  Exact m(framed + Bytes{0, 5});
  CHECK(tcp_message_size(m.data.get(), m.size) == framed.size() - 2);
}
