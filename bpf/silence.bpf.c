// Who hears nothing any more? Connections that were there before an attach, when a fault loses all that they send, all that they
// are sent, or both: their packets go no further, and neither end is told.
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "../native/contract/kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define UP 0
#define DOWN 1
#define PASS 1
#define DROP 0

// By socket cookie: a bit for each direction. Written by the loader.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, MISHAP_KERNEL_SOCKETS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u64);
  __type(value, __u32);
} mishap_silent SEC(".maps");

static __always_inline int pass(struct __sk_buff *packet, __u32 direction) {
  const __u64 cookie = bpf_get_socket_cookie(packet);
  const __u32 *silent = cookie ? bpf_map_lookup_elem(&mishap_silent, &cookie) : NULL;
  return silent && *silent >> direction & 1 ? DROP : PASS;
}

SEC("cgroup_skb/egress")
int mishap_unsent(struct __sk_buff *packet) { return pass(packet, UP); }
SEC("cgroup_skb/ingress")
int mishap_unheard(struct __sk_buff *packet) { return pass(packet, DOWN); }
