// How a shared struct is written down once: a list of FIELD(type, name, doc) and ARRAY(type, name, count, doc)
// becomes the C++ struct and its row in the exported layout. Padding is spelled out, so that no byte of
// shared memory is unnamed: MISHAP_STRUCT fails to compile when the fields do not fill the struct.
#pragma once

#include "types.h"

namespace mishap {

struct FieldLayout {
  const char* name;
  const char* type;  // u8, u16, u32, u64, i32, i64, char, or the name of another struct of the layout
  u32 offset;        // bytes from the start of the struct
  u32 count;         // 1, or the length of an array
  u32 size;          // bytes, all elements together
  const char* doc;
};

struct StructLayout {
  const char* name;
  u32 size;
  u32 field_count;
  const FieldLayout* fields;
  const char* doc;
};

constexpr u32 covered(const FieldLayout* fields, u32 count) {
  u32 end = 0;
  for (u32 i = 0; i < count; i++) {
    if (fields[i].offset != end) return 0;
    end += fields[i].size;
  }
  return end;
}

}  // namespace mishap

#define MISHAP_MEMBER(type, name, doc) type name;
#define MISHAP_MEMBER_ARRAY(type, name, length, doc) type name[length];
#define MISHAP_ENTRY(type, name, doc) {#name, #type, offsetof(Self, name), 1, sizeof(Self::name), doc},
#define MISHAP_ENTRY_ARRAY(type, name, length, doc) {#name, #type, offsetof(Self, name), length, sizeof(Self::name), doc},

#define MISHAP_STRUCT(Name, bytes, text, LIST)                                                       \
  struct Name {                                                                                      \
    LIST(MISHAP_MEMBER, MISHAP_MEMBER_ARRAY)                                                         \
  };                                                                                                 \
  namespace layout_of {                                                                              \
  struct Name##Fields {                                                                              \
    using Self = ::mishap::Name;                                                                     \
    static constexpr FieldLayout list[] = {LIST(MISHAP_ENTRY, MISHAP_ENTRY_ARRAY)};                  \
    static constexpr u32 count = sizeof(list) / sizeof(list[0]);                                     \
    static constexpr StructLayout layout = {#Name, sizeof(Self), count, list, text};                 \
    static_assert(sizeof(Self) == bytes, #Name ": size differs from what its header says");          \
    static_assert(covered(list, count) == sizeof(Self), #Name ": name the padding");                 \
  };                                                                                                 \
  }
