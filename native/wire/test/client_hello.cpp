// ClientHellos as TLS libraries write them, in one record and in many, cut off at every byte, and malformed; see
// client_hello.h.
#include "wire/client_hello.h"

#include <doctest/doctest.h>

#include "bytes.h"

using namespace mishap;
using namespace mishap::wire;

namespace {

Bytes extension(u16 kind, const Bytes& content) { return big_endian(kind, 2) + with_length(2, content); }
Bytes server_name(const Bytes& name, u8 type = 0) {
  return extension(0, with_length(2, Bytes{type} + with_length(2, name)));
}
// What stands around the server name in OpenSSL's hello: groups, signature algorithms, versions, ALPN.
Bytes before() { return extension(11, {3, 0, 1, 2}) + extension(10, with_length(2, {0, 29, 0, 23})); }
Bytes after() { return extension(16, with_length(2, with_length(1, text("h2")))) + extension(43, {4, 3, 4, 3, 3}); }

Bytes body(const Bytes& extensions) {
  return Bytes{3, 3} + Bytes(32, 0xab) + with_length(1, Bytes(32, 0xcd)) + with_length(2, {0x13, 1, 0x13, 2, 0, 0xff}) +
         with_length(1, {0}) + extensions;
}
Bytes handshake(const Bytes& content) { return Bytes{1} + with_length(3, content); }
// The handshake cut into records of at most `piece` bytes.
Bytes records(const Bytes& message, size_t piece = 16384) {
  Bytes out;
  for (size_t at = 0; at < message.size(); at += piece) {
    size_t end = at + piece < message.size() ? at + piece : message.size();
    out = out + Bytes{22, 3, 1} + with_length(2, Bytes(message.data() + at, message.data() + end));
  }
  return out;
}
Bytes hello(const Bytes& extensions) { return handshake(body(with_length(2, extensions))); }
Bytes hello_for(const std::string& name) { return hello(before() + server_name(text(name)) + after()); }

struct Answer {
  SniResult result;
  std::string name;
};
Answer ask(const Bytes& bytes, size_t keep = SIZE_MAX, size_t capacity = 256) {
  Exact m(bytes, keep);
  std::unique_ptr<char[]> name(new char[capacity]);
  memset(name.get(), '?', capacity);
  SniResult result = find_sni(m.data.get(), m.size, name.get(), capacity);
  return {result, capacity > 0 ? name.get() : ""};
}
SniResult result_of(const Bytes& bytes) { return ask(bytes).result; }

}  // namespace

TEST_CASE("the server name is found, in lower case") {
  Answer a = ask(records(hello_for("API.Example.com")));
  CHECK(a.result == SniResult::Found);
  CHECK(a.name == "api.example.com");
}

TEST_CASE("a ClientHello cut into records of any size is one message") {
  Bytes message = hello_for("api.example.com");
  for (size_t piece = 1; piece <= message.size(); piece++) {
    Answer a = ask(records(message, piece));
    CHECK(a.result == SniResult::Found);
    CHECK(a.name == "api.example.com");
  }
}

TEST_CASE("cut off at any byte, the answer is to wait, and once it is another it stays") {
  for (size_t piece : {1u, 7u, 16384u}) {
    Bytes named = records(hello_for("api.example.com"), piece);
    size_t waits = 0;
    for (size_t keep = 0; keep <= named.size(); keep++) {
      Answer a = ask(named, keep);
      if (a.result == SniResult::NeedMore) {
        CHECK(waits == keep);
        CHECK(a.name.empty());
        waits++;
      } else {
        CHECK(a.result == SniResult::Found);
        CHECK(a.name == "api.example.com");
      }
    }
    CHECK(waits > 100);
    CHECK(waits < named.size());

    Bytes nameless = records(hello(before() + after()), piece);
    for (size_t keep = 0; keep < nameless.size(); keep++) CHECK(ask(nameless, keep).result == SniResult::NeedMore);
    CHECK(result_of(nameless) == SniResult::None);
  }
}

TEST_CASE("a complete ClientHello without a server name names nobody") {
  CHECK(result_of(records(hello({}))) == SniResult::None);
  CHECK(result_of(records(handshake(body({})))) == SniResult::None);  // no extensions at all, as in old TLS
}

