// Who listens where: every listener of the network namespace, by address and port, the run's and others', as of the moment that
// it listens until it does not. For accept.bpf.c.
#pragma once

#include "relay.h"

const volatile unsigned long long netns = 0;  // cookie of the one network namespace that is looked at; the loader sets it

// How many of the run's listeners each port has: most SYNs are for none. (Of eight bytes, as wide as an array's entries lie.)
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 65536);
  __type(key, u32);
  __type(value, u64);
} mishap_listening SEC(".maps");

struct place {
  u8 address[16];
  u32 port;
};
// Those of an address and port. Places stay once they were used: with none left of either kind nothing is said.
struct listeners {
  struct tag newest;  // of the run's; a row that is another's by now: it is gone, and older ones are left
  u32 ours, others;
};
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct place);
  __type(value, struct listeners);
} mishap_listeners SEC(".maps");

// How a socket was counted there, because that is not known any more when it closes.
#define LISTED_OTHERS 1
#define LISTED_OURS 2
struct listed {
  u32 as;  // 0 not
  u32 both_families;
  struct place place;
};
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct listed);
} mishap_listed SEC(".maps");

static __always_inline struct listeners *listeners_at(const struct place *place) {
  struct listeners *found = bpf_map_lookup_elem(&mishap_listeners, place);
  if (found) return found;
  const struct listeners none = {};
  bpf_map_update_elem(&mishap_listeners, place, &none, BPF_NOEXIST);
  return bpf_map_lookup_elem(&mishap_listeners, place);
}

static __always_inline void count_at(const struct place *place, u32 listed, i32 by, const struct tag *tag) {
  struct listeners *here = listeners_at(place);
  if (!here) return;
  __sync_fetch_and_add(listed == LISTED_OURS ? &here->ours : &here->others, by);
  if (by > 0 && tag) here->newest = *tag;
}

static __noinline int count_listener(const struct listed *listed, u32 as, i32 by, const struct tag *tag) {
  if (!listed) return 0;
  struct place place = listed->place;
  count_at(&place, as, by, tag);
  if (listed->both_families) {
    place.address[10] = place.address[11] = 0xff;
    count_at(&place, as, by, tag);
  }
  u64 *listening = as == LISTED_OURS ? bpf_map_lookup_elem(&mishap_listening, &place.port) : NULL;
  if (listening) __sync_fetch_and_add(listening, (i64)by);
  return 0;
}

// Both families meet at a listener of IPv6 for any address, unless it says otherwise.
static __always_inline void take_place(struct listed *listed, const struct sock *sk) {
  const struct sock_common *common = &sk->__sk_common;
  struct place place = {};
  place.port = common->skc_num;
  take_address(place.address, common, common->skc_rcv_saddr, &common->skc_v6_rcv_saddr);
  const u64 *words = (void *)place.address;
  listed->both_families = common->skc_family == AF_INET6 && !words[0] && !words[1] && !BPF_CORE_READ_BITFIELD(common, skc_ipv6only);
  listed->place = place;
}

static __always_inline bool is_here(const struct sock *sk) {
  const u32 family = sk->__sk_common.skc_family;
  return (family == AF_INET || family == AF_INET6) && sk->__sk_common.skc_net.net->net_cookie == netns;
}

// Whose a listener is.
struct holder {
  u64 process;
  i32 pid, tid;
  char program[16];
};
static __always_inline void take_holder(struct holder *holder, struct task_struct *task) {
  name_task(task, &holder->process, &holder->pid, &holder->tid);
  BPF_CORE_READ_INTO(&holder->program, task, comm);
}

// A listener that came by no row when it was made: the kernel made it (MPTCP), or it is older than we are.
static __always_inline void own(struct sock *sk, const struct holder *holder) {
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
  const u64 cookie = bpf_get_socket_cookie(sk);
  if (!tag || (tag->cookie == cookie && row_of(tag))) return;
  KernelSocket *row = make_row(tag, cookie, sk->__sk_common.skc_family, IPPROTO_TCP);
  if (!row) return;
  row->owner.process = holder->process;
  row->owner.pid = holder->pid;
  row->owner.tid = holder->tid;
  __builtin_memcpy(row->program, holder->program, sizeof(row->program));
  row->local_port = sk->__sk_common.skc_num;
  take_address(row->local, &sk->__sk_common, sk->__sk_common.skc_rcv_saddr, &sk->__sk_common.skc_v6_rcv_saddr);
  row->tcp_state = TCP_LISTEN;
  row->flags |= MISHAP_SOCKET_LISTENING;
  publish(row, cookie);
}

// A socket listens from now on, or did already: as the run's where it has a row, and is not the relay's of a run within this one.
// One that was never bound has no port yet.
static __always_inline void enter(struct sock *sk) {
  if (!is_here(sk) || !sk->__sk_common.skc_num) return;
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  const bool ours = tag && row_of(tag) && tag->cookie == bpf_get_socket_cookie(sk) && !sk->__sk_common.skc_bound_dev_if && sk->sk_mark != MISHAP_RELAY_MARK;
  struct listed *listed = bpf_sk_storage_get(&mishap_listed, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
  const u32 now = ours ? LISTED_OURS : LISTED_OTHERS;
  const u32 before = listed ? *(volatile u32 *)&listed->as : now;
  if (before == now) return;
  if (!before) take_place(listed, sk);
  if (__sync_val_compare_and_swap(&listed->as, before, now) != before) return;
  if (before) count_listener(listed, before, -1, NULL);
  count_listener(listed, now, 1, ours ? tag : NULL);
}

static __always_inline void leave(struct sock *sk) {
  struct listed *listed = bpf_sk_storage_get(&mishap_listed, sk, NULL, 0);
  const u32 before = listed ? *(volatile u32 *)&listed->as : 0;
  if (before && __sync_val_compare_and_swap(&listed->as, before, 0) == before) count_listener(listed, before, -1, NULL);
  // Of a socket of the kernel's own no release is told (tag.bpf.c).
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  KernelSocket *row = tag && tag->cookie == bpf_get_socket_cookie(sk) ? row_of(tag) : NULL;
  if (!row) return;
  tag->cookie = 0;
  row->owner.cookie = 0;
}
