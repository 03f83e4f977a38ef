// Any bytes as the start of a TLS stream. The first byte of the input says how much room the caller has for the
// name, the second how much of the stream is there at first: an answer given then must not change later.
#include <memory>

#include <string.h>

#include "expect.h"
#include "wire/client_hello.h"

using namespace mishap;
using namespace mishap::wire;

static SniResult ask(const u8* data, size_t size, char* name, size_t capacity) {
  SniResult result = find_sni(data, size, name, capacity);
  if (result == SniResult::Found) {
    size_t length = strnlen(name, capacity);
    expect(length > 0 && length < capacity);
    for (size_t i = 0; i < length; i++) expect(name[i] > ' ' && name[i] <= '~' && (name[i] < 'A' || name[i] > 'Z'));
  } else {
    expect(capacity == 0 || name[0] == '\0');
  }
  return result;
}

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  if (size < 2) return 0;
  size_t capacity = data[0];
  const u8* stream = data + 2;
  size_t whole = size - 2;
  size_t part = whole * data[1] / 256;
  std::unique_ptr<u8[]> early_bytes(new u8[part]);  // ends where it ends, for AddressSanitizer
  if (part > 0) memcpy(early_bytes.get(), stream, part);
  std::unique_ptr<char[]> early_name(new char[capacity]), name(new char[capacity]);

  SniResult early = ask(early_bytes.get(), part, early_name.get(), capacity);
  SniResult result = ask(stream, whole, name.get(), capacity);
  expect(early == SniResult::NeedMore || early == result);
  if (early == SniResult::Found) expect(strcmp(early_name.get(), name.get()) == 0);
  return 0;
}
