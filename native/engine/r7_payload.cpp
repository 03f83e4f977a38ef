// R7 payload transform: changes the bytes that one call carries, as the seed's model says, so on streams it follows the
// program's chunking. Gates first (direction, size, cadence, probability), then one primitive. A dry run decides and
// leaves the bytes.
#include <string.h>

#include "stages.h"

namespace mishap::engine {
namespace {

bool gate(const Call& call, u64 bytes, u64 call_number) {
  const Row& row = *call.row;
  if (call.decided) return bytes && decides_mutation(call, call_number);
  if (!(row.faults & call.allowed & bit(Fault::PayloadMutation)) || bytes == 0) return false;
  if (call.kind != OpKind::Send && call.kind != OpKind::Recv) return false;
  auto target = static_cast<MutationTarget>(row.mutation_target);
  if (target == MutationTarget::UplinkOnly && call.direction != Direction::Uplink) return false;
  if (target == MutationTarget::DownlinkOnly && call.direction != Direction::Downlink) return false;
  if (bytes < row.mutation_min_size || (row.mutation_max_size && bytes > row.mutation_max_size)) return false;
  if (row.mutation_max_buffer && bytes > row.mutation_max_buffer) return false;
  if (row.mutation_every_n > 1 && (call_number + 1) % row.mutation_every_n) return false;
  u64 ppm = static_cast<u64>(row.mutation_ppm) * call.scale_ppm / kCertainPpm;
  return chance(draw(call.draw_key, Stage::Payload, call_number), ppm);
}

// Bytes [at, at + removed) become the insert; what does not fit in capacity is cut off at the end.
u64 replace_span(u8* bytes, u64 length, u64 capacity, u64 at, u64 removed, const u8* insert, u64 inserted) {
  u64 tail = length - at - removed;
  if (at + inserted > capacity) inserted = capacity - at;
  if (at + inserted + tail > capacity) tail = capacity - at - inserted;
  memmove(bytes + at + inserted, bytes + at + removed, tail);
  memcpy(bytes + at, insert, inserted);
  return at + inserted + tail;
}

// The start of the UTF-8 character that holds the byte at `at`.
u64 character_start(const u8* bytes, u64 at) {
  for (u32 i = 0; i < 3 && at && (bytes[at] & 0xc0) == 0x80; i++) at--;
  return at;
}

}  // namespace

Mutation plan_mutation(const Call& call, u64 bytes) {
  Mutation plan;
  plan.call_number = load(&call.draft.ops);
  plan.bytes = bytes;
  if (!gate(call, bytes, plan.call_number)) return plan;
  const Row& row = *call.row;
  plan.type = static_cast<MutationType>(row.mutation_type);
  plan.dry_run = row.mutation_dry_run;
  plan.truncate_size = row.truncate_size;
  plan.inject_position = row.inject_position;
  plan.swap_first = row.swap_first;
  plan.swap_second = row.swap_second;
  plan.corrupt_count = row.corrupt_count;
  plan.corrupt_key = row.corrupt_seed ? draw_key(row.corrupt_seed, load(&call.flow->key), call.kind, call.direction) : call.draw_key;
  plan.inject_length = row.inject_length;
  plan.find_length = row.find_length;
  plan.replace_length = row.replace_length;
  memcpy(plan.inject_data, row.inject_data, sizeof(plan.inject_data));
  memcpy(plan.replace_find, row.replace_find, sizeof(plan.replace_find));
  memcpy(plan.replace_with, row.replace_with, sizeof(plan.replace_with));
  return plan;
}

u64 mutate(const Mutation& m, u8* bytes, u64 length, u64 capacity) {
  if (length == 0 || m.dry_run) return length;
  switch (m.type) {
    case MutationType::None: return length;
    case MutationType::Truncate: return m.truncate_size < length ? m.truncate_size : length;
    case MutationType::CorruptBytes:
      for (u32 i = 0; i < m.corrupt_count && i < length; i++) {
        u64 drawn = draw(m.corrupt_key, Stage::Payload, m.call_number, 1 + (i & 127));
        if (i > 127) drawn = mix(drawn + i);
        bytes[drawn % length] ^= static_cast<u8>((drawn >> 56) | 1);  // never xor with zero
      }
      return length;
    case MutationType::InjectBytes: {
      u64 at = m.inject_position < length ? m.inject_position : length;
      return replace_span(bytes, length, capacity, at, 0, m.inject_data, m.inject_length);
    }
    case MutationType::ReplacePattern: {
      if (m.find_length == 0) return length;
      void* found = memmem(bytes, length, m.replace_find, m.find_length);
      if (!found) return length;
      return replace_span(bytes, length, capacity, static_cast<u64>(static_cast<u8*>(found) - bytes), m.find_length, m.replace_with, m.replace_length);
    }
    case MutationType::CorruptEncoding:
      bytes[character_start(bytes, draw(m.corrupt_key, Stage::Payload, m.call_number, 1) % length)] = 0xff;  // never valid in UTF-8
      return length;
    case MutationType::SwapBytes:
      if (m.swap_first < length && m.swap_second < length) {
        u8 kept = bytes[m.swap_first];
        bytes[m.swap_first] = bytes[m.swap_second];
        bytes[m.swap_second] = kept;
      }
      return length;
  }
  return length;
}

}  // namespace mishap::engine
