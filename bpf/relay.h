// What redirect.bpf.c (connects) and accept.bpf.c (what comes in) share: the relay as they see it, and its rows.
#pragma once

#include "common.h"

#include "../native/contract/relay.h"

typedef struct RelayControl {
  MISHAP_RELAY_CONTROL_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayControl;
typedef struct RelayRow {
  MISHAP_RELAY_ROW_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayRow;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, RelayControl);
} mishap_relay SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, MISHAP_KERNEL_SOCKETS);
  __type(key, u32);
  __type(value, RelayRow);
} mishap_relayed SEC(".maps");

#define MAPPED __builtin_bswap32(0x0000ffff)  // third word of an IPv4 address as IPv6 has it

// NULL: it is not there, or was not heard of for too long.
static __always_inline RelayControl *beating_relay(void) {
  const u32 zero = 0;
  RelayControl *control = bpf_map_lookup_elem(&mishap_relay, &zero);
  if (!control) return NULL;
  // Loaded before the clock and compared signed: a beat in between is no reason to go direct.
  const u64 beat = *(volatile u64 *)&control->beat_ns;
  const i64 since = bpf_ktime_get_ns() - beat;
  return beat && since <= MISHAP_RELAY_PATIENCE_NS ? control : NULL;
}
