// Which names and addresses fall under a rule; see match.h.
#include "wire/match.h"

#include <doctest/doctest.h>
#include <string.h>

#include <string>

using namespace mishap;
using wire::address_matches;
using wire::name_matches;

TEST_CASE("a pattern without a star matches that name alone, in either case") {
  CHECK(name_matches("api.example.com", "api.example.com"));
  CHECK(name_matches("API.Example.com", "api.eXAMPLE.COM"));
  CHECK_FALSE(name_matches("api.example.com", "api.example.co"));
  CHECK_FALSE(name_matches("api.example.com", "api.example.comm"));
  CHECK_FALSE(name_matches("api.example.com", "xapi.example.com"));
  CHECK_FALSE(name_matches("api.example.com", "api-example.com"));
  CHECK_FALSE(name_matches("[", "{"));  // 0x20 apart, as upper and lower case are, but not letters
}

TEST_CASE("a star matches any run of characters, the empty one included") {
  CHECK(name_matches("*", ""));
  CHECK(name_matches("*", "example.com"));
  CHECK(name_matches("*.example.com", "a.b.example.com"));
  CHECK_FALSE(name_matches("*.example.com", "example.com"));
  CHECK(name_matches("*example.com", "example.com"));
  CHECK(name_matches("api.*", "api.internal"));
  CHECK(name_matches("a*b*c", "abc"));
  CHECK(name_matches("a*b*c", "a-b-b-c-c"));
  CHECK_FALSE(name_matches("a*b*c", "a-c-b"));
  CHECK(name_matches("**.com", "example.com"));
  CHECK(name_matches("*.com*", "example.com"));
  CHECK(name_matches("*aab", "aaab"));  // the star has to take one more after a partial match
  CHECK_FALSE(name_matches("", "example.com"));
  CHECK(name_matches("", ""));
}

TEST_CASE("a trailing dot is ignored on both sides, but no other dot") {
  CHECK(name_matches("example.com", "example.com."));
  CHECK(name_matches("example.com.", "example.com"));
  CHECK(name_matches("*.com.", "example.com."));
  CHECK(name_matches(".", ""));
  CHECK_FALSE(name_matches("example.com", "example.com.."));
}

// The same question answered by trying every length of every star, for short texts.
static bool matches_by_definition(const char* pattern, const char* name) {
  if (*pattern == '\0') return *name == '\0';
  if (*pattern != '*') return *pattern == *name && matches_by_definition(pattern + 1, name + 1);
  for (;; name++) {
    if (matches_by_definition(pattern + 1, name)) return true;
    if (*name == '\0') return false;
  }
}

static std::string nth_text(const char* alphabet, u32 length, u32 n) {
  std::string text;
  for (u32 i = 0; i < length; i++, n /= 3) text += alphabet[n % 3];
  return text;
}

TEST_CASE("every short pattern agrees with the definition on every short name") {
  u32 compared = 0, matched = 0;
  for (u32 pattern_length = 0; pattern_length <= 5; pattern_length++) {
    for (u32 name_length = 0; name_length <= 5; name_length++) {
      u32 patterns = 1, names = 1;
      for (u32 i = 0; i < pattern_length; i++) patterns *= 3;
      for (u32 i = 0; i < name_length; i++) names *= 3;
      for (u32 p = 0; p < patterns; p++) {
        std::string pattern = nth_text("ab*", pattern_length, p);
        for (u32 n = 0; n < names; n++) {
          std::string name = nth_text("abc", name_length, n);
          bool expected = matches_by_definition(pattern.c_str(), name.c_str());
          compared++;
          matched += expected;
          if (name_matches(pattern.c_str(), name.c_str()) != expected) FAIL(pattern, " on ", name);
        }
      }
    }
  }
  CHECK(compared == 364 * 364);
  CHECK(matched > 1000);
}

// Backtracking into every star would take longer than the universe has; this answers within the test's patience.
TEST_CASE("many stars cost no more than pattern times name") {
  std::string pattern, name(20000, 'a');
  for (int i = 0; i < 100; i++) pattern += "a*";
  CHECK(name_matches(pattern.c_str(), name.c_str()));
  CHECK_FALSE(name_matches((pattern + "b").c_str(), name.c_str()));
  CHECK_FALSE(name_matches(("*" + std::string(200, 'a') + "b").c_str(), name.c_str()));
}

static const u8 kTen[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
static const u8 kDoc[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

TEST_CASE("an address matches on exactly the bits of the prefix") {
  for (const u8* rule : {kTen, kDoc}) {
    for (u32 prefix = 0; prefix <= 128; prefix++) {
      for (u32 flipped = 0; flipped < 128; flipped++) {
        u8 address[16];
        memcpy(address, rule, 16);
        address[flipped / 8] ^= static_cast<u8>(0x80 >> (flipped % 8));
        if (address_matches(rule, static_cast<u8>(prefix), address) != (flipped >= prefix))
          FAIL("prefix ", prefix, ", bit ", flipped, " flipped");
      }
      CHECK(address_matches(rule, static_cast<u8>(prefix), rule));
    }
  }
}

TEST_CASE("prefix 0 matches both families, 96 every IPv4 address, past 128 none") {
  CHECK(address_matches(kTen, 0, kDoc));
  CHECK(address_matches(kDoc, 0, kTen));
  const u8 other[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};
  CHECK(address_matches(kTen, 96, other));
  CHECK_FALSE(address_matches(kTen, 96, kDoc));
  CHECK_FALSE(address_matches(kTen, 129, kTen));
  CHECK_FALSE(address_matches(kTen, 255, kTen));
}
