// Any bytes as a DNS message: parsing stays inside them, and what it accepts holds together.
#include <memory>

#include <string.h>

#include "expect.h"
#include "wire/dns.h"

using namespace mishap;
using namespace mishap::wire;

static void expect_name(const char* name) {
  size_t length = strnlen(name, kNameCapacity);
  expect(length <= 253);
  for (size_t i = 0; i < length; i++) expect(name[i] < 'A' || name[i] > 'Z');
}

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  Query query;
  bool asked = parse_query(data, size, &query);
  if (asked) {
    expect_name(query.name);
    expect(query.end <= size);
  }
  Response response;
  if (parse_response(data, size, &response)) {
    expect(!asked);
    expect_name(response.name);
    expect(response.address_count <= kMaxAddresses && response.rcode < 16);
  }
  expect(tcp_message_size(data, size) + 2 <= size || tcp_message_size(data, size) == 0);

  // The answer goes into a block of exactly its size, and one byte less is refused.
  u8 answer[512];
  size_t written = make_nxdomain(data, size, answer, sizeof(answer));
  if (asked) expect(written == query.end);
  if (written > 0) {
    std::unique_ptr<u8[]> exact(new u8[written]);
    expect(make_nxdomain(data, size, exact.get(), written) == written);
    expect(make_nxdomain(data, size, exact.get(), written - 1) == 0);
    expect(memcmp(exact.get(), answer, written) == 0);
    if (asked) {
      expect(parse_response(answer, written, &response));
      expect(response.id == query.id && response.rcode == 3 && response.address_count == 0);
      expect(strcmp(response.name, query.name) == 0);
    }
  }
  return 0;
}
