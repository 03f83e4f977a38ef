// What a fuzz target holds to be true of an answer. A false one ends the run as a crash does, so that libFuzzer
// keeps the input.
#pragma once

inline void expect(bool holds) {
  if (!holds) __builtin_trap();
}