TEST_CASE("other protocols are told apart at their first bytes") {
  CHECK(result_of(text("GET / HTTP/1.1\r\n")) == SniResult::None);
  CHECK(result_of(text("S")) == SniResult::None);
  CHECK(result_of({}) == SniResult::NeedMore);
  CHECK(result_of({22}) == SniResult::NeedMore);
  CHECK(result_of({22, 4}) == SniResult::None);              // no such version
  CHECK(result_of({23, 3, 3, 0, 1, 0}) == SniResult::None);  // application data
  CHECK(result_of({22, 3, 1, 0, 1, 2}) == SniResult::None);  // a ServerHello
}

TEST_CASE("record lengths of nothing and of more than TLS allows are malformed") {
  CHECK(result_of({22, 3, 1, 0, 0}) == SniResult::None);
  CHECK(result_of({22, 3, 1, 0x40, 0}) == SniResult::NeedMore);  // 2^14, the most
  CHECK(result_of({22, 3, 1, 0x40, 1}) == SniResult::None);
}

TEST_CASE("a record of another type between the fragments is malformed") {
  Bytes message = records(hello_for("api.example.com"), 20);
  message[25] = 21;  // the second record becomes an alert
  CHECK(result_of(message) == SniResult::None);
}

// One length after the other is made larger than what it lies in.
TEST_CASE("a length that leaves its surroundings is malformed") {
  Bytes name = text("a.example");
  Bytes list = Bytes{0} + with_length(2, name);
  Bytes beyond(300, 0);  // room behind, so that only the lengths are wrong
  CHECK(result_of(records(hello(extension(0, with_length(2, list)) + beyond))) == SniResult::Found);
  // The name reaches past its list, the list past its extension, the extension past all extensions.
  Bytes long_name = Bytes{0} + big_endian(10, 2) + name;
  CHECK(result_of(records(hello(extension(0, with_length(2, long_name)) + beyond))) == SniResult::None);
  CHECK(result_of(records(hello(extension(0, big_endian(13, 2) + list) + beyond))) == SniResult::None);
  CHECK(result_of(records(hello(Bytes{0, 0, 0, 15} + with_length(2, list)) + beyond)) == SniResult::None);
  CHECK(result_of(records(hello(Bytes{0, 11, 0, 1}) + beyond)) == SniResult::None);
  // The extensions reach past the ClientHello; so do cipher suites and session id.
  CHECK(result_of(records(handshake(body(big_endian(40, 2) + server_name(name))) + beyond)) == SniResult::None);
  CHECK(result_of(records(handshake(Bytes(34, 3) + Bytes{0} + Bytes{0, 9, 1, 2}) + beyond)) == SniResult::None);
  CHECK(result_of(records(handshake(Bytes(34, 3) + Bytes{33} + Bytes(200, 0)))) == SniResult::None);
  CHECK(result_of(records(handshake(Bytes(10, 3)) + beyond)) == SniResult::None);
}

TEST_CASE("only a host name of printable ASCII counts") {
  CHECK(result_of(records(hello(server_name(text("a.example"), 1)))) == SniResult::None);
  CHECK(result_of(records(hello(server_name({})))) == SniResult::None);
  CHECK(result_of(records(hello(server_name({'a', 0, 'b'})))) == SniResult::None);
  CHECK(result_of(records(hello(server_name({'a', ' ', 'b'})))) == SniResult::None);
  CHECK(result_of(records(hello(server_name({'a', 0xc3, 0xa4})))) == SniResult::None);
  CHECK(result_of(records(hello(extension(0, {})))) == SniResult::None);
  CHECK(ask(records(hello(server_name({'a', 0, 'b'})))).name.empty());
}

TEST_CASE("a name is found only where it fits with its NUL") {
  Bytes longest = records(hello_for(std::string(255, 'x')));
  CHECK(ask(longest, SIZE_MAX, 256).name == std::string(255, 'x'));
  CHECK(ask(longest, SIZE_MAX, 255).result == SniResult::None);
  CHECK(ask(longest, SIZE_MAX, 1).result == SniResult::None);
  CHECK(ask(longest, SIZE_MAX, 0).result == SniResult::None);
  CHECK(result_of(records(hello_for(std::string(256, 'x')))) == SniResult::None);
  CHECK(ask(longest, SIZE_MAX, 1000).name.size() == 255);
}
