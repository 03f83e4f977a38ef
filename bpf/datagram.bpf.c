// Whom is this datagram for? What a program's socket sends goes to the relay's port for that destination, on the loopback, and
// what comes from such a port is shown as coming from there (native/contract/relay.h has the way of it). A socket without an
// address asks the kernel for one by connecting, so a destination without a route is left to fail, and getsockname shows the
// address that the kernel would have chosen.
//
// It goes direct: without a beat of the relay; to many at once; from a port that the program chose, because its peers know it
// by that; to a peer that spoke first, which an answer has to come from the right port for; from a socket bound to a device;
// when the relay has no port left.
#include "relay.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define DNS_PORT 53      // who answers there knows nobody by his port, and some who ask choose one by chance
#define NO_PEER (~0u)
#define TAKING_TRIES 8

struct endpoint {
  u32 address[4];  // IPv6 or mapped IPv4
  u32 port;        // host byte order
};
struct heard_key {
  u64 cookie;
  struct endpoint from;
  u32 reserved;
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 2 * MISHAP_RELAY_PEERS);
  __type(key, struct endpoint);
  __type(value, u32);
} mishap_peers SEC(".maps");

// Who spoke to a socket first.
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 16384);
  __type(key, struct heard_key);
  __type(value, u8);
} mishap_heard SEC(".maps");

static __always_inline bool is_mapped(const u32 address[4]) { return !address[0] && !address[1] && address[2] == MAPPED; }
static __always_inline bool is_loopback(const u32 address[4]) {
  if (is_mapped(address)) return (address[3] & __builtin_bswap32(0xff000000)) == __builtin_bswap32(0x7f000000);
  return !address[0] && !address[1] && !address[2] && address[3] == __builtin_bswap32(1);
}
// Groups, everybody, and addresses that mean nothing without their device.
static __always_inline bool is_single(const u32 address[4]) {
  if (is_mapped(address)) return !is_group(address[3]);
  return (address[0] & __builtin_bswap32(0xff000000)) != __builtin_bswap32(0xff000000) && (address[0] & __builtin_bswap32(0xffc00000)) != __builtin_bswap32(0xfe800000);
}

static __always_inline RelayPool *the_pool(void) {
  const u32 zero = 0;
  return bpf_map_lookup_elem(&mishap_pool, &zero);
}

// 1 + the number of the peer, in its family, that a port on the loopback belongs to; 0 none.
static __always_inline u32 peer_of_port(const RelayPool *pool, u32 family, u32 port) {
  u32 at = family << 16 | port;
  barrier_var(at);  // or the compiler, which knows how wide a port is, takes away the bound that the verifier wants to see
  return pool->peer_of_port[at & 0x1ffff];
}

// The address that the kernel chooses towards another; false: there is no way.
static __noinline int find_source(const struct endpoint *to, u32 source[4]) {
  RelayPool *pool = the_pool();
  if (!pool || !to || !source) return false;
  const u32 turn = pool->turn & 1, count = pool->routes_count[turn];
  for (u32 i = 0; i < MISHAP_RELAY_ROUTES && i < count; i++) {
    const RelayRoute *route = &pool->routes[(turn * MISHAP_RELAY_ROUTES + i) & (2 * MISHAP_RELAY_ROUTES - 1)];
    u32 differs = 0;
    for (int word = 0; word < 4; word++) differs |= (to->address[word] ^ route->prefix[word]) & route->mask[word];
    if (differs) continue;
    __builtin_memcpy(source, route->source, sizeof(route->source));
    return source[0] | source[1] | source[2] | source[3] ? true : false;
  }
  return false;
}

// The number of the peer that stands for a destination, made at first use; NO_PEER: none is left.
static __always_inline u32 peer_for(RelayPool *pool, const struct endpoint *to, u32 family) {
  const u32 *known = bpf_map_lookup_elem(&mishap_peers, to);
  if (known) return *known;
  for (int i = 0; i < TAKING_TRIES; i++) {
    const u32 at = *(volatile u32 *)&pool->used[family & 1];
    if (at >= *(volatile u32 *)&pool->ready[family & 1] || at >= MISHAP_RELAY_PEERS) return NO_PEER;
    if (__sync_val_compare_and_swap(&pool->used[family & 1], at, at + 1) != at) continue;
    RelayPeer *peer = &pool->peers[(family * MISHAP_RELAY_PEERS + at) & (2 * MISHAP_RELAY_PEERS - 1)];
    __builtin_memcpy(peer->address, to->address, sizeof(peer->address));
    peer->port = to->port;
    if (bpf_map_update_elem(&mishap_peers, to, &at, BPF_NOEXIST) == 0) return at;
    known = bpf_map_lookup_elem(&mishap_peers, to);  // somebody was faster
    return known ? *known : NO_PEER;
  }
  return NO_PEER;
}

