#include "match.h"

#include <string.h>

#include "ascii.h"

namespace mishap::wire {

static size_t length_without_final_dot(const char* text) {
  size_t length = 0;
  while (text[length]) length++;
  return length > 0 && text[length - 1] == '.' ? length - 1 : length;
}

// Greedy matching with one place to return to: when a character does not fit, the latest `*` takes one more.
// Earlier stars never need revisiting, since whatever they could take the latest one can take as well.
bool name_matches(const char* pattern, const char* name) {
  size_t pattern_length = length_without_final_dot(pattern);
  size_t name_length = length_without_final_dot(name);
  size_t p = 0, n = 0;
  bool starred = false;
  size_t after_star = 0;  // in the pattern, just behind the latest star
  size_t star_took = 0;   // in the name, the end of what that star stands for
  while (n < name_length) {
    if (p < pattern_length && pattern[p] == '*') {
      starred = true;
      after_star = ++p;
      star_took = n;
    } else if (p < pattern_length && to_lower(pattern[p]) == to_lower(name[n])) {
      p++;
      n++;
    } else if (starred) {
      p = after_star;
      n = ++star_took;
    } else {
      return false;
    }
  }
  while (p < pattern_length && pattern[p] == '*') p++;
  return p == pattern_length;
}

bool address_matches(const u8 rule[16], u8 prefix_length, const u8 address[16]) {
  if (prefix_length > 128) return false;
  size_t whole_bytes = prefix_length / 8;
  u32 rest = prefix_length % 8;
  if (memcmp(rule, address, whole_bytes) != 0) return false;
  return rest == 0 || ((rule[whole_bytes] ^ address[whole_bytes]) >> (8 - rest)) == 0;
}

}  // namespace mishap::wire
