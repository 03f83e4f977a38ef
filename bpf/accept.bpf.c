// Who accepts this connection? A SYN for a listener of the run goes to the relay's listener while the relay is there, and the
// relay connects to the program's (native/contract/relay.h has the way of it), so that what programs accept is faulted too.
//
//   inet_sock_set_state: who listens where ─▶ mishap_listeners ─▶ sk_lookup: is the SYN for the run alone?
//                        what came through the relay ─▶ its row, which says who the client is
//
// Left alone: listeners that the interceptor claimed, or that others share; what the relay itself connects to; what a socket
// connects whose faults the interceptor carries at that end; link-local addresses; other network namespaces.
#include "listeners.h"
#include "relay.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

typedef struct RelaySource {
  MISHAP_RELAY_SOURCE_FIELDS(MEMBER, MEMBER_ARRAY)
} RelaySource;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, MISHAP_RELAY_SOURCES);
  __type(key, u32);
  __type(value, RelaySource);
} mishap_sources SEC(".maps");

// The relay's listeners: of IPv4, of IPv6. The kernel takes out what closes.
struct {
  __uint(type, BPF_MAP_TYPE_SOCKMAP);
  __uint(max_entries, 2);
  __type(key, u32);
  __type(value, u64);
} mishap_inbound SEC(".maps");

// ---- what comes in -----------------------------------------------------------------------------------------------------

// The ends of a connection, addresses as IPv6 or mapped IPv4, ports in host byte order.
struct ends {
  u32 source[4], to[4];
  u16 source_port, to_port;
};

// A context's field, by a load of its own: one of several through one pointer is not allowed.
#define TAKE(field) (*(volatile u32 *)&context->field)

static __always_inline void map_ipv4(struct ends *ends, bool ipv4, u32 source, u32 to) {
  if (!ipv4) return;
  ends->source[0] = ends->source[1] = ends->to[0] = ends->to[1] = 0;
  ends->source[2] = ends->to[2] = MAPPED;
  ends->source[3] = source;
  ends->to[3] = to;
}

// Connections whose faults the interceptor carries where they begin, by their ends.
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 16384);
  __type(key, struct ends);
  __type(value, struct tag);
} mishap_carried SEC(".maps");

static __always_inline bool same(const u8 address[16], const u32 words[4]) {
  const u32 *own = (const void *)address;
  return own[0] == words[0] && own[1] == words[1] && own[2] == words[2] && own[3] == words[3];
}

// What the relay says of a connection's source; NULL: it is none of the relay's.
static __always_inline RelaySource *relay_source(const struct ends *ends) {
  const u32 port = ends->source_port;
  RelaySource *source = bpf_map_lookup_elem(&mishap_sources, &port);
  if (!source || *(volatile u32 *)&source->state == MISHAP_SOURCE_FREE || source->to_port != ends->to_port) return NULL;
  return same(source->source, ends->source) && same(source->to, ends->to) ? source : NULL;
}

// The listeners that a SYN is for, where they are the run's alone.
static __always_inline struct listeners *listeners_for(const struct ends *ends) {
  struct place place = {};
  place.port = ends->to_port;
  __builtin_memcpy(place.address, ends->to, sizeof(place.address));
  struct listeners *here = bpf_map_lookup_elem(&mishap_listeners, &place);
  if (!here || !(here->ours + here->others)) {
    const bool ipv4 = !ends->to[0] && !ends->to[1] && ends->to[2] == MAPPED;
    __builtin_memset(place.address, 0, sizeof(place.address));
    if (ipv4) place.address[10] = place.address[11] = 0xff;
    here = bpf_map_lookup_elem(&mishap_listeners, &place);
  }
  return here && here->ours && !here->others ? here : NULL;
}

static __always_inline bool is_claimed(const struct tag *tag) {
  const KernelSocket *socket = row_of(tag);
  return socket && socket->flags & MISHAP_SOCKET_CLAIMED;
}