// The address that a socket is bound to. All is read: the verifier takes no pointer to a field that is chosen first.
static __always_inline void take_bound(struct bpf_sock *sk, u32 bound[4]) {
  const u32 four = *(volatile u32 *)&sk->src_ip4;
  const u32 six[4] = {*(volatile u32 *)&sk->src_ip6[0], *(volatile u32 *)&sk->src_ip6[1], *(volatile u32 *)&sk->src_ip6[2], *(volatile u32 *)&sk->src_ip6[3]};
  const bool is_six = sk->family == AF_INET6;
  bound[0] = is_six ? six[0] : 0;
  bound[1] = is_six ? six[1] : 0;
  bound[2] = is_six ? six[2] : MAPPED;
  bound[3] = is_six ? six[3] : four;
}

// The port on the loopback that packets to a destination go to instead; 0: nowhere else.
static __always_inline u16 hand_over(struct bpf_sock_addr *context, const struct endpoint *to, bool connects) {
  struct bpf_sock *sk = context->sk;
  struct tag *tag = sk ? bpf_sk_storage_get(&mishap_tags, sk, NULL, 0) : NULL;
  KernelSocket *socket = tag ? row_of(tag) : NULL;
  if (!socket) return 0;
  const u32 at = tag->row;
  RelayRow *row = bpf_map_lookup_elem(&mishap_relayed, &at);
  if (!row) return 0;
  // An address that the kernel chose for an earlier connect to the relay is not one that the program bound it to.
  const bool chosen = row->cookie == tag->cookie && has_address(row->local);
  u32 bound[4];
  take_bound(sk, bound);
  const bool is_bound = !chosen && (bound[3] || (bound[0] | bound[1]));
  if (connects) row->cookie = 0;
  if (socket->flags & (MISHAP_SOCKET_CLAIMED | MISHAP_SOCKET_ACCEPTED) || !to->port || !is_single(to->address)) return 0;
  if (socket->flags & MISHAP_SOCKET_KNOWN_BY_PORT && to->port != DNS_PORT) return 0;
  if (is_bound && is_loopback(bound) && !is_loopback(to->address)) return 0;
  RelayControl *control = relay_for(context);
  RelayPool *pool = the_pool();
  if (!control || !pool) return 0;
  if (sk->bound_dev_if || sk->mark) return 0;
  const u32 family = is_mapped(to->address) ? 0 : 1;
  if (is_loopback(to->address) && (peer_of_port(pool, family, to->port) || is_relay(context, to->address, false))) return 0;
  struct heard_key heard = {.cookie = tag->cookie, .from = *to};
  if (bpf_map_lookup_elem(&mishap_heard, &heard)) return 0;
  u32 source[4] = {};
  if (!find_source(to, source)) return 0;
  const u32 peer = peer_for(pool, to, family);
  if (peer == NO_PEER) return 0;
  socket->flags |= MISHAP_SOCKET_RELAYED;
  if (connects || (row->cookie != tag->cookie && sk->state != TCP_ESTABLISHED)) {
    __builtin_memcpy(row->peer, to->address, sizeof(row->peer));
    __builtin_memset(row->local, 0, sizeof(row->local));
    if (connects && !is_bound) __builtin_memcpy(row->local, source, sizeof(row->local));
    row->peer_port = to->port;
    row->local_port = 0;
    name_current(&row->process, &row->pid, &row->tid);
    row->cookie = tag->cookie;
    __builtin_memcpy(socket->peer, to->address, sizeof(socket->peer));
    socket->peer_port = to->port;
    RelayConnect *connect = begin_connect(tag, row, socket);
    if (connect) bpf_ringbuf_submit(connect, 0);  // else the relay makes it up from the socket's row
  }
  return pool->peers[(family * MISHAP_RELAY_PEERS + peer) & (2 * MISHAP_RELAY_PEERS - 1)].pool_port;
}

