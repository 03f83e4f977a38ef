// The whole layout in one list: what the addon exports, docs/contract.md prints, and readers compare by hash.
#pragma once

#include "flow.h"
#include "header.h"
#include "journal.h"
#include "kernel.h"
#include "mailbox.h"
#include "row.h"
#include "stats.h"
#include "tables.h"
#include "target.h"

namespace mishap {

constexpr const StructLayout* kLayout[] = {
    &layout_of::HeaderFields::layout,  &layout_of::RegionEntryFields::layout,   &layout_of::RowFields::layout,
    &layout_of::RowDirectionFields::layout, &layout_of::TargetFields::layout,   &layout_of::BindingFields::layout,
    &layout_of::ProcessFields::layout, &layout_of::OwnerFields::layout,         &layout_of::FlowFields::layout,
    &layout_of::FlowDirectionFields::layout, &layout_of::LinkFields::layout,    &layout_of::StatsFields::layout,
    &layout_of::HistogramFields::layout, &layout_of::EventFields::layout,    &layout_of::KernelSocketFields::layout,
    &layout_of::KernelArrivalFields::layout, &layout_of::DecidedFields::layout,
    &layout_of::MailboxHeaderFields::layout, &layout_of::MailboxLaneFields::layout,      &layout_of::MailboxSlotFields::layout,
    &layout_of::ScriptQuestionFields::layout, &layout_of::ScriptAnswerFields::layout,
};

// FNV-1a over every name, type, offset and size.
constexpr u64 hash_text(u64 h, const char* s) {
  for (; *s; s++) h = (h ^ static_cast<u8>(*s)) * 0x100000001b3ull;
  return h * 0x100000001b3ull;
}
constexpr u64 hash_number(u64 h, u64 n) {
  for (int i = 0; i < 8; i++) h = (h ^ ((n >> (8 * i)) & 0xff)) * 0x100000001b3ull;
  return h;
}
constexpr u64 compute_layout_hash() {
  u64 h = hash_number(0xcbf29ce484222325ull, kAbiVersion);
  for (const StructLayout* s : kLayout) {
    h = hash_number(hash_text(h, s->name), s->size);
    for (u32 i = 0; i < s->field_count; i++) {
      const FieldLayout& f = s->fields[i];
      h = hash_number(hash_number(hash_text(hash_text(h, f.name), f.type), f.offset), f.size);
    }
  }
  return h;
}
constexpr u64 kLayoutHash = compute_layout_hash();

}  // namespace mishap
