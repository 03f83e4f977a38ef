// What the relay's kernel programs share: the maps that the relay shares with them (native/contract/relay.h), whether it is
// there, which sockets are its, and addresses.
#pragma once

#include "common.h"

#include "../native/contract/relay.h"

typedef struct RelayControl {
  MISHAP_RELAY_CONTROL_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayControl;
typedef struct RelayRow {
  MISHAP_RELAY_ROW_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayRow;
typedef struct RelayConnect {
  MISHAP_RELAY_CONNECT_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayConnect;
typedef struct RelayPeer {
  MISHAP_RELAY_PEER_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayPeer;
typedef struct RelayRoute {
  MISHAP_RELAY_ROUTE_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayRoute;
typedef struct RelayPool {
  MISHAP_RELAY_POOL_FIELDS(MEMBER, MEMBER_ARRAY)
} RelayPool;

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

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 20);
} mishap_connects SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, RelayPool);
} mishap_pool SEC(".maps");

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

// Where the relay is to be met from; NULL: it is not.
static __always_inline RelayControl *relay_for(struct bpf_sock_addr *context) {
  RelayControl *control = beating_relay();
  return control && control->netns == bpf_get_netns_cookie(context) ? control : NULL;
}

// The program's socket of MPTCP that this one, TCP's and the kernel's own, is a part of; NULL: of none, as far as Linux tells (5.19).
static __always_inline struct mptcp_sock *multipath(struct bpf_sock *sk) {
  const bool can_tell = bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_skc_to_mptcp_sock) && bpf_core_type_exists(struct mptcp_sock);
  return can_tell ? bpf_skc_to_mptcp_sock(sk) : NULL;
}
static __always_inline struct tag *tag_of_program(struct bpf_sock *sk) {
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  struct mptcp_sock *whole = tag ? NULL : multipath(sk);
  return whole ? bpf_sk_storage_get(&mishap_tags, whole, NULL, 0) : tag;
}

// The relay's row of a socket, while its connection is the relay's.
static __always_inline RelayRow *relayed(struct bpf_sock *sk) {
  struct tag *tag = sk ? tag_of_program(sk) : NULL;
  if (!tag || !tag->cookie) return NULL;
  const u32 at = tag->row;
  RelayRow *row = bpf_map_lookup_elem(&mishap_relayed, &at);
  return row && row->cookie == tag->cookie ? row : NULL;
}

// Room for what the relay is told of a conversation that begins, filled as far as the rows know it; NULL: there is none.
static __always_inline RelayConnect *begin_connect(const struct tag *tag, const RelayRow *row, const KernelSocket *socket) {
  RelayConnect *connect = bpf_ringbuf_reserve(&mishap_connects, sizeof(*connect), 0);
  if (!connect) return NULL;
  __builtin_memset(connect, 0, sizeof(*connect));
  connect->cookie = row->cookie;
  connect->process = row->process;
  connect->pid = row->pid;
  connect->tid = row->tid;
  connect->row = tag->row;
  connect->family = socket->family;
  connect->protocol = socket->protocol;
  connect->peer_port = row->peer_port;
  __builtin_memcpy(connect->peer, row->peer, sizeof(connect->peer));
  __builtin_memcpy(connect->program, socket->program, sizeof(connect->program));
  return connect;
}

#define LOOPBACK __builtin_bswap32(0x7f000001)
#define MAPPED __builtin_bswap32(0x0000ffff)

// Any address stands for this host, as in tcp_v4_connect(); to a group or to all there is no connection.
static __always_inline u32 this_host(u32 address) { return address ? address : LOOPBACK; }
static __always_inline bool is_group(u32 address) { return (address & __builtin_bswap32(0xf0000000)) == __builtin_bswap32(0xe0000000) || address == 0xffffffff; }

// Whether another run's redirection was here first: then the conversation is its relay's.
static __always_inline bool is_relay(struct bpf_sock_addr *context, const u32 peer[4], bool tcp) {
  struct bpf_sock_tuple tuple = {};
  const bool four = peer[2] == MAPPED && peer[3] == LOOPBACK, six = !peer[2] && peer[3] == __builtin_bswap32(1);
  if (peer[0] || peer[1] || (!four && !six)) return false;
  struct bpf_sock *listener;
  if (four) {
    tuple.ipv4.daddr = LOOPBACK;
    tuple.ipv4.dport = context->user_port;
    listener = tcp ? bpf_sk_lookup_tcp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) : bpf_sk_lookup_udp(context, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
  } else {
    tuple.ipv6.daddr[3] = peer[3];
    tuple.ipv6.dport = context->user_port;
    listener = tcp ? bpf_sk_lookup_tcp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0) : bpf_sk_lookup_udp(context, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
  }
  if (!listener) return false;
  const bool relays = tcp ? listener->mark == MISHAP_RELAY_MARK : listener->priority == MISHAP_RELAY_PRIORITY;
  bpf_sk_release(listener);
  return relays;
}

static __always_inline bool has_address(const u8 address[16]) {
  u64 words[2];
  __builtin_memcpy(words, address, sizeof(words));
  return words[0] | words[1];
}

// Tells the program of an address, IPv6 or mapped IPv4, or sends its packets there.
static __always_inline int show(struct bpf_sock_addr *context, const u8 address[16], u16 port, bool six) {
  u32 words[4];
  __builtin_memcpy(words, address, sizeof(words));
  if (six) {
    context->user_ip6[0] = words[0];
    context->user_ip6[1] = words[1];
    context->user_ip6[2] = words[2];
    context->user_ip6[3] = words[3];
  } else {
    context->user_ip4 = words[3];
  }
  context->user_port = __builtin_bswap16(port);
  return 1;
}