static __always_inline bool is_link_local(const u32 address[4]) {
  return (address[0] & __builtin_bswap32(0xffc00000)) == __builtin_bswap32(0xfe800000);
}

SEC("sk_lookup")
int mishap_lookup(struct bpf_sk_lookup *context) {
  const u32 port = context->local_port, family = context->family;
  const u64 *listening = context->protocol == IPPROTO_TCP ? bpf_map_lookup_elem(&mishap_listening, &port) : NULL;
  if (!listening || !*listening) return SK_PASS;
  struct ends ends = {
      .source = {TAKE(remote_ip6[0]), TAKE(remote_ip6[1]), TAKE(remote_ip6[2]), TAKE(remote_ip6[3])},
      .to = {TAKE(local_ip6[0]), TAKE(local_ip6[1]), TAKE(local_ip6[2]), TAKE(local_ip6[3])},
      .source_port = __builtin_bswap16(*(volatile u16 *)&context->remote_port),
      .to_port = port,
  };
  map_ipv4(&ends, family == AF_INET, TAKE(remote_ip4), TAKE(local_ip4));
  const struct listeners *listeners = listeners_for(&ends);
  if (!listeners) return SK_PASS;
  RelaySource *source = relay_source(&ends);
  if (source) {  // the owner of the listener is all that is known where the program's end is made later (TCP_DEFER_ACCEPT)
    if (!source->accepted) {
      source->row = listeners->newest.row;
      source->cookie = listeners->newest.cookie;
    }
    return SK_PASS;
  }
  const struct tag *connector = bpf_map_lookup_elem(&mishap_carried, &ends);
  if (is_claimed(&listeners->newest) || (connector && is_claimed(connector)) || is_link_local(ends.to) || !beating_relay()) return SK_PASS;
  const u32 at = family == AF_INET ? 0 : 1;
  struct bpf_sock *relay = bpf_map_lookup_elem(&mishap_inbound, &at);
  if (!relay) return SK_PASS;
  bpf_sk_assign(context, relay, 0);
  bpf_sk_release(relay);
  return SK_PASS;
}

// A socket that stands for a client's, while nobody has accepted it yet: whose row it has was said just before (observe.bpf.c).
static __always_inline void show_client(struct sock *sk) {
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  KernelSocket *socket = tag && tag->cookie == bpf_get_socket_cookie(sk) ? row_of(tag) : NULL;
  if (!socket || socket->owner.role != ROLE_ACCEPTOR) return;
  const struct sock_common *common = &sk->__sk_common;
  struct ends ends = {};
  ends.source_port = __builtin_bswap16(common->skc_dport);
  ends.to_port = common->skc_num;
  take_address((u8 *)ends.source, common, common->skc_daddr, &common->skc_v6_daddr);
  take_address((u8 *)ends.to, common, common->skc_rcv_saddr, &common->skc_v6_rcv_saddr);
  RelaySource *source = relay_source(&ends);
  if (!source || source->state != MISHAP_SOURCE_INBOUND) return;
  const u32 at = tag->row;
  RelayRow *row = bpf_map_lookup_elem(&mishap_relayed, &at);
  if (!row) return;
  row->cookie = 0;
  __builtin_memcpy(row->peer, source->client, sizeof(row->peer));
  row->peer_port = source->client_port;
  row->local_port = 0;  // its own address is what it was
  row->timed = 0;
  row->cookie = tag->cookie;
  __builtin_memcpy(socket->peer, source->client, sizeof(socket->peer));
  socket->peer_port = source->client_port;
  socket->flags |= MISHAP_SOCKET_RELAYED;
  source->row = at;
  source->cookie = tag->cookie;
  *(volatile u32 *)&source->accepted = 1;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(mishap_listens, struct sock *sk, int before, int after) {
  if (sk->sk_protocol != IPPROTO_TCP) return 0;
  if (after == TCP_LISTEN) {
    if (is_here(sk) && in_scope()) {
      struct holder holder = {};
      take_holder(&holder, (void *)bpf_get_current_task());
      own(sk, &holder);
    }
    enter(sk);
  }
  if (before == TCP_LISTEN && after == TCP_CLOSE) leave(sk);
  else if (before == TCP_SYN_RECV && after == TCP_ESTABLISHED) show_client(sk);
  return 0;
}

SEC("sockops")
int mishap_makes(struct bpf_sock_ops *context) {
  struct bpf_sock *sk = context->op == BPF_SOCK_OPS_TCP_CONNECT_CB ? context->sk : NULL;
  struct tag *tag = sk ? bpf_sk_storage_get(&mishap_tags, sk, NULL, 0) : NULL;
  if (!tag || !is_claimed(tag)) return 1;
  struct ends ends = {
      .source = {TAKE(local_ip6[0]), TAKE(local_ip6[1]), TAKE(local_ip6[2]), TAKE(local_ip6[3])},
      .to = {TAKE(remote_ip6[0]), TAKE(remote_ip6[1]), TAKE(remote_ip6[2]), TAKE(remote_ip6[3])},
      .source_port = TAKE(local_port),
      .to_port = __builtin_bswap32(TAKE(remote_port)),
  };
  map_ipv4(&ends, TAKE(family) == AF_INET, TAKE(local_ip4), TAKE(remote_ip4));
  bpf_map_update_elem(&mishap_carried, &ends, tag, BPF_ANY);
  return 1;
}

// ---- what listened before the run ----------------------------------------------------------------------------------------

struct bpf_iter_meta;
struct bpf_iter__tcp {
  struct bpf_iter_meta *meta;
  struct sock_common *sk_common;
} CORE;
struct file;
struct bpf_iter__task_file {
  struct bpf_iter_meta *meta;
  struct task_struct *task;
  u32 fd;
  struct file *file;
} CORE;

// A program's MPTCP listener, and whose it is: that it listens, only a socket of the kernel's own knows, which is TCP's.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 4096);
  __type(key, u64);
  __type(value, struct holder);
} mishap_multipath SEC(".maps");