static __always_inline int send4(struct bpf_sock_addr *context, bool connects) {
  if (context->protocol != IPPROTO_UDP) return 1;
  const u32 address = context->user_ip4;
  const struct endpoint to = {{0, 0, MAPPED, this_host(address)}, __builtin_bswap16(context->user_port)};
  const u16 port = hand_over(context, &to, connects);
  if (!port) return 1;
  context->user_ip4 = LOOPBACK;
  context->user_port = __builtin_bswap16(port);
  return 1;
}
static __always_inline int send6(struct bpf_sock_addr *context, bool connects) {
  if (context->protocol != IPPROTO_UDP) return 1;
  struct endpoint to = {{context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]}, __builtin_bswap16(context->user_port)};
  const bool mapped = is_mapped(to.address);
  if (mapped) to.address[3] = this_host(to.address[3]);
  if (!to.address[0] && !to.address[1] && !to.address[2] && !to.address[3]) to.address[3] = __builtin_bswap32(1);
  const u16 port = hand_over(context, &to, connects);
  if (!port) return 1;
  context->user_ip6[0] = context->user_ip6[1] = 0;
  context->user_ip6[2] = mapped ? MAPPED : 0;
  context->user_ip6[3] = mapped ? LOOPBACK : __builtin_bswap32(1);
  context->user_port = __builtin_bswap16(port);
  return 1;
}
SEC("cgroup/connect4")
int mishap_peered4(struct bpf_sock_addr *context) { return send4(context, true); }
SEC("cgroup/connect6")
int mishap_peered6(struct bpf_sock_addr *context) { return send6(context, true); }
SEC("cgroup/sendmsg4")
int mishap_send4(struct bpf_sock_addr *context) { return send4(context, false); }
SEC("cgroup/sendmsg6")
int mishap_send6(struct bpf_sock_addr *context) { return send6(context, false); }

// Shows who really sent a datagram, where that came from the relay; whoever else it was, answers go to him direct.
static __always_inline int received(struct bpf_sock_addr *context, const struct endpoint *from, bool six) {
  struct bpf_sock *sk = context->sk;
  struct tag *tag = sk && context->protocol == IPPROTO_UDP ? bpf_sk_storage_get(&mishap_tags, sk, NULL, 0) : NULL;
  const KernelSocket *socket = tag ? row_of(tag) : NULL;
  const u32 zero = 0, family = is_mapped(from->address) ? 0 : 1;
  const RelayControl *control = bpf_map_lookup_elem(&mishap_relay, &zero);
  RelayPool *pool = the_pool();
  if (!socket || !control || !pool || control->netns != bpf_get_netns_cookie(context)) return 1;
  const u32 peer = is_loopback(from->address) ? peer_of_port(pool, family, from->port) : 0;
  if (peer) {
    const RelayPeer *of = &pool->peers[(family * MISHAP_RELAY_PEERS + peer - 1) & (2 * MISHAP_RELAY_PEERS - 1)];
    return of->port ? show(context, of->address, of->port, six) : 1;
  }
  if (socket->flags & (MISHAP_SOCKET_CLAIMED | MISHAP_SOCKET_KNOWN_BY_PORT)) return 1;
  const struct heard_key heard = {.cookie = tag->cookie, .from = *from};
  const u8 yes = 1;
  bpf_map_update_elem(&mishap_heard, &heard, &yes, BPF_ANY);
  return 1;
}
SEC("cgroup/recvmsg4")
int mishap_received4(struct bpf_sock_addr *context) {
  const struct endpoint from = {{0, 0, MAPPED, context->user_ip4}, __builtin_bswap16(context->user_port)};
  return received(context, &from, false);
}
SEC("cgroup/recvmsg6")
int mishap_received6(struct bpf_sock_addr *context) {
  const struct endpoint from = {{context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]}, __builtin_bswap16(context->user_port)};
  return received(context, &from, true);
}

// A port of the program's own choice.
static __always_inline int bound(struct bpf_sock_addr *context) {
  struct bpf_sock *sk = context->sk;
  if (context->protocol != IPPROTO_UDP || !context->user_port) return 1;
  struct tag *tag = sk ? bpf_sk_storage_get(&mishap_tags, sk, NULL, 0) : NULL;
  KernelSocket *socket = tag ? row_of(tag) : NULL;
  if (socket) socket->flags |= MISHAP_SOCKET_KNOWN_BY_PORT;
  return 1;
}
SEC("cgroup/bind4")
int mishap_bound4(struct bpf_sock_addr *context) { return bound(context); }
SEC("cgroup/bind6")
int mishap_bound6(struct bpf_sock_addr *context) { return bound(context); }