static __always_inline struct holder *multipath_holder(const struct tcp_sock *tcp) {
  if (!bpf_core_type_exists(struct mptcp_subflow_context) || !BPF_CORE_READ_BITFIELD_PROBED(tcp, is_mptcp)) return NULL;
  const struct mptcp_subflow_context *part = BPF_CORE_READ((const struct inet_connection_sock *)tcp, icsk_ulp_data);
  const u64 whole = (u64)BPF_CORE_READ(part, conn);
  return bpf_map_lookup_elem(&mishap_multipath, &whole);
}

// Every listener of the host, so that what others share is theirs.
SEC("iter/tcp")
int mishap_listened(struct bpf_iter__tcp *context) {
  struct sock_common *common = context->sk_common;
  if (!common || common->skc_state != TCP_LISTEN) return 0;
  struct tcp_sock *tcp = bpf_skc_to_tcp_sock(common);
  struct sock *sk = (void *)tcp;
  if (!sk) return 0;
  const struct holder *holder = is_here(sk) ? multipath_holder(tcp) : NULL;
  if (holder) own(sk, holder);
  enter(sk);
  return 0;
}

// Every listener of one process: the run's from now on. Of MPTCP's, once the listeners of the host are looked at again.
SEC("iter/task_file")
int mishap_adopted(struct bpf_iter__task_file *context) {
  struct task_struct *task = context->task;
  struct file *file = context->file;
  struct socket *socket = task && file ? bpf_sock_from_file(file) : NULL;
  struct sock *sk = socket ? socket->sk : NULL;
  if (!sk || sk->__sk_common.skc_state != TCP_LISTEN || !is_here(sk)) return 0;
  const u64 whole = (u64)sk;
  struct holder holder = {};
  take_holder(&holder, task);
  if (sk->sk_protocol == IPPROTO_MPTCP) bpf_map_update_elem(&mishap_multipath, &whole, &holder, BPF_ANY);
  if (sk->sk_protocol != IPPROTO_TCP) return 0;
  own(sk, &holder);
  enter(sk);
  return 0;
}
